"""The middleware: what one request, or one websocket, goes through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from anyio import move_on_after

from sigmic_guard.integrations import sse
from sigmic_guard.integrations.asgi.receiving import Receiver
from sigmic_guard.integrations.asgi.streaming import LAST_WORDS
from sigmic_guard.integrations.requests import (
    CLOSE_REASON,
    REFUSAL,
    RequestTasks,
    consists_of,
    told_by_hang_up,
    told_by_shutdown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Literal

    from sigmic_guard import Supervisor
    from sigmic_guard.integrations.asgi.protocol import Application, Message, Receive, Scope, Send

#: Tells a websocket's client that the service restarts. Source: RFC 6455's registry, "1012".
SERVICE_RESTART: Final = 1012
#: As what frameworks close a websocket whose handler raised: the registry's, and Litestar's.
_INTERNAL_ERRORS: Final = frozenset({1011, 4500})
_RESTARTS: Final[dict[str, Any]] = {
    "type": "websocket.close",
    "code": SERVICE_RESTART,
    "reason": CLOSE_REASON,
}


class Service(Protocol):
    """What the middleware asks of its guard."""

    on_disconnect: Literal["cancel", "keep"] | float
    retry_after: float

    @property
    def draining(self) -> bool:
        """Whether the service shuts down."""

    def find_supervisor(self) -> Supervisor:
        """Return the supervisor, or raise a sentence that says why there is none."""

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run something beside the requests; ``False`` where that is too late."""


class GuardMiddleware:
    """Binds the tasks of each request to it; a plain ASGI middleware, made by a guard."""

    guard: ClassVar[Service]

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is neither HTTP nor a websocket passes through."""
        kind = scope["type"]
        if kind == "http":
            await _Http(self.guard, scope, receive, send).serve(self.app)
        elif kind == "websocket":
            await _WebSocket(self.guard, scope, receive, send).serve(self.app)
        else:
            await self.app(scope, receive, send)


class _Exchange(ABC):
    """A request and its response, or a websocket.

    No cancel scope and no task group is open around the application: one of a generator that it
    leaves behind may stay open in this very task, and ours could not be left any more.
    """

    __slots__ = ("_guard", "_receiver", "_scope", "_send", "complete", "tasks")

    def __init__(self, guard: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard = guard
        self._scope = scope
        self._send = send
        self._receiver = receiver = Receiver(receive, guard.spawn)
        self.tasks = RequestTasks(
            guard.find_supervisor, guard.on_disconnect, receiver.listen, guard.retry_after
        )
        receiver.hung_up = self.tasks.hang_up
        #: Nothing more can be said to the client, who may go.
        self.complete = False

    async def serve(self, app: Application) -> None:
        self._scope.setdefault("state", {})["tasks"] = self.tasks
        try:
            await app(self._scope, self._receiver, self.send)
        except BaseException as error:
            # Whatever of it came past a generator that holds a block, which nobody waits in.
            ours = self._leave(error) or (self._struck and consists_of(error, _is_of_a_left_scope))
            if not (ours or self._is_expected(error)):
                raise
            if self._guard.draining and not self.tasks.disconnected:
                await self._say_last_words()
        else:
            self._leave(None)
            if self.tasks.cut:  # who ends its stream without an error
                await self._say_last_words()

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Pass a message of the application's on to the host."""

    @property
    def _struck(self) -> bool:
        """Whether the bodies of its blocks were cancelled."""
        return self.tasks.cut or self.tasks.disconnected

    def _is_expected(self, error: BaseException) -> bool:
        if not (self.tasks.disconnected or self._guard.draining):
            return False
        kind = told_by_hang_up if self.tasks.disconnected else told_by_shutdown
        # Litestar raises that it comes too late from an error after the response has begun.
        cause = error.__cause__ if self._has_begun else None
        return consists_of(error, kind) or (cause is not None and consists_of(cause, kind))

    @property
    def _has_begun(self) -> bool:
        """Whether a response has, so that no error can be answered any more."""
        return False

    def _leave(self, error: BaseException | None) -> bool:
        self._receiver.stop()
        return self.tasks.used and self.tasks.close(error)

    def _completed(self) -> None:
        self.complete = True
        self._receiver.stop()

    async def _say_last_words(self) -> None:
        if not self.complete:
            with move_on_after(LAST_WORDS):
                await self._end()

    @abstractmethod
    async def _end(self) -> None:
        """Tell the client that the service shuts down, as far as that can still be told."""


class _Http(_Exchange):
    __slots__ = ("_headers", "_refused")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: Of the response, once it has started.
        self._headers: Iterable[tuple[bytes, bytes]] | None = None
        #: Whether it was refused in place of what the application answers.
        self._refused = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._refused:
            return
        if kind == "http.response.start":
            if message["status"] == 500 and self.tasks.turned_away:
                # Some frameworks answer each error by themselves, and let none of them out.
                self._refused = True
                await refuse(self._scope, self._send, self.tasks.retry_after)
                self._completed()
                return
            self._headers = message.get("headers", ())
        elif kind == "http.response.body" and not message.get("more_body", False):
            if self.tasks.cut and self._is_event_stream:
                # Frameworks end a response before they let go of the error that ended it.
                message = {**message, "body": message.get("body", b"") + self._farewell}
            self._completed()
        await self._send(message)

    @property
    def _has_begun(self) -> bool:
        return self._headers is not None

    @property
    def _is_event_stream(self) -> bool:
        """Whether an event can be added to the body as it is."""
        fields = {name.lower(): value for name, value in self._headers or ()}
        kind = fields.get(b"content-type", b"").decode("latin-1")
        return kind.startswith(sse.MEDIA_TYPE) and b"content-encoding" not in fields

    @property
    def _farewell(self) -> bytes:
        return sse.farewell_bytes(self.tasks.retry_after)

    async def _end(self) -> None:
        if self._headers is None:
            await refuse(self._scope, self._send, self.tasks.retry_after)
        elif self._is_event_stream:
            message = {"type": "http.response.body", "body": self._farewell, "more_body": False}
            await self._send(message)
        # Else it is cut: what has no farewell must not look complete.


class _WebSocket(_Exchange):
    __slots__ = ("_accepted",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._accepted = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.close" or (
            kind == "websocket.http.response.body" and not message.get("more_body", False)
        ):
            self._completed()
            if message.get("code") in _INTERNAL_ERRORS and self.tasks.turned_away:
                message = {**_RESTARTS}  # some frameworks let no error out
        await self._send(message)

    async def _end(self) -> None:
        if not self._accepted and "websocket.http.response" in self._scope.get("extensions", ()):
            await refuse(self._scope, self._send, self.tasks.retry_after)
        else:
            await self._send({**_RESTARTS})


async def refuse(scope: Scope, send: Send, retry_after: float) -> None:
    """Answer 503: no task is taken on any more."""
    body = REFUSAL.encode()
    prefix = "websocket." if scope["type"] == "websocket" else ""
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % ceil(retry_after)),
    ]
    if scope.get("http_version", "1.1").startswith("1"):
        headers.append((b"connection", b"close"))
    await send({"type": prefix + "http.response.start", "status": 503, "headers": headers})
    await send({"type": prefix + "http.response.body", "body": body, "more_body": False})


def _is_of_a_left_scope(error: BaseException) -> bool:
    """Tell whether a task could not leave its scope, since a generator in it never left its own.

    The cancellation of that came out past it, as far as the task group in which a framework runs a
    stream. anyio and trio have no class of their own for that, and their texts change: it is known
    by who raised it, which is their own code, on leaving a scope or a task group.
    """
    leaving, raised = False, error.__traceback__
    while raised is not None:
        frame, raised = raised.tb_frame, raised.tb_next
        if frame.f_globals.get("__name__", "").partition(".")[0] in {"anyio", "trio"}:
            leaving = leaving or frame.f_code.co_name in {"__exit__", "__aexit__"}
        else:
            leaving = False
    return leaving and isinstance(error, (RuntimeError, AssertionError))
