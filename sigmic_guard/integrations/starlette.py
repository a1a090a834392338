"""Starlette: :func:`tasks_of` a request, and a :class:`TaskStream` that is a ``Response``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from starlette.responses import Response

from sigmic_guard import ConfigurationError
from sigmic_guard.integrations import asgi, sse
from sigmic_guard.integrations.requests import RequestTasks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from starlette.background import BackgroundTask
    from starlette.requests import HTTPConnection
    from starlette.types import Receive, Scope, Send

    from sigmic_guard import RemoteTask
    from sigmic_guard.integrations.asgi.streaming import Encode, StreamOptions

__all__ = ["TaskStream", "tasks_of"]


def tasks_of(connection: HTTPConnection) -> RequestTasks:
    """Return the tasks of a request or websocket.

    :raises ConfigurationError: the guard is not installed.
    """
    tasks = connection.scope.get("state", {}).get("tasks")
    if not isinstance(tasks, RequestTasks):
        raise ConfigurationError("there is no guard around this application: guard.install(app)")
    return tasks


class TaskStream(Response):
    """The same as :class:`sigmic_guard.integrations.asgi.TaskStream`, as a ``Response``.

    Headers and cookies can be added before it is returned; ``background`` runs once it is complete.
    """

    media_type = sse.MEDIA_TYPE

    def __init__(
        self,
        tasks: RequestTasks,
        message: str | None = None,
        *,
        task: RemoteTask | None = None,
        encode: Encode = sse.encode_event,
        heartbeat: float | timedelta | None = 15.0,
        farewell: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
        **options: Unpack[StreamOptions],
    ) -> None:
        # Not the base's: there is no body to be measured.
        self._stream = stream = asgi.TaskStream(
            tasks,
            message,
            task=task,
            encode=encode,
            heartbeat=heartbeat,
            farewell=farewell,
            **options,
        )
        self.status_code = stream.status_code
        self.background = background
        own = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in stream.raw_headers
        }
        self.init_headers({**own, "content-type": self.media_type, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what the task does; then run ``background``."""
        self._stream.status_code, self._stream.raw_headers = self.status_code, self.raw_headers
        await self._stream(scope, receive, send)
        if self.background is not None:
            await self.background()
