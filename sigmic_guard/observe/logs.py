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

from sigmic_guard.lifecycle import State
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.observe.channel import Channel
from sigmic_guard.observe.wording import clean, described, redacted, whereabouts

if TYPE_CHECKING:
    from sigmic_guard.lifecycle import Change, Record
    from sigmic_guard.observe.observer import CancelResult

_NOTED: Final = frozenset({State.UNKNOWN, State.NEVER_CREATED, State.UNCONFIRMED})
_STILL_RUNS: Final = "the remote task may still run and cost money; look for it and end it"


class Logs:
    """An observer that writes to the host's structlog, as logger ``sigmic_guard``."""

    __slots__ = ("_channel",)

    def __init__(self) -> None:
        self._channel = Channel("sigmic_guard")

    def task_changed(self, change: Change) -> None:
        """Tell of a start, a cancellation, an end, and of whatever is in doubt."""
        before, after, _ = change
        state = after.state
        if before is not None and before.state is state:
            if before.finished_at == after.finished_at:
                return
        elif state in _NOTED:
            self._note(after)
            return
        elif (before is None or before.state in NAMELESS) and state not in NAMELESS:
            self._tell(INFO, "task.started", after)
        if state is State.CANCELLING:
            self._tell(INFO, "task.cancelling", after)
        elif after.finished_at is not None:
            self._tell(
                INFO,
                "task.finished",
                after,
                seconds=_rounded(max(0.0, after.finished_at - after.created_at)),
            )

    def _note(self, after: Record) -> None:
        """Tell of a state that somebody may have to act upon."""
        if after.state is State.UNKNOWN:
            self._tell(WARNING, "task.unknown", after, error=_error(after))
        elif after.state is State.UNCONFIRMED:
            self._tell(ERROR, "task.unconfirmed", after, error=_error(after), hint=_STILL_RUNS)
        else:
            level = WARNING if after.reason is None else INFO  # refused, or withdrawn
            self._tell(level, "task.never_created", after, error=_error(after))

    def delete_answered(self, record: Record, status: str) -> None:
        """Tell of a DELETE that proved nothing."""
        if status.startswith("2") or status == "404":
            return
        level = WARNING if status in {"401", "403"} else DEBUG if status == "429" else INFO
        self._tell(level, "cancel.retry", record, status=clean(status))

    def cancellation_acknowledged(self, record: Record, seconds: float) -> None:
        """Tell that the API took it."""
        self._tell(DEBUG, "cancel.acknowledged", record, seconds=_rounded(seconds))

    def cancellation_ended(self, record: Record, result: CancelResult, seconds: float) -> None:
        """Tell what came of it."""
        self._tell(DEBUG, "cancel.ended", record, result=result.value, seconds=_rounded(seconds))

    def request_answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Say nothing: :class:`~sigmic_guard.observe.Metrics` counts it."""

    def ledger_committed(self, rows: int, seconds: float) -> None:
        """Say nothing: :class:`~sigmic_guard.observe.Metrics` counts it."""

    def ledger_failed(self, rows: int, error: BaseException) -> None:
        """Tell of a transaction that was not done."""
        self._channel.write(ERROR, "ledger.failed", {"rows": rows, "error": described(error)})

    def worker_failed(self, worker: str, error: BaseException) -> None:
        """Tell of a bug, and where it was raised."""
        fields = {"worker": clean(worker), "error": whereabouts(error)}
        self._channel.write(ERROR, "worker.failed", fields)

    def shutdown_begun(self, live: int, grace: float) -> None:
        """Tell that the drain begins."""
        self._channel.write(INFO, "shutdown.begun", {"live": live, "grace": _rounded(grace)})

    def shutdown_finished(self, unproven: int, seconds: float) -> None:
        """Tell how the drain ended: as an error if a task may still run."""
        fields: dict[str, Any] = {"unproven": unproven, "seconds": _rounded(seconds)}
        if unproven:
            fields["hint"] = "these remote tasks may still run and cost money; see task.unconfirmed"
        self._channel.write(ERROR if unproven else INFO, "shutdown.finished", fields)

    def _tell(self, level: int, event: str, record: Record, **more: Any) -> None:
        """Write one line about a task: the allow-list, and what is worth having of ``more``."""
        if not self._channel.open(level):
            return
        outcome, task_id = record.outcome, record.remote_id
        fields: dict[str, Any] = {
            "task_id": clean(task_id) if task_id is not None else None,
            "intent_id": clean(record.intent_id[:8]),
            "namespace": clean(record.namespace),
            "state": record.state.value,
            "outcome": outcome.value if outcome is not None else None,
            "reason": record.reason.value if record.reason is not None else None,
            "attempts": record.attempts or None,
            **more,
        }
        told = {name: value for name, value in fields.items() if value is not None}
        self._channel.write(level, event, told)


def _error(record: Record) -> str | None:
    return redacted(record.last_error) if record.last_error is not None else None


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
