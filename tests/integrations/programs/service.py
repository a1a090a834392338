"""A service as people write them, for whatever ASGI host; its environment says what is left out.

``WITHOUT=middleware`` does not bind tasks to their requests; ``WITHOUT=signals`` leaves the signals
to the host; ``WITHOUT=record`` has a request's end tell nothing to the tasks that are its own.
"""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import anyio
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from sigmic_guard import RemoteTaskGroup
from sigmic_guard.integrations import sse
from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.integrations.starlette import TaskStream, tasks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from sigmic_guard import Supervisor
    from sigmic_guard.integrations.requests import RequestTasks

WITHOUT = os.environ.get("WITHOUT", "").split(",")
GRACE = float(os.environ.get("GRACE", "8"))
FLOOD = b": " + bytes(8_000_000) + b"\n\n"

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
if "record" in WITHOUT:
    patch.multiple(RemoteTaskGroup, end=lambda *_, **__: None, close=lambda *_: False).start()

guard = Guard(registry=None, grace=GRACE, signals=False if "signals" in WITHOUT else "auto")


def owner(request: Request | WebSocket) -> RequestTasks | Supervisor:
    return guard.supervisor if "middleware" in WITHOUT else tasks_of(request)


@asynccontextmanager
async def announced(app: Starlette) -> AsyncIterator[None]:
    logging.getLogger(__name__).info("the service is ready")
    yield


async def idle(request: Request) -> Response:
    return PlainTextResponse("idle")


async def stream(request: Request) -> Response:
    return TaskStream(tasks_of(request), request.query_params["q"])


async def generated(request: Request) -> Response:
    """What people write by hand."""
    return StreamingResponse(events(request), media_type=sse.MEDIA_TYPE)


async def event_source(request: Request) -> Response:
    return EventSourceResponse({"data": piece.decode()} async for piece in events(request))


async def events(request: Request) -> AsyncIterator[bytes]:
    async with owner(request).task(request.query_params["q"]) as task:
        async for event in task.events():
            if (piece := sse.encode_event(event)) is not None:
                yield piece


async def flooded_stream(request: Request) -> Response:
    """Write more than any buffer takes."""
    return TaskStream(tasks_of(request), request.query_params["q"], encode=lambda event: FLOOD)


async def flooded_generator(request: Request) -> Response:
    return StreamingResponse(flood(request), media_type=sse.MEDIA_TYPE)


async def flood(request: Request) -> AsyncIterator[bytes]:
    async with owner(request).task(request.query_params["q"]):
        while True:
            yield FLOOD
            await anyio.sleep(0)


async def run(request: Request) -> Response:
    result = await owner(request).run(request.query_params["q"])
    return JSONResponse({"outcome": result.outcome, "answer": result.final_response})


async def start(request: Request) -> Response:
    task = await owner(request).start(request.query_params["q"])
    return JSONResponse({"id": task.id}, status_code=202)


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    question = await websocket.receive_text()
    result = await owner(websocket).run(question)
    await websocket.send_text(result.final_response or "")
    await websocket.close()


app = Starlette(
    routes=[
        Route("/idle", idle),
        Route("/stream", stream),
        Route("/generated", generated),
        Route("/event_source", event_source),
        Route("/flooded_stream", flooded_stream),
        Route("/flooded_generator", flooded_generator),
        Route("/run", run),
        Route("/start", start),
        WebSocketRoute("/chat", chat),
    ],
    lifespan=guard.around(announced),
)
if "middleware" not in WITHOUT:
    guard.install(app)
