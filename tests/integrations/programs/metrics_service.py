"""A service of several workers whose ``/metrics`` tells of all of them."""

from __future__ import annotations

import os

from aiohttp import web

from sigmic_guard.integrations import aiohttp_web
from sigmic_guard.integrations.aiohttp_web import tasks_of
from sigmic_guard.integrations.metrics import metrics_handler


async def start(request: web.Request) -> web.Response:
    await tasks_of(request).start("m")
    return web.Response(text=str(os.getpid()))


app = web.Application()
aiohttp_web.setup(app)
app.router.add_get("/start", start)
app.router.add_get("/metrics", metrics_handler())
