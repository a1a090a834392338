"""The same service as people write it for Litestar, which test_litestar.py runs by hand."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from litestar import Litestar, Request, WebSocket, get, websocket
from litestar.response import ServerSentEvent, Stream
from litestar.types import ASGIApp

from sigmic_guard.integrations import sse
from sigmic_guard.integrations.asgi import Guard, TaskStream

GRACE = float(os.environ.get("GRACE", "8"))
FLOOD = b": " + bytes(8_000_000) + b"\n\n"

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
guard = Guard(registry=None, grace=GRACE)


@asynccontextmanager
async def announced(app: Litestar) -> AsyncIterator[None]:
    logging.getLogger(__name__).info("the service is ready")
    yield


@get("/idle")
async def idle() -> str:
    return "idle"


@get("/stream")
async def stream(request: Request[Any, Any, Any], q: str) -> ASGIApp:
    return TaskStream(request.scope["state"]["tasks"], q)


@get("/generated")
async def generated(request: Request[Any, Any, Any], q: str) -> Stream:
    return Stream(events(request, q), media_type=sse.MEDIA_TYPE)


async def events(request: Request[Any, Any, Any], q: str) -> AsyncIterator[bytes]:
    async with request.scope["state"]["tasks"].task(q) as task:
        async for event in task.events():
            if (piece := sse.encode_event(event)) is not None:
                yield piece


@get("/event_source")
async def event_source(request: Request[Any, Any, Any], q: str) -> ServerSentEvent:
    return ServerSentEvent(piece.decode() async for piece in events(request, q))


@get("/flooded_stream")
async def flooded_stream(request: Request[Any, Any, Any], q: str) -> ASGIApp:
    return TaskStream(request.scope["state"]["tasks"], q, encode=lambda _: FLOOD)


@get("/flooded_generator")
async def flooded_generator(request: Request[Any, Any, Any], q: str) -> Stream:
    async def flood() -> AsyncIterator[bytes]:
        async with request.scope["state"]["tasks"].task(q):
            while True:
                yield FLOOD
                await anyio.sleep(0)

    return Stream(flood(), media_type=sse.MEDIA_TYPE)


@get("/run")
async def run(request: Request[Any, Any, Any], q: str) -> str:
    return (await request.scope["state"]["tasks"].run(q)).final_response or ""


@websocket("/chat")
async def chat(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    question = await socket.receive_text()
    result = await socket.scope["state"]["tasks"].run(question)
    await socket.send_text(result.final_response or "")
    await socket.close()


app = Litestar(
    [idle, stream, generated, event_source, flooded_stream, flooded_generator, run, chat],
    lifespan=[guard.lifespan, announced],
    middleware=[guard.middleware],
)
