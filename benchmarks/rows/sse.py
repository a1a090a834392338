"""Event streams over a socket, decoded and typed; answers of 50 MB; idle and stalled streams.

The peers are httpx-sse with ``json.loads``, and lines read with aiohttp by hand.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from benchmarks.core import peers, readers
from benchmarks.core.books import task_id
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import KEY, Unsound
from benchmarks.rows.tracking import traced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.core.site import Site

HTTPX, AIOHTTP = "httpx-sse", "aiohttp by hand"
IDLE, IDLE_AIOHTTP = "sigmic_guard, idle", "aiohttp, idle"


async def read_all(texts: Any, site: Site) -> Mapping[str, float]:
    """Read the whole answer, and tell how fast that went."""
    size = 0
    async with texts(site) as stream:
        began, cpu = perf_counter(), process_time()
        async for text in stream:
            size += len(text)
        seconds, cpu = perf_counter() - began, process_time() - cpu
    events = site["events"]
    if size != events * site["size"]:
        raise Unsound(f"{size} bytes of text came, not {events * site['size']}")
    return {
        "rate": events / seconds,
        "megabytes": size / seconds / 1e6,
        "seconds": seconds,
        "cpu": cpu / events * 1e6,
    }


async def stall(texts: Any, site: Site) -> Mapping[str, float]:
    """Read a little, and then nothing, and tell what is held then."""
    async with texts(site) as stream:
        tracemalloc.start()
        async for text in stream:
            if text:
                break
        await asyncio.sleep(1.0)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return {"peak": held / 1e6}


async def contend(texts: Any, site: Site) -> Mapping[str, float]:
    return await (stall if site.numbers.get("stall") else read_all)(texts, site)


async def idle(site: Site) -> Mapping[str, float]:
    """Open so many streams that say nothing, and tell what each keeps."""
    from sigmic_guard.sigmic import SigmicClient

    number = site["n"]
    site.script(seed=number + 1)
    async with SigmicClient(KEY, site.base) as client:

        async def opened(index: int) -> Any:
            stream = await client.stream(task_id(index), timeout=60, silence=600)
            await stream.receive()
            return stream

        first = await opened(number)
        tracemalloc.start()
        before = traced()
        streams = [await opened(index) for index in range(number)]
        reading = [asyncio.create_task(stream.receive()) for stream in streams]
        await asyncio.sleep(0.2)
        kept = traced() - before
        tracemalloc.stop()
        for stream in [first, *streams]:
            stream.close()
        await asyncio.gather(*reading, return_exceptions=True)
    return {"bytes": kept / number}


async def idle_aiohttp(site: Site) -> Mapping[str, float]:
    number = site["n"]
    site.script(seed=number + 1)
    async with peers.aiohttp_session(number + 1) as session, AsyncExitStack() as stack:

        async def opened(index: int) -> Any:
            answer = await stack.enter_async_context(session.get(readers.url(site, index)))
            await answer.content.readany()
            return answer

        await opened(number)
        tracemalloc.start()
        before = traced()
        answers = [await opened(index) for index in range(number)]
        reading = [asyncio.create_task(answer.content.readany()) for answer in answers]
        await asyncio.sleep(0.2)
        kept = traced() - before
        tracemalloc.stop()
        for task in reading:
            task.cancel()
    return {"bytes": kept / number}


def cases(quick: bool) -> list[Case]:
    peers_too, streams = (OURS, HTTPX, AIOHTTP), 100 if quick else 500
    rest = [
        _case("stalled", {"events": 1_000, "size": 50_000, "stall": 1}, (OURS, AIOHTTP)),
        _case("idle streams", {"n": streams}, (IDLE, IDLE_AIOHTTP)),
    ]
    if quick:
        return [_case("realistic", {"events": 10_000, "size": 40}, peers_too), *rest]
    return [
        _case("realistic", {"events": 100_000, "size": 40}, peers_too),
        _case("10 MB in small pieces", {"events": 200_000, "size": 50}, peers_too),
        _case("50 MB in small pieces", {"events": 1_000_000, "size": 50}, (OURS, AIOHTTP)),
        _case("10 MB in large pieces", {"events": 40, "size": 250_000}, peers_too),
        _case("50 MB in large pieces", {"events": 200, "size": 250_000}, (OURS, AIOHTTP)),
        *rest,
    ]


def _case(label: str, numbers: dict[str, float], who: tuple[str, ...]) -> Case:
    return Case(label=label, numbers=numbers, contestants=who, seconds=300)


ROW = Row(
    name="sse",
    title="event streams, decoded and typed",
    headline="rate",
    contestants={
        OURS: partial(contend, readers.our_texts),
        HTTPX: partial(contend, readers.httpx_texts),
        AIOHTTP: partial(contend, readers.aiohttp_texts),
        IDLE: idle,
        IDLE_AIOHTTP: idle_aiohttp,
    },
    cases=cases,
    goals=(
        *(
            Goal(text="against httpx-sse", case=case, measure="rate", over=HTTPX, at_least=4.0)
            for case in ("realistic", "10 MB in small pieces", "10 MB in large pieces")
        ),
        *(
            Goal(
                text="50 MB take no more than five and a half times as long as 10 MB",
                case=f"50 MB in {size} pieces",
                measure="seconds",
                over_case=f"10 MB in {size} pieces",
                at_most=5.5,
            )
            for size in ("small", "large")
        ),
        Goal(text="held while stalled", case="stalled", measure="peak", at_most=4.0),
        Goal(
            text="memory against bare aiohttp's",
            case="idle streams",
            who=IDLE,
            measure="bytes",
            over=IDLE_AIOHTTP,
            at_most=1.1,
        ),
    ),
    plots=(
        Plot(
            measure="rate",
            title="Events a second from a socket, decoded and typed",
            cases=("realistic", "10 MB in small pieces"),
        ),
        Plot(measure="bytes", title="Bytes of an idle stream"),
    ),
)
