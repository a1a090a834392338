"""Many idle background tasks: what each keeps, and how long the event loop is ever blocked.

Memory is what the interpreter has allocated, the remote system's own share taken off. Blocks are
measured in the CPU time of the loop's thread, with the collector on, as it comes by itself, from
the first start to the end of the drain. A peer is what would track a task by hand: an asyncio task
that waits, and ends it in ``finally``; or a job of aiojobs.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from contextlib import asynccontextmanager
from time import thread_time
from typing import TYPE_CHECKING, Final, Self

from benchmarks.core.instant import InstantApi
from benchmarks.core.lag import LoopLag
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import Clock, Unsound, start_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Any

    from benchmarks.core.site import Site
    from sigmic_guard import Supervisor

AT_WORK: Final = "sigmic_guard, at work"
#: Tasks before those that count: workers, caches.
WARM: Final = 1000


class Collections:
    """How long the collector took, at the longest, in ms; in the thread's CPU time."""

    def __init__(self) -> None:
        self.worst = self._began = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._told)
        return self

    def __exit__(self, *error: object) -> None:
        gc.callbacks.remove(self._told)

    def _told(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = thread_time()
        else:
            self.worst = max(self.worst, (thread_time() - self._began) * 1000)


@asynccontextmanager
async def supervised(api: InstantApi, site: Site) -> AsyncIterator[Supervisor]:
    from prometheus_client import CollectorRegistry

    from sigmic_guard import Supervisor

    async with Supervisor(
        client=api, ledger=site.sqlite, registry=CollectorRegistry(), grace=300
    ) as supervisor:
        yield supervisor


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def memory(site: Site) -> Mapping[str, float]:
    api = InstantApi()
    number = site["n"]
    async with supervised(api, site) as supervisor:
        await start_all(supervisor, WARM)
        tracemalloc.start()
        before, known = traced(), sys.getsizeof(api.live)
        await start_all(supervisor, number)
        kept = traced() - before
        tracemalloc.stop()
        kept -= sys.getsizeof(api.live) - known + sum(map(sys.getsizeof, list(api.live)[:number]))
    api.check()
    return {"bytes": kept / number}


async def at_work(site: Site) -> Mapping[str, float]:
    api = InstantApi()
    number = site["n"]
    with Collections() as collections:
        async with supervised(api, site) as supervisor, LoopLag() as lag:
            with Clock() as starting:
                await start_all(supervisor, number)
            began = thread_time()
            snapshot = supervisor.snapshot()
            snapped = (thread_time() - began) * 1000
            if len(snapshot) != number:
                raise Unsound("the snapshot does not show every task")
            report = await supervisor.shutdown()
    if not report.clean:
        raise Unsound("the shutdown left tasks")
    api.check()
    return {
        "cpu": starting.cpu / number * 1e6,
        "drain": report.seconds,
        "snapshot": snapped,
        "block": lag.worst,
        "collector": collections.worst,
    }


async def waiting(api: InstantApi) -> None:
    name = await api.create(None, timeout=30)
    try:
        await asyncio.Event().wait()
    finally:
        await api.delete(name, timeout=30)


async def asyncio_tasks(site: Site) -> Mapping[str, float]:
    api = InstantApi()
    tracemalloc.start()
    before = traced()
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(waiting(api)) for _ in range(site["n"])]
    while len(api.live) < len(tasks):
        await asyncio.sleep(0)
    return await _measured(api, before, tasks)


async def aiojobs(site: Site) -> Mapping[str, float]:
    import aiojobs

    api = InstantApi()
    scheduler = aiojobs.Scheduler(limit=None)
    tracemalloc.start()
    before = traced()
    jobs = [await scheduler.spawn(waiting(api)) for _ in range(site["n"])]
    while len(api.live) < len(jobs):
        await asyncio.sleep(0)
    result = await _measured(api, before, [])
    await scheduler.close()
    return result


async def _measured(api: InstantApi, before: int, tasks: list[Any]) -> Mapping[str, float]:
    kept = traced() - before - sys.getsizeof(api.live) - sum(map(sys.getsizeof, api.live))
    tracemalloc.stop()
    number = len(api.live)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"bytes": kept / number}


def cases(quick: bool) -> list[Case]:
    sizes = (5_000,) if quick else (1_000, 10_000, 100_000, 200_000)
    idle = [_case(n, (OURS, "asyncio tasks", "aiojobs"), rounds=1) for n in sizes]
    return idle + [_case(n, (AT_WORK,)) for n in ((20_000,) if quick else (10_000, 100_000))]


def _case(number: int, who: tuple[str, ...], rounds: int | None = None) -> Case:
    label = f"{number:,} idle" if rounds else f"{number:,}"
    return Case(label=label, numbers={"n": number}, contestants=who, rounds=rounds, seconds=400)


ROW = Row(
    name="tracking",
    title="idle background tasks",
    headline="bytes",
    contestants={
        OURS: memory,
        AT_WORK: at_work,
        "asyncio tasks": asyncio_tasks,
        "aiojobs": aiojobs,
    },
    cases=cases,
    goals=(
        *(
            Goal(text="memory of a task", case=case, measure="bytes", at_most=1200)
            for case in ("5,000 idle", "10,000 idle", "100,000 idle", "200,000 idle")
        ),
        *(
            Goal(text=text, case=case, who=AT_WORK, measure=measure, at_most=5.0)
            for case in ("20,000", "100,000")
            for text, measure in (
                ("snapshot()", "snapshot"),
                ("the longest block from start to drain", "block"),
                ("the longest collection", "collector"),
            )
        ),
    ),
    plots=(
        Plot(measure="bytes", title="Bytes of an idle task", over="n"),
        Plot(measure="collector", title="The longest collection, in ms"),
    ),
)
