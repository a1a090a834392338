"""The supervisor: the only room with task groups and cancel scopes."""

from sigmic_guard.supervisor.face.block import TaskBlock
from sigmic_guard.supervisor.face.group import RemoteTaskGroup
from sigmic_guard.supervisor.face.options import TaskOptions, Watch
from sigmic_guard.supervisor.face.program import serve
from sigmic_guard.supervisor.face.supervisor import Supervisor
from sigmic_guard.supervisor.face.task import RemoteTask
from sigmic_guard.supervisor.ground.results import (
    Cancellation,
    OrphanRow,
    ReapReport,
    ShutdownReport,
    Snapshot,
    TaskResult,
    TaskRow,
)
from sigmic_guard.supervisor.work.events import TaskEvents
from sigmic_guard.supervisor.work.transcript import TaskEvent

__all__ = [
    "Cancellation",
    "OrphanRow",
    "ReapReport",
    "RemoteTask",
    "RemoteTaskGroup",
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
    "serve",
]
