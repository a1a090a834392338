"""A remote system in memory that answers at once: what is measured on it is ours alone."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from benchmarks.core.site import Unsound
from sigmic_guard.sigmic import TaskInfo, TaskPage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sigmic_guard.sigmic import ApprovalOutcome, CreateRequest, EventStream


class InstantApi:
    """Implements ``TaskApi``; tasks run until they are deleted."""

    base_url = "http://instant.test"
    credential_fingerprint = "instant"

    def __init__(self) -> None:
        self.live: set[str] = set()
        self.twice = 0
        self._number = count()

    def check(self) -> None:
        """Check that every task was deleted, and none twice.

        :raises Unsound: it was not so.
        """
        if self.live:
            raise Unsound(f"{len(self.live)} tasks still run: nobody sent a DELETE for them")
        if self.twice:
            raise Unsound(f"{self.twice} DELETEs of tasks that had been deleted")

    async def create(self, request: CreateRequest | None, *, timeout: float) -> str:
        """Create a task; its id is as long as a real one."""
        await checkpoint()
        task_id = f"{next(self._number):036d}"
        self.live.add(task_id)
        return task_id

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        """Tell whether it runs."""
        await checkpoint()
        return TaskInfo(id=task_id, status="running" if task_id in self.live else "cancelled")

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        """Show nothing: nothing changes by itself."""
        await checkpoint()
        return TaskPage(tasks=[], total=len(self.live), has_more=False)

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        """End a task."""
        await checkpoint()
        if task_id in self.live:
            self.live.remove(task_id)
        else:
            self.twice += 1
        return True

    async def send(
        self, task_id: str, message: str, *, files: Sequence[Path] = (), timeout: float
    ) -> str:
        """Take a message."""
        await checkpoint()
        return "running"

    async def approve(
        self, task_id: str, call_id: str, outcome: ApprovalOutcome, *, timeout: float
    ) -> bool:
        """Approve."""
        await checkpoint()
        return True

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> EventStream:
        """Have none."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Do nothing."""
