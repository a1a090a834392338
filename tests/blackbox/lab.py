"""A supervisor against the other server, with books that have to agree at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from sigmic_guard import RemoteTask, Supervisor
from tests.blackbox.server import Server
from tests.blackbox.world import World

#: Seconds that a loaded machine may take on top of what a server or a budget does. What a wait must
#: not take (a time-out, a ``Retry-After``) is longer than that.
SLACK = 5.0

KEY = "sigmic_" + "5e" * 32


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The sum of the samples of this name that carry these labels."""
    name = f"sigmic_guard_{name}"
    return sum(
        found.value
        for metric in registry.collect()
        for found in metric.samples
        if found.name == name and labels.items() <= found.labels.items()
    )


def books(registry: CollectorRegistry) -> dict[str, int]:
    return {
        "completed": int(sample(registry, "tasks_finished_total", outcome="completed")),
        "failed": int(sample(registry, "tasks_finished_total", outcome="failed")),
        "cancelled": int(
            sample(registry, "tasks_finished_total", outcome="cancelled")
            + sample(registry, "tasks_finished_total", outcome="timed_out")
        ),
    }


def truth(world: World) -> dict[str, int]:
    return {name: world.counts[name] for name in ("completed", "failed", "cancelled")}


@asynccontextmanager
async def supervised(
    server: Server, *, exact: bool = True, grace: float = 4.0, **options: Any
) -> AsyncIterator[Supervisor]:
    """Nothing lives after the block, it ends in time, and both sides count the same."""
    registry = options.pop("registry", None) or CollectorRegistry()
    left = 0.0
    try:
        async with Supervisor(
            api_key=KEY, base_url=server.url, registry=registry, grace=grace, **options
        ) as supervisor:
            try:
                yield supervisor
            finally:
                left = time.monotonic()
    finally:
        assert time.monotonic() - left < grace + 1 + SLACK
    assert server.world.live == []
    started = sample(registry, "tasks_started_total")
    assert started == len(server.world.tasks) or (not exact and started > len(server.world.tasks))
    assert sample(registry, "tasks_finished_total") == started
    assert sample(registry, "tasks_live") == 0
    if exact:
        assert books(registry) == truth(server.world)


async def texts(task: RemoteTask) -> str:
    """What a consumer prints who leaves out what is replayed."""
    return "".join([event.text async for event in task.events() if not event.replayed])


#: Seconds that anything takes at most on a busy machine, and less than the 30 between two rounds
#: of a reaper.
SOON = 20.0


async def until(condition: Any, *, within: float = SOON) -> None:
    """Give the loop its turns until it is so; the server is in this process."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.001)
