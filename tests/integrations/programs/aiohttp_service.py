"""The same service as people write it for aiohttp.web.

``python -m aiohttp_service PORT`` serves it; ``WITHOUT=setup`` binds no task to a request, and
enters the supervisor by hand.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sigmic_guard import Supervisor
from sigmic_guard.integrations import aiohttp_web, sse
from sigmic_guard.integrations.aiohttp_web import tasks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WITHOUT = os.environ.get("WITHOUT", "").split(",")
GRACE = float(os.environ.get("GRACE", "8"))
FLOOD = b"data: " + b"x" * 2**24 + b"\n\n"
SUPERVISOR = web.AppKey("supervisor", Supervisor)

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


async def by_hand(app: web.Application) -> AsyncIterator[None]:
    async with Supervisor(registry=None, grace=GRACE) as supervisor:
        app[SUPERVISOR] = supervisor
        yield


async def announce(app: web.Application) -> None:
    logging.getLogger(__name__).info("the service is ready")


def owner(request: web.Request) -> Any:
    return request.app[SUPERVISOR] if "setup" in WITHOUT else tasks_of(request)


async def idle(request: web.Request) -> web.Response:
    return web.Response(text="idle")


async def stream(request: web.Request) -> web.StreamResponse:
    return await aiohttp_web.stream(request, request.query["q"])


async def by_hand_written(request: web.Request) -> web.StreamResponse:
    """What people write by hand."""
    response = web.StreamResponse(headers={"Content-Type": sse.MEDIA_TYPE})
    await response.prepare(request)
    async with owner(request).task(request.query["q"]) as task:
        async for event in task.events():
            if (piece := sse.encode_event(event)) is not None:
                await response.write(piece)
    return response


async def flooded_stream(request: web.Request) -> web.StreamResponse:
    """Write more than any buffer takes."""
    return await aiohttp_web.stream(request, request.query["q"], encode=lambda _: FLOOD)


async def flooded_by_hand(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": sse.MEDIA_TYPE})
    await response.prepare(request)
    async with owner(request).task(request.query["q"]):
        while True:
            await response.write(FLOOD)


async def run(request: web.Request) -> web.Response:
    result = await owner(request).run(request.query["q"])
    return web.json_response({"outcome": result.outcome, "answer": result.final_response})


async def start(request: web.Request) -> web.Response:
    task = await owner(request).start(request.query["q"])
    return web.json_response({"id": task.id}, status=202)


async def chat(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    question = await socket.receive_str()
    result = await owner(request).run(question)
    await socket.send_str(result.final_response or "")
    return socket


app = web.Application()
if "setup" in WITHOUT:
    app.cleanup_ctx.append(by_hand)
else:
    aiohttp_web.setup(app, registry=None, grace=GRACE)
app.on_startup.append(announce)
app.router.add_get("/idle", idle)
app.router.add_get("/stream", stream)
app.router.add_get("/generated", by_hand_written)
app.router.add_get("/event_source", by_hand_written)
app.router.add_get("/flooded_stream", flooded_stream)
app.router.add_get("/flooded_generator", flooded_by_hand)
app.router.add_get("/run", run)
app.router.add_get("/start", start)
app.router.add_get("/chat", chat)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
