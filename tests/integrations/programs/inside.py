"""uvicorn within a program that has a supervisor already: its handlers are set after ours."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from sigmic_guard import Supervisor
from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.integrations.starlette import TaskStream, tasks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


async def stream(request: Request) -> Response:
    return TaskStream(tasks_of(request), request.query_params["q"])


@asynccontextmanager
async def announced(app: Starlette) -> AsyncIterator[None]:
    logging.getLogger(__name__).info("the service is ready")
    yield


async def main(port: int) -> None:
    async with Supervisor(registry=None, signals="auto") as supervisor:
        guard = Guard(supervisor)
        app = Starlette(routes=[Route("/stream", stream)], lifespan=guard.around(announced))
        guard.install(app)
        await uvicorn.Server(uvicorn.Config(app, port=port)).serve()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(main(int(sys.argv[1])))
