"""Two sets of books, and whether they agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sigmic_guard.cli.demo.counts import Counts

_MARKER = "SIGMIC_GUARD_INTENT"


@dataclass(frozen=True, slots=True)
class Truth:
    """What the emulator knows. It has heard every request and forgets no task."""

    created: int
    live: int
    #: By status, over all tasks that were ever created.
    by_status: Mapping[str, int]
    #: Tasks beyond the first with the same intent: what a repeated POST would have made.
    repeated: int = 0

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Truth:
        """Read the answer of ``GET /_emulator/state``, with all tasks or without."""
        counts = dict(state["tasks"])
        intents = [task["env"].get(_MARKER) for task in state.get("all", ())]
        return cls(
            created=counts.pop("total"),
            live=counts.pop("live"),
            by_status=counts,
            repeated=len(intents) - len(set(intents)),
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the comparison."""

    name: str
    ours: int
    theirs: int

    @property
    def agrees(self) -> bool:
        """Whether both say the same."""
        return self.ours == self.theirs


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of the demo."""

    checks: tuple[Check, ...]
    #: What else was wrong, in words.
    problems: tuple[str, ...]
    left_running: int

    @property
    def good(self) -> bool:
        """Whether every task is accounted for, and none runs."""
        agreed = all(check.agrees for check in self.checks)
        return agreed and not self.problems and not self.left_running


def judge(
    counts: Counts, truth: Truth, *, met_signal: int, exit_code: int, expected_code: int
) -> Verdict:
    """Compare the supervisor's last counts with the emulator's truth.

    :param met_signal: how many tasks were live when the worker got its signal, the ones that still
        waited for a place included.
    """
    # Tasks that still waited for a place were withdrawn: we count them, the emulator never heard
    # of them.
    cancelled = counts.with_outcome("cancelled", "timed_out") - counts.never_sent
    checks = (
        Check("created", counts.creates, truth.created),
        Check("completed", counts.with_outcome("completed"), truth.by_status["completed"]),
        Check("failed", counts.with_outcome("failed"), truth.by_status["failed"]),
        Check("cancelled", cancelled, truth.by_status["cancelled"]),
        Check("still running", counts.alive, truth.live),
    )
    unproven = counts.cancellations.get("unconfirmed", 0)
    shut_down = counts.for_reason("shutdown")
    problems = {
        f"started {counts.started} is not finished {counts.ended} + live {counts.alive}": (
            counts.started != counts.ended + counts.alive
        ),
        f"{met_signal} tasks met the signal, and {shut_down} were ended for it": (
            met_signal != shut_down
        ),
        f"{unproven} cancellations are unconfirmed": bool(unproven),
        f"{truth.repeated} tasks were created twice": bool(truth.repeated),
        "nothing was run": not counts.creates,
        f"the worker exited with {exit_code}, not {expected_code}": exit_code != expected_code,
    }
    return Verdict(
        checks=checks,
        problems=tuple(problem for problem, present in problems.items() if present),
        left_running=truth.live,
    )
