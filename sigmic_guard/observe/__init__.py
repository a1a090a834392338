"""What operators see: metrics and logs, both told by the supervisor through one protocol."""

from sigmic_guard.lifecycle import CancelResult, ReapResult
from sigmic_guard.observe.context import enter_task, leave_task
from sigmic_guard.observe.events import (
    BlockAbandoned,
    CancellationAcknowledged,
    CancellationEnded,
    CandidatesFound,
    CredentialAccepted,
    CredentialRefused,
    DeleteAnswered,
    LedgerCommitted,
    LedgerFailed,
    ObservedEvent,
    OrphanLeft,
    OrphanReaped,
    OrphansCounted,
    RequestAnswered,
    ShutdownBegun,
    ShutdownFinished,
    TaskChanged,
    TaskLeft,
    WorkerFailed,
)
from sigmic_guard.observe.fanout import Observers
from sigmic_guard.observe.logs import Logs
from sigmic_guard.observe.metrics import Metrics
from sigmic_guard.observe.observer import Observer, Tracer
from sigmic_guard.observe.wording import bounded_status, status_of

__all__ = [
    "BlockAbandoned",
    "CancelResult",
    "CancellationAcknowledged",
    "CancellationEnded",
    "CandidatesFound",
    "CredentialAccepted",
    "CredentialRefused",
    "DeleteAnswered",
    "LedgerCommitted",
    "LedgerFailed",
    "Logs",
    "Metrics",
    "ObservedEvent",
    "Observer",
    "Observers",
    "OrphanLeft",
    "OrphanReaped",
    "OrphansCounted",
    "ReapResult",
    "RequestAnswered",
    "ShutdownBegun",
    "ShutdownFinished",
    "TaskChanged",
    "TaskLeft",
    "Tracer",
    "WorkerFailed",
    "bounded_status",
    "enter_task",
    "leave_task",
    "status_of",
]
