"""A service with the admin page, and one task to be cancelled there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from sigmic_guard.integrations.admin import admin_app
from sigmic_guard.integrations.asgi import Guard

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
guard = Guard(registry=None)


@asynccontextmanager
async def announced(app: FastAPI) -> AsyncIterator[None]:
    await guard.supervisor.start("m")
    logging.getLogger(__name__).info("the service is ready")
    yield


app = FastAPI(lifespan=guard.around(announced))
app.mount("/admin/tasks", admin_app(guard, token="correct-horse-battery-staple"))
guard.install(app)
