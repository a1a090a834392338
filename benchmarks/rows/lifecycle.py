"""Create a task and cancel it, over HTTP and TLS, by 1, 64 and 256 callers.

*naive* gathers all lifecycles at once on a session as it comes, and *by hand* is a session with a
connection for each caller.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from benchmarks.core import peers
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import HEADERS, KEY, Clock, callers
from benchmarks.core.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.core.site import Site

SQLITE: Final = "sigmic_guard, SQLite"
OVER_AIOHTTP: Final = "sigmic_guard, over aiohttp"
#: The cases that the pictures have room for.
SHOWN: Final = ("64 callers", "256 callers", "256 callers, TLS")
#: Lifecycles before those that count.
WARM: Final = 200


async def measure(
    site: Site, one: Callable[[], Awaitable[object]], *, gathered: bool = False
) -> Mapping[str, float]:
    """Do it as often as the case says, by as many callers."""
    number, at_once = site["n"], site["callers"]
    taken: list[float] = []

    async def timed() -> None:
        began = perf_counter()
        await one()
        taken.append(perf_counter() - began)

    await callers(at_once, (one for _ in range(WARM)))
    with Clock() as clock:
        if gathered:
            await asyncio.gather(*(timed() for _ in range(number)))
        else:
            await callers(at_once, (timed for _ in range(number)))
    p50, p99 = (percentile(taken, share) * 1000 for share in (0.5, 0.99))
    return {**clock.per(number), "p50": p50, "p99": p99}


async def naive(site: Site) -> Mapping[str, float]:
    async with peers.aiohttp_session() as session:
        return await measure(site, peers.lifecycle_by_hand(session, site), gathered=True)


async def by_hand(site: Site) -> Mapping[str, float]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=site["callers"])
    async with aiohttp.ClientSession(headers=HEADERS, connector=connector) as session:
        return await measure(site, peers.lifecycle_by_hand(session, site))


async def tuned(site: Site) -> Mapping[str, float]:
    async with peers.aiohttp_session(site["callers"]) as session:
        return await measure(site, peers.lifecycle_tuned(session, site))


async def httpx(site: Site) -> Mapping[str, float]:
    async with peers.httpx_client(site["callers"]) as client:
        return await measure(site, peers.lifecycle_httpx(client, site))


async def ours(site: Site, *, sqlite: bool = False, **options: Any) -> Mapping[str, float]:
    from prometheus_client import CollectorRegistry

    from sigmic_guard import Supervisor

    async with Supervisor(
        api_key=KEY,
        base_url=site.base,
        ledger=site.sqlite if sqlite else "memory:",
        registry=CollectorRegistry(),
        **options,
    ) as supervisor:

        async def one() -> None:
            async with supervisor.task("bench", timeout=60):
                pass

        return await measure(site, one)


def cases(quick: bool) -> list[Case]:
    """Return all sizes; quick: without TLS, 256 callers."""
    everybody = (OURS, SQLITE, OVER_AIOHTTP, "naive", "by hand", "tuned")
    if quick:
        return [_case(256, 2_000, everybody, tls=False)]
    return [
        _case(count, number, (*everybody, "httpx") if count == 64 else everybody, tls=tls)
        for tls in (False, True)
        for count, number in ((1, 1_500), (64, 6_000), (256, 8_000))
    ]


def _case(count: int, number: int, who: tuple[str, ...], *, tls: bool) -> Case:
    return Case(
        label=f"{count} callers{', TLS' if tls else ''}".replace("1 callers", "1 caller"),
        numbers={"n": number, "callers": count, "tls": tls},
        contestants=who,
    )


ROW = Row(
    name="lifecycle",
    title="create a task and cancel it",
    headline="rate",
    contestants={
        OURS: ours,
        SQLITE: partial(ours, sqlite=True),
        OVER_AIOHTTP: partial(ours, transport="aiohttp"),
        "naive": naive,
        "by hand": by_hand,
        "tuned": tuned,
        "httpx": httpx,
    },
    cases=cases,
    goals=(
        *(
            Goal(
                text=f"{text}, against hand-written aiohttp",
                case=case,
                who=who,
                measure="rate",
                over="by hand",
                at_least=least,
            )
            for case in ("64 callers", "256 callers", "64 callers, TLS", "256 callers, TLS")
            for text, who, least in (
                ("in memory", OURS, 1.2),
                ("with SQLite at FULL", SQLITE, 1.0),
            )
        ),
        Goal(
            text="p99 against the naive loop's",
            case="256 callers",
            measure="p99",
            over="naive",
            at_most=0.15,
        ),
    ),
    plots=(
        Plot(measure="rate", title="Tasks created and cancelled a second", cases=SHOWN),
        Plot(measure="p99", title="Create and cancel, p99 in ms", cases=SHOWN),
    ),
    requests=2,  # POST and DELETE
    all_end=True,
)
