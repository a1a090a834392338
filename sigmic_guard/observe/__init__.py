"""What operators see: metrics and logs, both told by the supervisor through one protocol."""

from sigmic_guard.lifecycle import CancelResult, ReapResult
from sigmic_guard.observe.context import enter_task, leave_task
from sigmic_guard.observe.fanout import Observers
from sigmic_guard.observe.logs import Logs
from sigmic_guard.observe.metrics import Metrics
from sigmic_guard.observe.observer import Observer

__all__ = [
    "CancelResult",
    "Logs",
    "Metrics",
    "Observer",
    "Observers",
    "ReapResult",
    "enter_task",
    "leave_task",
]
