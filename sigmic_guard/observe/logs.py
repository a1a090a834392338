"""What operators read in their logs: :class:`Logs`, one structlog event per thing that matters.

**The allow-list.** Every line is made of the fields that this module names, one by one; none is
made of a whole record, an exception or somebody else's keyword arguments. Messages, environments,
secrets, credentials, URLs and the user's keys have no field. Texts are redacted.

**The cost.** A step that no line tells of costs two comparisons; one whose level is off costs one
question more. No field is built before the answer.
"""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sigmic_guard.lifecycle import Event, State
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.observe.channel import Channel
from sigmic_guard.observe.events import (
    BlockAbandoned,
    CancellationAcknowledged,
    CancellationEnded,
    CandidatesFound,
    CredentialAccepted,
    CredentialRefused,
    DeleteAnswered,
    LedgerFailed,
    OrphanLeft,
    OrphanReaped,
    ShutdownBegun,
    ShutdownFinished,
    TaskChanged,
    WorkerFailed,
)
from sigmic_guard.observe.wording import bounded_status, clean, described, whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe.events import ObservedEvent

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
    "its block or its group was left behind, or its block was left in another task than entered "
    "it; close generators in the task that iterates over them, with contextlib.aclosing(), and "
    "keep a group as long as its tasks are to run"
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

    def observe(self, event: ObservedEvent) -> None:
        """Tell what happened, if a line tells it."""
        tell = self._TELLERS.get(type(event))
        if tell is not None:
            tell(self, event)

    def _task_changed(self, change: TaskChanged) -> None:
        """Tell of a start, a cancellation, an end, and of whatever is in doubt."""
        before, after, event = change.before, change.after, change.event
        state = after.state
        if event in {Event.TAKE_OVER, Event.REATTACH}:
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

    def _block_abandoned(self, event: BlockAbandoned) -> None:
        self._tell(WARNING, "task.abandoned", event.record, hint=_ABANDONED)

    def _delete_answered(self, event: DeleteAnswered) -> None:
        """Tell of a DELETE that proved nothing; the task that is UNCONFIRMED was told of once."""
        status, record = event.status, event.record
        if status.startswith("2") or status == "404" or record.state is State.UNCONFIRMED:
            return
        level = WARNING if status in {"401", "403"} else DEBUG if status == "429" else INFO
        self._tell(level, "cancel.retry", record, status=bounded_status(status))

    def _cancellation_acknowledged(self, event: CancellationAcknowledged) -> None:
        self._tell(DEBUG, "cancel.acknowledged", event.record, event.seconds)

    def _cancellation_ended(self, event: CancellationEnded) -> None:
        result = event.result.value
        self._tell(DEBUG, "cancel.ended", event.record, event.seconds, result=result)

    def _orphan_reaped(self, event: OrphanReaped) -> None:
        result = event.result.value
        self._tell(INFO, "orphan.reaped", event.record, event.seconds, result=result)

    def _orphan_left(self, event: OrphanLeft) -> None:
        """Tell of a task that somebody else has to end."""
        self._tell(WARNING, "orphan.left", event.record, why=event.why.value, hint=_OTHERS)

    def _candidates_found(self, event: CandidatesFound) -> None:
        """Tell which tasks somebody should look at."""
        listed = _listed(event.task_ids)
        self._tell(WARNING, "task.candidates", event.record, hint=_LOOK, candidates=listed)

    def _ledger_failed(self, event: LedgerFailed) -> None:
        fields = {"rows": event.rows, "error": described(event.error)}
        self._channel.write(ERROR, "ledger.failed", fields)

    def _credential_refused(self, event: CredentialRefused) -> None:
        """Tell that nobody learns how tasks go, and that none can be ended, for now."""
        fields = {"code": clean(event.code), "status": event.status, "hint": _REFUSED}
        self._channel.write(ERROR, "credential.refused", fields)

    def _credential_accepted(self, event: CredentialAccepted) -> None:
        """Tell that this is over."""
        fields = {"seconds": _rounded(event.seconds)}
        self._channel.write(INFO, "credential.accepted", fields)

    def _worker_failed(self, event: WorkerFailed) -> None:
        """Tell of a bug, and where it was raised."""
        fields = {"worker": clean(event.worker), "error": whereabouts(event.error)}
        self._channel.write(ERROR, "worker.failed", fields)

    def _shutdown_begun(self, event: ShutdownBegun) -> None:
        fields = {"live": event.live, "grace": _rounded(event.grace)}
        self._channel.write(INFO, "shutdown.begun", fields)

    def _shutdown_finished(self, event: ShutdownFinished) -> None:
        """Tell how the drain ended: as an error if a task may still run."""
        fields: dict[str, Any] = {
            "unproven": event.unproven,
            "unwritten": event.unwritten,
            "seconds": _rounded(event.seconds),
        }
        if event.unproven:
            fields["hint"] = "these remote tasks may still run and cost money; see task.unconfirmed"
        elif event.unwritten:
            fields["hint"] = _UNWRITTEN
        level = ERROR if event.unproven else WARNING if event.unwritten else INFO
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

    #: What is not here no line tells: :class:`~sigmic_guard.observe.Metrics` counts it.
    _TELLERS: ClassVar[Mapping[type, Callable[[Logs, Any], None]]] = {
        TaskChanged: _task_changed,
        BlockAbandoned: _block_abandoned,
        DeleteAnswered: _delete_answered,
        CancellationAcknowledged: _cancellation_acknowledged,
        CancellationEnded: _cancellation_ended,
        OrphanReaped: _orphan_reaped,
        OrphanLeft: _orphan_left,
        CandidatesFound: _candidates_found,
        LedgerFailed: _ledger_failed,
        CredentialRefused: _credential_refused,
        CredentialAccepted: _credential_accepted,
        WorkerFailed: _worker_failed,
        ShutdownBegun: _shutdown_begun,
        ShutdownFinished: _shutdown_finished,
    }


def _listed(task_ids: Sequence[str]) -> str:
    more = len(task_ids) - _MOST_LISTED
    return " ".join(map(clean, task_ids[:_MOST_LISTED])) + (f" and {more} more" if more > 0 else "")


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
