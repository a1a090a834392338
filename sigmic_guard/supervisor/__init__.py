"""The supervisor: the only room with task groups and cancel scopes."""

from sigmic_guard.supervisor.block import TaskBlock
from sigmic_guard.supervisor.events import TaskEvent, TaskEvents
from sigmic_guard.supervisor.options import TaskOptions, Watch
from sigmic_guard.supervisor.results import (
    Cancellation,
    OrphanRow,
    ReapReport,
    ShutdownReport,
    Snapshot,
    TaskResult,
    TaskRow,
)
from sigmic_guard.supervisor.supervisor import Supervisor
from sigmic_guard.supervisor.task import RemoteTask

__all__ = [
    "Cancellation",
    "OrphanRow",
    "ReapReport",
    "RemoteTask",
    "ShutdownReport",
    "Snapshot",
    "Supervisor",
    "TaskBlock",
    "TaskEvent",
    "TaskEvents",
    "TaskOptions",
    "TaskResult",
    "TaskRow",
    "Watch",
]
