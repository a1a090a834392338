"""What the guard's middleware adds to a request, with and without a task; beside the bare app.

The host is a loop in memory: a real one adds its own 50 to 200 µs to both.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.testing import FakeSigmic

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Application, Message, Receive, Scope, Send

REQUESTS = 20_000
WITH_TASKS = 100
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
    without, within = (min(column) * 1e6 for column in zip(*times, strict=True))
    added: float = within - without
    print(f"{name:<12} bare {without:7.2f} µs  guarded {within:7.2f} µs  +{added:6.2f} µs", end="")
    print(f"  x {within / without:5.2f}")
    return added


async def main() -> None:
    guard = Guard(client=FakeSigmic(duration=0), ledger="memory:", registry=None)
    async with guard.lifespan(None):
        added = await compare("no task", plain, guard.middleware(plain), REQUESTS)
        own = partial(with_task, lambda scope: guard.supervisor.run)
        tasks = partial(with_task, lambda scope: scope["state"]["tasks"].run)
        await compare("run()", own, guard.middleware(tasks), WITH_TASKS)
    assert added < BOUND, f"the middleware adds {added:.1f} µs to a request without a task"


if __name__ == "__main__":
    asyncio.run(main())
