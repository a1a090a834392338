"""Two sets of books, and whether they agree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from demo.counts import Counts

_MARKER: Final = "SIGMIC_GUARD_INTENT"
#: Whatever else may come of an orphan is no end that the emulator knows of.
_REAPED: Final = ("cancelled", "already_finished", "never_created")


@dataclass(frozen=True, slots=True)
class Truth:
    """What the emulator knows. It has heard every request and forgets no task."""

    created: int
    live: int
    #: By status, over all tasks that were ever created.
    by_status: Mapping[str, int]
    #: Tasks beyond the first with the same intent: what a repeated POST would have made.
    repeated: int = 0
    #: POSTs that it heard, whether it did what they asked or not.
    posts: int = 0
    #: When the last task was cancelled, in seconds since the epoch, if it is known.
    last_cancelled_at: float | None = None

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Truth:
        """Read the answer of ``GET /_emulator/state``, with all tasks or without."""
        counts = dict(state["tasks"])
        tasks = state.get("all", ())
        intents = [task["env"].get(_MARKER) for task in tasks]
        ends = [task["completedAt"] for task in tasks if task["status"] == "cancelled"]
        return cls(
            created=counts.pop("total"),
            live=counts.pop("live"),
            by_status=counts,
            repeated=len(intents) - len(set(intents)),
            posts=state["requests"].get("create", 0),
            last_cancelled_at=max(map(_seconds_of, ends), default=None),
        )


def _seconds_of(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


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
    """The end of an act."""

    checks: tuple[Check, ...]
    #: What else was wrong, in words.
    problems: tuple[str, ...]
    left_running: int

    @property
    def good(self) -> bool:
        """Whether every task is accounted for, and none runs."""
        agreed = all(check.agrees for check in self.checks)
        return agreed and not self.problems and not self.left_running


@dataclass(frozen=True, slots=True)
class Act:
    """One act, when it is over."""

    #: What happened, in a sentence.
    story: str
    verdict: Verdict
    #: What is behind the numbers: names and values.
    details: tuple[tuple[str, str], ...]


def judge_shutdown(
    counts: Counts, truth: Truth, *, met_signal: int, exit_code: int, expected_code: int
) -> Verdict:
    """Compare the last counts of a supervisor that shut down with the emulator's truth.

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
    shut_down = counts.for_reason("shutdown")
    problems = {
        **_general_problems(counts, truth),
        f"{met_signal} tasks met the signal, and {shut_down} were ended for it": (
            met_signal != shut_down
        ),
        "nothing was run": not counts.creates,
        f"the worker exited with {exit_code}, not {expected_code}": exit_code != expected_code,
    }
    return _verdict(checks, problems, truth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """What a worker left behind when it was killed."""

    #: By its own last counts.
    live: int
    in_flight: int
    #: How many of the creates in flight had made a task, by the emulator's truth.
    effective: int
    exit_code: int


def judge_death(
    counts: Counts, truth: Truth, killed: Killed, *, expected: Killed, exit_code: int
) -> Verdict:
    """Compare the last counts of the next start after a death with the emulator's truth.

    All tasks that there ever were had been begun by the one that was killed.

    :param expected: what it was to leave behind, at least.
    :param exit_code: of the next start.
    """
    reaped = {how: counts.reaped.get(how, 0) for how in _REAPED}
    checks = (
        Check("creates sent", counts.started, truth.posts),
        Check("reaped: no effect", reaped["never_created"], truth.posts - truth.created),
        Check("reaped: finished", reaped["already_finished"], truth.by_status["completed"]),
        Check("reaped: cancelled", reaped["cancelled"], truth.by_status["cancelled"]),
        Check("still running", counts.alive, truth.live),
    )
    others = sum(counts.reaped.values()) - sum(reaped.values())
    problems = {
        **_general_problems(counts, truth),
        f"{others} orphans ended in another way": bool(others),
        f"{counts.creates} tasks were created by the next start": bool(counts.creates),
        f"{killed.live} tasks were live at the kill, not {expected.live}": (
            killed.live < expected.live
        ),
        f"{killed.in_flight} creates were in flight at the kill, not {expected.in_flight}": (
            killed.in_flight < expected.in_flight
        ),
        f"{killed.effective} of these had made a task, not {expected.effective}": (
            killed.effective < expected.effective
        ),
        f"the worker ended with {killed.exit_code}, not {expected.exit_code}": (
            killed.exit_code != expected.exit_code
        ),
        f"the next start exited with {exit_code}": exit_code != 0,
    }
    return _verdict(checks, problems, truth)


def _general_problems(counts: Counts, truth: Truth) -> dict[str, bool]:
    unproven = counts.cancellations.get("unconfirmed", 0)
    return {
        f"started {counts.started} is not finished {counts.ended} + live {counts.alive}": (
            counts.started != counts.ended + counts.alive
        ),
        f"{unproven} cancellations are unconfirmed": bool(unproven),
        f"{truth.repeated} tasks were created twice": bool(truth.repeated),
    }


def _verdict(checks: tuple[Check, ...], problems: Mapping[str, bool], truth: Truth) -> Verdict:
    return Verdict(
        checks=checks,
        problems=tuple(problem for problem, present in problems.items() if present),
        left_running=truth.live,
    )
