"""The service of ``metrics_service.py`` for ASGI hosts, by hooks of which it has none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.integrations.metrics import metrics_app
from sigmic_guard.integrations.starlette import tasks_of

if TYPE_CHECKING:
    from starlette.requests import Request

guard = Guard()


async def start(request: Request) -> Response:
    await tasks_of(request).start("m")
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[Route("/start", start), Mount("/metrics", metrics_app())], lifespan=guard.lifespan
)
guard.install(app)
