"""A task group of many scoped blocks is cancelled at once: how long until the group has ended.

Each block is to end its task before it is left. The others do so in the idioms for it: a shield in
``finally`` (anyio), ``finally`` alone (asyncio's TaskGroup, which cancels once; aiojobs). The
remote system answers at once, so that nothing but the waiting is measured.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from benchmarks.core.instant import InstantApi
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
    from typing import Any

    from benchmarks.core.site import Site

    #: Enters a block, says so, and stays until it is cancelled.
    Block = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]

OURS_IN_ASYNCIO: Final = "sigmic_guard, TaskGroup"
#: Seconds; no block gives up before its DELETE is acknowledged, for then it would only seem fast.
PATIENCE: Final = 600.0
SHIELD, FINALLY, AIOJOBS = "anyio, shield", "TaskGroup, finally", "aiojobs"


class Entered:
    """Counts who is in."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.all = asyncio.Event()

    def one(self) -> None:
        self._left -= 1
        if not self._left:
            self.all.set()


async def in_anyio(number: int, block: Block) -> Clock:
    entered = Entered(number)
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(block, entered.one)
        await entered.all.wait()
        clock = Clock()
        clock.__enter__()
        group.cancel_scope.cancel()
    clock.__exit__()
    return clock


async def in_asyncio(number: int, block: Block) -> Clock:
    entered = Entered(number)

    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(block(entered.one))

    task = asyncio.create_task(parent())
    await entered.all.wait()
    with Clock() as clock:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return clock


async def in_aiojobs(number: int, block: Block) -> Clock:
    import aiojobs

    entered = Entered(number)
    scheduler = aiojobs.Scheduler(limit=None, close_timeout=60)
    for _ in range(number):
        await scheduler.spawn(block(entered.one))
    await entered.all.wait()
    with Clock() as clock:
        await scheduler.close()
    return clock


@asynccontextmanager
async def supervised(api: InstantApi) -> AsyncIterator[Block]:
    from prometheus_client import CollectorRegistry

    from sigmic_guard import Supervisor, TaskPolicy

    async with Supervisor(
        client=api,
        ledger="memory:",
        registry=CollectorRegistry(),
        policy=TaskPolicy(cancel_wait=PATIENCE),
        create_timeout=PATIENCE,
        grace=PATIENCE,
    ) as supervisor:

        async def block(entered: Callable[[], None]) -> None:
            async with supervisor.task("scoped"):
                entered()
                await anyio.sleep_forever()

        yield block


@asynccontextmanager
async def by_hand(shield: bool, api: InstantApi) -> AsyncIterator[Block]:
    async def block(entered: Callable[[], None]) -> None:
        name = await api.create(None, timeout=30)
        try:
            entered()
            await anyio.sleep_forever()
        finally:
            if shield:
                with anyio.CancelScope(shield=True):
                    await api.delete(name, timeout=30)
            else:
                await api.delete(name, timeout=30)

    yield block


async def measure(
    way: Any, group: Callable[[int, Block], Awaitable[Clock]], site: Site
) -> Mapping[str, float]:
    api = InstantApi()
    async with way(api) as block:
        clock = await group(site["n"], block)
        api.check()
    return {"seconds": clock.seconds, "cpu": clock.cpu / site["n"] * 1e6}


def cases(quick: bool) -> list[Case]:
    everybody = (OURS, SHIELD, OURS_IN_ASYNCIO, FINALLY, AIOJOBS)
    sizes = (1_000, 4_000) if quick else (1_000, 8_000, 10_000, 30_000)
    return [
        Case(label=f"{n:,}", numbers={"n": n}, contestants=everybody, seconds=400) for n in sizes
    ]


ROW = Row(
    name="scope_cancel",
    title="many scoped blocks, cancelled at once",
    headline="seconds",
    contestants={
        OURS: partial(measure, supervised, in_anyio),
        SHIELD: partial(measure, partial(by_hand, True), in_anyio),
        OURS_IN_ASYNCIO: partial(measure, supervised, in_asyncio),
        FINALLY: partial(measure, partial(by_hand, False), in_asyncio),
        AIOJOBS: partial(measure, partial(by_hand, False), in_aiojobs),
    },
    cases=cases,
    goals=(
        *(
            Goal(text=text, case=case, who=who, measure="seconds", over=over, at_most=1.0)
            for case in ("1,000", "4,000", "8,000", "30,000")
            for text, who, over in (
                ("in an anyio group, against the shielded idiom", OURS, SHIELD),
                ("in asyncio's TaskGroup, against try and finally", OURS_IN_ASYNCIO, FINALLY),
            )
        ),
        *(
            Goal(
                text="30,000 take no more than three and a half times as long as 10,000",
                case="30,000",
                who=who,
                measure="seconds",
                over_case="10,000",
                at_most=3.5,
            )
            for who in (OURS, OURS_IN_ASYNCIO)
        ),
    ),
    plots=(Plot(measure="seconds", title="Cancelling so many scoped blocks, seconds", over="n"),),
)
