"""A service with many open streams, for the row ``hosts``: an ASGI application for uvicorn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.integrations.asgi.streaming import TaskStream

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Receive, Scope, Send

guard = Guard(
    api_key=os.environ["BENCH_KEY"],
    base_url=os.environ["BENCH_URL"],
    ledger=os.environ["BENCH_LEDGER"],
    registry=CollectorRegistry(),
    grace=20,
)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await TaskStream(scope["state"]["tasks"], "bench")(scope, receive, send)


guarded = guard.middleware(stream)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve; the lifespan by hand, as a bare application has to."""
    if scope["type"] != "lifespan":
        await guarded(scope, receive, send)
        return
    await receive()
    async with guard.lifespan(app):
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
