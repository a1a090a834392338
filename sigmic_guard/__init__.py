"""No remote task outlives the code that started it.

Everything a user needs is importable from here.
"""

from sigmic_guard.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    DuplicateKey,
    LedgerError,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicGuardError,
    SupervisorShutdown,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskNotFound,
    TaskTimedOut,
    ValidationError,
)
from sigmic_guard.ledger import Ledger, SqliteLedger
from sigmic_guard.lifecycle import (
    CancelReason,
    CancelResult,
    Outcome,
    ReapResult,
    State,
    TaskPolicy,
)
from sigmic_guard.sigmic import SigmicClient, TaskApi, TaskInfo
from sigmic_guard.supervisor import (
    Cancellation,
    OrphanRow,
    ReapReport,
    RemoteTask,
    RemoteTaskGroup,
    ShutdownReport,
    Snapshot,
    Supervisor,
    TaskBlock,
    TaskEvent,
    TaskEvents,
    TaskOptions,
    TaskResult,
    TaskRow,
    Watch,
    serve,
)
from sigmic_guard.supervisor.face import watchdog as _watchdog
from sigmic_guard.watchdog.parent import Watchdog as _Watchdog

__all__ = [
    "ApiError",
    "AuthenticationError",
    "CancelReason",
    "CancelResult",
    "Cancellation",
    "ConfigurationError",
    "ConnectionFailed",
    "DuplicateKey",
    "Ledger",
    "LedgerError",
    "OrphanRow",
    "Outcome",
    "PermissionDenied",
    "ProtocolError",
    "RateLimited",
    "ReapReport",
    "ReapResult",
    "RemoteTask",
    "RemoteTaskGroup",
    "ServerError",
    "ShutdownReport",
    "SigmicClient",
    "SigmicGuardError",
    "Snapshot",
    "SqliteLedger",
    "State",
    "Supervisor",
    "SupervisorShutdown",
    "TaskApi",
    "TaskBlock",
    "TaskCancelled",
    "TaskError",
    "TaskEvent",
    "TaskEvents",
    "TaskFailed",
    "TaskInfo",
    "TaskNotFound",
    "TaskOptions",
    "TaskPolicy",
    "TaskResult",
    "TaskRow",
    "TaskTimedOut",
    "ValidationError",
    "Watch",
    "serve",
]
__version__ = "0.1.0"

# Set here, since the watchdog's package stands above the supervisor's, which cannot import it.
_watchdog.make_watchdog = _Watchdog
