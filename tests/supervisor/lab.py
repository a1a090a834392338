"""``Lab``: a supervisor over a ``FakeSigmic``, and the books that have to balance afterwards."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from sigmic_guard import RemoteTask, Supervisor
from sigmic_guard.errors import AuthenticationError, PermissionDenied, RateLimited, ServerError
from sigmic_guard.testing import FakeSigmic
from sigmic_guard.testing.fake_world import OWNER
from tests.observe.sums import add_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UNAUTHORISED = AuthenticationError("the key is gone", code="INVALID_API_KEY", status=401)
FORBIDDEN = PermissionDenied("not yours", code="FORBIDDEN", status=403)
UNAVAILABLE = ServerError("come back later", code="HTTP_503", status=503)


def too_many(retry_after: float | None = None) -> RateLimited:
    return RateLimited("too many", code="RATE_LIMITED", status=429, retry_after=retry_after)


class Lab:
    """A remote system, a registry, and supervisors over them.

    :param options: what ``FakeSigmic`` takes.
    """

    def __init__(self, **options: Any) -> None:
        self.fake = FakeSigmic(**options)
        self.registry = CollectorRegistry()

    def make(self, **options: Any) -> Supervisor:
        """Return a supervisor that was not entered."""
        defaults = {"client": self.fake, "ledger": "memory:", "registry": self.registry}
        return Supervisor(**{**defaults, **options})

    @asynccontextmanager
    async def open(self, *, left: int = 0, **options: Any) -> AsyncIterator[Supervisor]:
        """Enter a supervisor; afterwards ``left`` remote tasks may live, and the sums agree."""
        try:
            async with self.make(**options) as supervisor:
                yield supervisor
        finally:
            add_up(self.registry)
        assert len(self.fake.live) == left, self.fake.live

    def deletes(self, task: RemoteTask | str | None = None) -> int:
        """How many DELETEs arrived, of one task or of all."""
        return self.fake.count("delete", task.id if isinstance(task, RemoteTask) else task)

    @property
    def finished(self) -> dict[tuple[str, str], int]:
        """``tasks_finished_total`` by outcome and reason, zeros left out."""
        return {
            (labels["outcome"], labels["reason"]): count
            for labels, count in self._samples("tasks_finished_total")
        }

    @property
    def cancellations(self) -> dict[str, int]:
        """``cancellations_total`` by result, zeros left out."""
        return {labels["result"]: count for labels, count in self._samples("cancellations_total")}

    @property
    def live(self) -> dict[str, int]:
        """``tasks_live`` by state, zeros left out."""
        return {labels["state"]: count for labels, count in self._samples("tasks_live")}

    @property
    def attempts(self) -> dict[str, int]:
        """``cancel_attempts_total`` by status, zeros left out."""
        return {labels["status"]: count for labels, count in self._samples("cancel_attempts_total")}

    def hide(self, task_id: str) -> None:
        """Let no list show a task any more, until it is active again."""
        del self.fake._world.model._activity[OWNER][task_id]

    def _samples(self, name: str) -> list[tuple[dict[str, str], int]]:
        name = f"sigmic_guard_{name}"
        return [
            (sample.labels, int(sample.value))
            for metric in self.registry.restricted_registry([name]).collect()
            for sample in metric.samples
            if sample.name == name and sample.value
        ]
