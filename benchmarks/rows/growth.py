"""How the cost of each kind of work grows with the number of tasks: a line each, log-log.

A slope of 1 is linear. ``n log n`` makes about 1.1 at these sizes, and anything quadratic shows at
a glance. CPU seconds in all, against a remote system in memory.
"""

from __future__ import annotations

from functools import partial
from time import process_time
from typing import TYPE_CHECKING, Final

from benchmarks.core.instant import InstantApi
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import Clock, start_all
from benchmarks.rows import deadlines, ledger, scope_cancel, tracking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.core.model import Contestant
    from benchmarks.core.site import Site

#: The exponent that is allowed: linear, with a logarithm and some noise.
MOST: Final = 1.2


async def start(site: Site) -> Mapping[str, float]:
    api = InstantApi()
    async with tracking.supervised(api, site) as supervisor:
        with Clock() as clock:
            await start_all(supervisor, site["n"])
    api.check()
    return {"seconds": clock.cpu}


async def drain(site: Site) -> Mapping[str, float]:
    api = InstantApi()
    async with tracking.supervised(api, site) as supervisor:
        await start_all(supervisor, site["n"])
        with Clock() as clock:
            await supervisor.shutdown()
    api.check()
    return {"seconds": clock.cpu}


async def snapshot(site: Site) -> Mapping[str, float]:
    api, times = InstantApi(), 5
    async with tracking.supervised(api, site) as supervisor:
        await start_all(supervisor, site["n"])
        began = process_time()
        for _ in range(times):
            rows = supervisor.snapshot()
            assert sum(row.id is not None for row in rows) == site["n"]
        seconds = (process_time() - began) / times
    return {"seconds": seconds}


async def total(
    work: Callable[[Site], Awaitable[Mapping[str, float]]], site: Site
) -> Mapping[str, float]:
    """Make the seconds of all tasks of what another row measures for each."""
    return {"seconds": (await work(site))["cpu"] * site["n"] / 1e6}


WORKS: Final[dict[str, Contestant]] = {
    "start": start,
    "drain": drain,
    "snapshot": snapshot,
    "blocks cancelled, anyio": partial(total, scope_cancel.ROW.contestants[OURS]),
    "blocks cancelled, TaskGroup": partial(
        total, scope_cancel.ROW.contestants[scope_cancel.OURS_IN_ASYNCIO]
    ),
    "deadlines at one instant": partial(deadlines.ours, timed=True),
    "rows in SQLite": partial(total, ledger.ours),
}


def cases(quick: bool) -> list[Case]:
    sizes = (500, 2_000, 8_000) if quick else (1_000, 3_000, 10_000, 30_000, 100_000)
    return [
        Case(
            label=f"{n:,}",
            numbers={"n": n, "callers": 256, "within": 0, "allowed": 4},
            contestants=tuple(WORKS) if n < 100_000 else ("start", "drain", "snapshot"),
            rounds=1 if quick else 3,
            seconds=400,
        )
        for n in sizes
    ]


ROW = Row(
    name="growth",
    title="CPU seconds by the number of tasks",
    headline="seconds",
    contestants=WORKS,
    cases=cases,
    goals=tuple(
        Goal(
            text=f"exponent of {who}",
            case="all sizes",
            who=who,
            measure="seconds",
            grows_with="n",
            at_most=MOST,
        )
        for who in WORKS
    ),
    plots=(Plot(measure="seconds", title="CPU seconds by the number of tasks", over="n"),),
)
