"""Starlette, FastAPI, Litestar and plain ASGI applications; none of them is imported.

::

    guard = Guard(policy=TaskPolicy(timeout=300))
    app = Starlette(routes=routes, lifespan=guard.lifespan)
    guard.install(app)

Source: https://asgi.readthedocs.io/en/latest/specs/www.html, "HTTP & WebSocket ASGI Message
Format".
"""

from sigmic_guard.integrations.asgi.guard import Guard
from sigmic_guard.integrations.asgi.streaming import TaskStream
from sigmic_guard.integrations.requests import OnDisconnect, RequestTasks

__all__ = ["Guard", "OnDisconnect", "RequestTasks", "TaskStream"]
