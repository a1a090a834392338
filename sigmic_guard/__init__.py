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
from sigmic_guard.lifecycle import CancelReason, Outcome, State, TaskPolicy
from sigmic_guard.observe import CancelResult
from sigmic_guard.sigmic import SigmicClient, TaskApi, TaskInfo
from sigmic_guard.supervisor import (
    Cancellation,
    RemoteTask,
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
)

__all__ = [
    "ApiError",
    "AuthenticationError",
    "CancelReason",
    "CancelResult",
    "Cancellation",
    "ConfigurationError",
    "ConnectionFailed",
    "DuplicateKey",
    "LedgerError",
    "Outcome",
    "PermissionDenied",
    "ProtocolError",
    "RateLimited",
    "RemoteTask",
    "ServerError",
    "ShutdownReport",
    "SigmicClient",
    "SigmicGuardError",
    "Snapshot",
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
]
__version__ = "0.1.0"
