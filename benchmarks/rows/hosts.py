"""What a host pays: a request without a task through the middleware; many streams at SIGTERM.

Through the middleware: the CPU time that the guard adds to a request. The ASGI host is a loop in
memory, for a real one adds its own to both; aiohttp.web is asked over a socket. At SIGTERM:
uvicorn in a process of its own, with so many open event streams; until the last client has its
farewell, and its connection is closed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from subprocess import DEVNULL, Popen
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.core.model import Case, Goal, Plot, Row
from benchmarks.core.site import KEY, Unsound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from aiohttp import web

    from benchmarks.core.site import Site

ASGI, AIOHTTP, UVICORN = "ASGI middleware", "aiohttp.web", "uvicorn, TaskStream"
ROUNDS: Final = 5

_ASKED: Final = {"type": "http.request", "body": b"", "more_body": False}
_START: Final = {"type": "http.response.start", "status": 200, "headers": []}
_BODY: Final = {"type": "http.response.body", "body": b"ok", "more_body": False}


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send(_START)
    await send(_BODY)


async def added(
    bare: Callable[[], Awaitable[None]], guarded: Callable[[], Awaitable[None]], count: int
) -> Mapping[str, float]:
    """Tell how many microseconds of CPU the guard adds to a request: the best of some rounds."""
    best = [1e9, 1e9]
    for _ in range(ROUNDS):
        for index, ask in enumerate((bare, guarded)):
            began = process_time()
            for _ in range(count):
                await ask()
            best[index] = min(best[index], (process_time() - began) / count * 1e6)
    return {"each": best[1] - best[0]}


async def asgi(site: Site) -> Mapping[str, float]:
    from sigmic_guard.integrations.asgi import Guard
    from sigmic_guard.testing import FakeSigmic

    async def receive() -> Any:
        return _ASKED

    async def send(message: Any) -> None:
        pass

    def asking(app: Any) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            await app({"type": "http", "http_version": "1.1", "state": {}}, receive, send)

        return ask

    guard = Guard(client=FakeSigmic(), ledger="memory:", registry=None)
    async with guard.lifespan(None):
        return await added(asking(plain), asking(guard.middleware(plain)), site["requests"])


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve an application of aiohttp's, and give what asks it over one connection."""
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])

    async def ask() -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")

    try:
        yield ask
    finally:
        writer.close()
        await runner.cleanup()


async def aiohttp_web(site: Site) -> Mapping[str, float]:
    from aiohttp import web

    from sigmic_guard.integrations import aiohttp_web as integration
    from sigmic_guard.testing import FakeSigmic

    ours = web.Application()
    integration.setup(ours, client=FakeSigmic(), ledger="memory:", registry=None)
    async with served(web.Application()) as bare, served(ours) as guarded:
        return await added(bare, guarded, site["requests"] // 10)


async def uvicorn(site: Site) -> Mapping[str, float]:
    """Open the streams, send SIGTERM, and wait for every farewell."""
    number = site["n"]
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        command = [sys.executable, "-m", "uvicorn", "benchmarks.service:app", "--log-level"]
        command += ["warning", "--fd", str(listening.fileno())]
        variables = {"BENCH_KEY": KEY, "BENCH_URL": site.base, "BENCH_LEDGER": site.sqlite}
        with Popen(
            command,
            pass_fds=[listening.fileno()],
            env=os.environ | variables,
            stdout=DEVNULL,
        ) as process:
            try:
                if site.server_cores:  # the clients, too, are there: the service has its core alone
                    os.sched_setaffinity(0, site.server_cores)
                port = listening.getsockname()[1]
                streams = [await opened(port) for _ in range(number)]
                began = perf_counter()
                process.send_signal(signal.SIGTERM)
                said = await asyncio.gather(*(reader.read() for reader, _ in streams))
                seconds = perf_counter() - began
            finally:
                process.terminate()
    for _, writer in streams:
        writer.close()
    if missing := sum(b"event: shutdown" not in last for last in said):
        raise Unsound(f"{missing} of {number} streams ended without a farewell")
    site.check()
    return {"seconds": seconds}


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream, and wait for its first event: the task exists."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: bench\r\n\r\n")
    await reader.readuntil(b"event: start")
    return reader, writer


def cases(quick: bool) -> list[Case]:
    requests, streams = (2_000, 100) if quick else (20_000, 1_000)
    return [
        Case(label="without a task", numbers={"requests": requests}, contestants=(ASGI, AIOHTTP)),
        Case(
            label=f"{streams:,} streams at SIGTERM", numbers={"n": streams}, contestants=(UVICORN,)
        ),
    ]


ROW = Row(
    name="hosts",
    title="requests through the middleware, and streams at SIGTERM",
    headline="each",
    contestants={ASGI: asgi, AIOHTTP: aiohttp_web, UVICORN: uvicorn},
    cases=cases,
    goals=(
        *(
            Goal(text=f"added by {who}", case="without a task", who=who, measure="each", at_most=10)
            for who in (ASGI, AIOHTTP)
        ),
        *(
            Goal(
                text="the last farewell",
                case=f"{streams} streams at SIGTERM",
                who=UVICORN,
                measure="seconds",
                at_most=1.0,
            )
            for streams in ("100", "1,000")
        ),
    ),
    plots=(Plot(measure="each", title="What the guard adds to a request, µs"),),
)
