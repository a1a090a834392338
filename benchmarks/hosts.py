"""What the guard's middleware adds to a request, with and without a task; beside the bare app.

The ASGI host is a loop in memory: a real one adds its own 50 to 200 µs to both. aiohttp.web is
measured over a socket; of what is added there half is what aiohttp takes for any middleware.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sigmic_guard.integrations import aiohttp_web
from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.testing import FakeSigmic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sigmic_guard.integrations.asgi.protocol import Application, Message, Receive, Scope, Send

REQUESTS = 20_000
WITH_TASKS = 100
OVER_A_SOCKET = 1000
ROUNDS = 7
#: Microseconds that a request without a task may cost more.
BOUND = 10.0

ASKED: Message = {"type": "http.request", "body": b"", "more_body": False}
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"ok", "more_body": False}


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(START)
    await send(BODY)


async def with_task(run: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await run(scope)("m")
    await plain(scope, receive, send)


async def serve(app: Application, count: int) -> float:
    """Return the seconds of processor time per request."""

    async def receive() -> Message:
        return ASKED

    async def send(message: Message) -> None:
        pass

    began = time.process_time()
    for _ in range(count):
        await app({"type": "http", "http_version": "1.1", "state": {}}, receive, send)
    return (time.process_time() - began) / count


async def compare(name: str, bare: Application, guarded: Application, count: int) -> float:
    """Let them take turns, and return how many microseconds the guard adds."""
    times = [(await serve(bare, count), await serve(guarded, count)) for _ in range(ROUNDS)]
    return tell(name, times)


def tell(name: str, times: list[tuple[float, float]]) -> float:
    """Print the best of each, and return how many microseconds the guard adds."""
    without, within = (min(column) * 1e6 for column in zip(*times, strict=True))
    added: float = within - without
    print(f"{name:<12} bare {without:7.2f} µs  guarded {within:7.2f} µs  +{added:6.2f} µs", end="")
    print(f"  x {within / without:5.2f}")
    return added


async def answer(_: web.Request) -> web.Response:
    return web.Response(text="ok")


class Connection:
    """A client of an aiohttp.web application, over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, count: int) -> float:
        """Return the seconds of processor time per request, the client's included."""
        began = time.process_time()
        for _ in range(count):
            self._writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            await self._reader.readuntil(b"\r\n\r\nok")
        return (time.process_time() - began) / count


@asynccontextmanager
async def connected(app: web.Application) -> AsyncIterator[Connection]:
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        await runner.cleanup()


async def compare_aiohttp() -> float:
    guarded = web.Application()
    aiohttp_web.setup(guarded, client=FakeSigmic(), ledger="memory:", registry=None)
    async with connected(web.Application()) as bare, connected(guarded) as ours:
        times = [
            (await bare.ask(OVER_A_SOCKET), await ours.ask(OVER_A_SOCKET)) for _ in range(ROUNDS)
        ]
    return tell("aiohttp.web", times)


async def main() -> None:
    guard = Guard(client=FakeSigmic(duration=0), ledger="memory:", registry=None)
    async with guard.lifespan(None):
        added = await compare("no task", plain, guard.middleware(plain), REQUESTS)
        own = partial(with_task, lambda scope: guard.supervisor.run)
        tasks = partial(with_task, lambda scope: scope["state"]["tasks"].run)
        await compare("run()", own, guard.middleware(tasks), WITH_TASKS)
    added = max(added, await compare_aiohttp())
    met = "met" if added < BOUND else "missed"
    print(f"at most {BOUND:.0f} µs for a request without a task: {met}, with {added:.1f} µs")


if __name__ == "__main__":
    asyncio.run(main())
