"""Every common way to send server-sent events, all of whose readers hang up at once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sse_starlette
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from sigmic_guard.integrations import sse
from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.integrations.fastapi import Tasks, TaskStream

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
guard = Guard(registry=None)


@asynccontextmanager
async def announced(app: FastAPI) -> AsyncIterator[None]:
    logging.getLogger(__name__).info("the service is ready")
    yield


app = FastAPI(lifespan=guard.around(announced))
guard.install(app)


@app.get("/fastapi", response_class=EventSourceResponse)
async def of_fastapi(q: str, tasks: Tasks) -> AsyncIterator[ServerSentEvent]:
    async with tasks.task(q) as task:
        async for event in task.events():
            yield ServerSentEvent(data=event.data, event=event.type)


@app.get("/sse_starlette")
async def of_sse_starlette(q: str, tasks: Tasks) -> sse_starlette.EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, Any]]:
        async with tasks.task(q) as task:
            async for event in task.events():
                yield {"event": event.type, "data": event.data}

    return sse_starlette.EventSourceResponse(events())


@app.get("/streaming")
async def of_starlette(q: str, tasks: Tasks) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        async with tasks.task(q) as task:
            async for event in task.events():
                if (piece := sse.encode_event(event)) is not None:
                    yield piece

    return StreamingResponse(events(), media_type=sse.MEDIA_TYPE)


@app.get("/task_stream")
async def of_ours(q: str, tasks: Tasks) -> TaskStream:
    return TaskStream(tasks, q)
