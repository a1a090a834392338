"""A task of a :class:`~sigmic_guard.testing.FakeSigmic` as GET and the list show it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sigmic_guard.errors import TaskNotFound, ValidationError
from sigmic_guard.sigmic.models import PendingApproval, TaskInfo, TaskOutput, TaskPage

if TYPE_CHECKING:
    from sigmic_guard.testing.fake_task import FakeTask
    from sigmic_guard.testing.fake_world import FakeWorld


class Shapes:
    """Tells of tasks in the API's words. The world's clock is anyio's, the API's is the wall's."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    def time(self, at: float | None) -> str | None:
        """Return an instant as the API writes it."""
        if at is None:
            return None
        if self._world.epoch is None:
            self._world.settle()
        assert self._world.epoch is not None
        moment = self._world.epoch + timedelta(seconds=at)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def row(self, task: FakeTask) -> TaskInfo:
        """Return a task as the list shows it."""
        return TaskInfo(
            **self._common(task),
            last_activity_at=self.time(task.activity_at),
            message_count=len(task.messages),
        )

    def detail(self, task: FakeTask) -> TaskInfo:
        """Return a task as GET shows it."""
        approvals = None
        if task.asked is not None:
            asked = task.asked
            approvals = (PendingApproval(asked["callId"], asked["toolName"], asked["args"]),)
        output = TaskOutput(task.content, self.time(task.activity_at))
        return TaskInfo(**self._common(task), output=output, pending_approvals=approvals)

    def page(self, limit: int, offset: int) -> TaskPage:
        """Return one page of the list, most recent activity first.

        :raises ValidationError: the API knows no such page.
        """
        if not 1 <= limit <= 100 or offset < 0:
            raise invalid("limit must be from 1 to 100, and offset at least 0")
        total = len(self._world.by_activity)
        recent = itertools.islice(
            reversed(self._world.by_activity.values()), offset, offset + limit
        )
        rows = [self.row(task) for task in recent]
        return TaskPage(rows, total, offset + len(rows) < total)

    def _common(self, task: FakeTask) -> dict[str, Any]:
        return {
            "id": task.id,
            "status": task.status,
            "message": task.message,
            "system_prompt": task.request.system_prompt,
            "username": "fake",
            "session_id": f"session-{task.id}",
            "conversation_id": f"conversation-{task.id}",
            "env": dict(task.env),
            "error": task.error,
            "created_at": self.time(task.created_at),
            "started_at": self.time(task.created_at),
            "completed_at": self.time(task.completed_at),
        }


def invalid(message: str) -> ValidationError:
    """Return what the API says to a request that cannot be right."""
    return ValidationError(message, code="VALIDATION_ERROR", status=400)


def not_found(what: str) -> TaskNotFound:
    """Return what the API says of something it does not know."""
    return TaskNotFound(f"{what} not found", code="NOT_FOUND", status=404)
