"""What operators read in their logs: :class:`Logs`, one structlog event per thing that matters.

**The allow-list.** Every line is made of the fields that this module names, one by one; none is
made of a whole record, an exception or somebody else's keyword arguments. Messages, environments,
secrets, credentials, URLs and the user's keys have no field. Texts are redacted.

**The cost.** A step that no line tells of costs two comparisons; one whose level is off costs one
question more. No field is built before the answer.
"""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING
from typing import TYPE_CHECKING, Any, Final

from sigmic_guard.lifecycle import Event, State
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.observe.channel import Channel
from sigmic_guard.observe.wording import bounded_status, clean, described, whereabouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.lifecycle import CancelResult, Change, ReapResult, Record, Verdict

#: Nothing exists yet, as far as anybody knows.
_SILENT: Final = frozenset({State.INTENT, State.CREATING})
_IN_DOUBT: Final = frozenset({State.UNKNOWN, State.NEVER_CREATED, State.UNCONFIRMED})
_STILL_RUNS: Final = "the remote task may still run and cost money; look for it and end it"

_OTHERS: Final = (
    "its owner is dead; only who has the credential and the base URL of its making can end it"
)
_UNWRITTEN: Final = (
    "these tasks have ended, and the ledger does not say so; whoever starts next looks at them"
)
_LOOK: Final = (
    "one of these may be the task whose create got no answer; cancel it if it is not wanted"
)
_ABANDONED: Final = (
    "its block was left behind, or left in another task than entered it; close generators in the "
    "task that iterates over them, with contextlib.aclosing()"
)
_REFUSED: Final = (
    "until the API takes the credential again, nobody learns how tasks go, and none can be ended; "
    "api_key=… may be a callable, which is asked for another one"
)
#: So many ids are listed in one line.
_MOST_LISTED: Final = 20


class Logs:
    """An observer that writes to the host's structlog, as logger ``sigmic_guard``."""

    __slots__ = ("_channel",)

    def __init__(self) -> None:
        self._channel = Channel("sigmic_guard")

    def task_changed(self, change: Change) -> None:
        """Tell of a start, a cancellation, an end, and of whatever is in doubt."""
        before, after, event = change
        state = after.state
        if event is Event.TAKE_OVER:
            self._tell(INFO, "task.taken_over", after)
            return
        if before is not None and before.state is state:
            if before.finished_at == after.finished_at:
                return
        elif state in _SILENT:
            return
        elif state in _IN_DOUBT:
            self._doubt(after, change.seconds)
            return
        elif before is None or before.state in NAMELESS:
            self._tell(INFO, "task.started", after)
        if state is State.CANCELLING:
            self._tell(INFO, "task.cancelling", after)
        elif state is State.HANDED_OVER:
            self._tell(INFO, "task.handed_over", after)
        elif after.finished_at is not None:
            self._tell(INFO, "task.finished", after, change.seconds)

    def _doubt(self, after: Record, seconds: float | None) -> None:
        """Tell of a state that somebody may have to act upon."""
        if after.state is State.UNKNOWN:
            self._tell(WARNING, "task.unknown", after)
        elif after.state is State.UNCONFIRMED:
            self._tell(ERROR, "task.unconfirmed", after, hint=_STILL_RUNS)
        else:
            level = WARNING if after.reason is None else INFO  # refused, or withdrawn
            self._tell(level, "task.never_created", after, seconds)

    def block_abandoned(self, record: Record) -> None:
        """Tell where a task is ended that its code forgot."""
        self._tell(WARNING, "task.abandoned", record, hint=_ABANDONED)

    def task_left(self, record: Record) -> None:
        """Say nothing: what is in doubt was told when it came to be."""

    def delete_answered(self, record: Record, status: str) -> None:
        """Tell of a DELETE that proved nothing; the task that is UNCONFIRMED was told of once."""
        if status.startswith("2") or status == "404" or record.state is State.UNCONFIRMED:
            return
        level = WARNING if status in {"401", "403"} else DEBUG if status == "429" else INFO
        self._tell(level, "cancel.retry", record, status=bounded_status(status))

    def cancellation_acknowledged(self, record: Record, seconds: float) -> None:
        """Tell that the API took it."""
        self._tell(DEBUG, "cancel.acknowledged", record, seconds)

    def cancellation_ended(self, record: Record, result: CancelResult, seconds: float) -> None:
        """Tell what came of it."""
        self._tell(DEBUG, "cancel.ended", record, seconds, result=result.value)

    def orphans_counted(self, owner_id: str, count: int, oldest_age: float) -> None:
        """Say nothing: :class:`~sigmic_guard.observe.Metrics` counts it."""

    def orphan_reaped(self, record: Record, result: ReapResult, seconds: float) -> None:
        """Tell what came of it."""
        self._tell(INFO, "orphan.reaped", record, seconds, result=result.value)

    def orphan_left(self, record: Record, why: Verdict) -> None:
        """Tell of a task that somebody else has to end."""
        self._tell(WARNING, "orphan.left", record, why=why.value, hint=_OTHERS)

    def candidates_found(self, record: Record, task_ids: Sequence[str]) -> None:
        """Tell which tasks somebody should look at."""
        self._tell(WARNING, "task.candidates", record, hint=_LOOK, candidates=_listed(task_ids))

    def request_answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Say nothing: :class:`~sigmic_guard.observe.Metrics` counts it."""

    def ledger_committed(self, rows: int, seconds: float) -> None:
        """Say nothing: :class:`~sigmic_guard.observe.Metrics` counts it."""

    def ledger_failed(self, rows: int, error: BaseException) -> None:
        """Tell of a transaction that was not done."""
        self._channel.write(ERROR, "ledger.failed", {"rows": rows, "error": described(error)})

    def credential_refused(self, code: str, status: int) -> None:
        """Tell that nobody learns how tasks go, and that none can be ended, for now."""
        fields = {"code": clean(code), "status": status, "hint": _REFUSED}
        self._channel.write(ERROR, "credential.refused", fields)

    def credential_accepted(self, seconds: float) -> None:
        """Tell that this is over."""
        self._channel.write(INFO, "credential.accepted", {"seconds": _rounded(seconds)})

    def worker_failed(self, worker: str, error: BaseException) -> None:
        """Tell of a bug, and where it was raised."""
        fields = {"worker": clean(worker), "error": whereabouts(error)}
        self._channel.write(ERROR, "worker.failed", fields)

    def shutdown_begun(self, live: int, grace: float) -> None:
        """Tell that the drain begins."""
        self._channel.write(INFO, "shutdown.begun", {"live": live, "grace": _rounded(grace)})

    def shutdown_finished(self, unproven: int, unwritten: int, seconds: float) -> None:
        """Tell how the drain ended: as an error if a task may still run."""
        fields: dict[str, Any] = {
            "unproven": unproven,
            "unwritten": unwritten,
            "seconds": _rounded(seconds),
        }
        if unproven:
            fields["hint"] = "these remote tasks may still run and cost money; see task.unconfirmed"
        elif unwritten:
            fields["hint"] = _UNWRITTEN
        level = ERROR if unproven else WARNING if unwritten else INFO
        self._channel.write(level, "shutdown.finished", fields)

    def _tell(
        self, level: int, event: str, record: Record, seconds: float | None = None, **more: str
    ) -> None:
        """Write one line about a task, if its level is on: this is the allow-list."""
        if not self._channel.open(level):
            return
        outcome, reason, ended = record.outcome, record.reason, record.finished_at
        if seconds is None and ended is not None:
            seconds = max(0.0, ended - record.created_at)
        fields = {
            "task_id": record.remote_id and clean(record.remote_id),
            "intent_id": clean(record.intent_id),
            "namespace": clean(record.namespace),
            "state": record.state.value,
            "outcome": outcome and outcome.value,
            "reason": reason and reason.value,
            "attempts": record.attempts or None,
            "seconds": seconds if seconds is None else _rounded(seconds),
            "last_error": record.last_error and clean(record.last_error),
            **more,
        }
        told = {name: value for name, value in fields.items() if value is not None}
        self._channel.write(level, event, told)


def _listed(task_ids: Sequence[str]) -> str:
    more = len(task_ids) - _MOST_LISTED
    return " ".join(map(clean, task_ids[:_MOST_LISTED])) + (f" and {more} more" if more > 0 else "")


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
