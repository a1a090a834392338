"""SIGTERM, and so many tasks are to end: how long until the last DELETE is acknowledged.

The supervisor has a ledger in SQLite (synchronous=FULL), metrics, and logs that go to a file. The
others know the ids and nothing else. The tasks run on the server; the signal is a real one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.core import peers
from benchmarks.core.books import task_id
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import KEY, Clock, Unsound, callers, start_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.core.site import Site


def terminate() -> float:
    """Send SIGTERM to this process, and return the time."""
    now = perf_counter()
    os.kill(os.getpid(), signal.SIGTERM)
    return now


def told(site: Site, began: float, clock: Clock) -> Mapping[str, float]:
    """Return the figures of a drain that is over."""
    seconds = site.books().last_delete - began
    return {
        "rate": site["n"] / seconds,
        "seconds": seconds,
        "all": clock.seconds,
        "cpu": clock.cpu / site["n"] * 1e6,
    }


async def on_sigterm(site: Site, drain: Callable[[], Awaitable[object]]) -> Mapping[str, float]:
    """Drain when the signal comes, as a service does that handles it by hand."""
    signalled = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signalled.set)
    with Clock() as clock:
        began = terminate()
        await signalled.wait()
        await drain()
    return told(site, began, clock)


def urls(site: Site) -> list[str]:
    """Have so many tasks run on the server, and return where they are."""
    site.script(seed=site["n"])
    return [f"{site.tasks}/{task_id(number)}" for number in range(site["n"])]


async def naive(site: Site) -> Mapping[str, float]:
    """All at once, on a session as it comes."""
    tasks = urls(site)
    async with peers.aiohttp_session() as session:

        async def drain() -> None:
            await asyncio.gather(*(peers.delete_by_hand(session, url) for url in tasks))

        return await on_sigterm(site, drain)


async def tuned(site: Site) -> Mapping[str, float]:
    """64 at once, with as many connections."""
    async with peers.aiohttp_session(peers.AT_ONCE) as session:
        work = [partial(peers.delete_tuned, session, url) for url in urls(site)]
        return await on_sigterm(site, partial(callers, peers.AT_ONCE, work))


async def httpx(site: Site) -> Mapping[str, float]:
    """64 at once, with httpx."""
    async with peers.httpx_client(peers.AT_ONCE) as client:
        work = [partial(client.delete, url) for url in urls(site)]
        return await on_sigterm(site, partial(callers, peers.AT_ONCE, work))


async def ours(site: Site) -> Mapping[str, float]:
    """The supervisor, as one would deploy it."""
    from prometheus_client import CollectorRegistry

    from sigmic_guard import Supervisor

    logging.basicConfig(filename=Path(site.folder) / "log", level=logging.INFO)
    began = 0.0
    clock = Clock()
    try:
        async with Supervisor(
            api_key=KEY,
            base_url=site.base,
            ledger=site.sqlite,
            registry=CollectorRegistry(),
            grace=300,
            signals=True,
        ) as supervisor:
            await start_all(supervisor, site["n"])
            clock.__enter__()
            began = terminate()
            await asyncio.sleep(3600)
    except SystemExit as ended:
        clock.__exit__()
        if ended.code != 128 + signal.SIGTERM:
            raise Unsound(f"it ended with {ended.code}") from None
    return told(site, began, clock)


def cases(quick: bool) -> list[Case]:
    if quick:
        return [_case(2_000, (OURS, "naive", "tuned"))]
    return [
        _case(1_000, (OURS, "naive", "tuned", "httpx")),
        _case(10_000, (OURS, "naive", "tuned")),
        _case(50_000, (OURS, "naive", "tuned")),
    ]


def _case(number: int, who: tuple[str, ...]) -> Case:
    return Case(label=f"{number:,}", numbers={"n": number}, contestants=who)


ROW = Row(
    name="drain",
    title="from SIGTERM to the last acknowledged DELETE",
    headline="seconds",
    contestants={OURS: ours, "naive": naive, "tuned": tuned, "httpx": httpx},
    cases=cases,
    goals=(
        *(
            Goal(text=f"against {who} aiohttp", case=case, measure="rate", over=who, at_least=least)
            for case in ("2,000", "10,000", "50,000")
            for who, least in (("naive", 1.5), ("tuned", 0.9))
        ),
        Goal(
            text="50,000 take no more than five and a half times as long as 10,000",
            case="50,000",
            measure="seconds",
            over_case="10,000",
            at_most=5.5,
        ),
    ),
    plots=(
        Plot(measure="rate", title="DELETEs a second at SIGTERM"),
        Plot(measure="seconds", title="From SIGTERM to the last DELETE, in seconds", over="n"),
    ),
    requests=1,
    all_end=True,
)
