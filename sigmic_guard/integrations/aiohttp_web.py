"""aiohttp.web: the tasks of an application's requests, from its start to its shutdown.

::

    app = web.Application()
    aiohttp_web.setup(app, policy=TaskPolicy(timeout=300))

    async def ask(request: web.Request) -> web.StreamResponse:
        return await aiohttp_web.stream(request, request.query["q"])

No signal handler is needed: aiohttp says early enough that it is about to stop, before it waits for
the requests that are under way.
"""

from __future__ import annotations

import asyncio
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Unpack
from weakref import ref

from aiohttp import WSCloseCode, web
from anyio import move_on_after

from sigmic_guard import ConfigurationError, Supervisor
from sigmic_guard.integrations import sse
from sigmic_guard.integrations.asgi.streaming import LAST_WORDS, TaskStream
from sigmic_guard.integrations.requests import (
    CLOSE_REASON,
    REFUSAL,
    OnDisconnect,
    RequestTasks,
    check_on_disconnect,
    consists_of,
    told_by_hang_up,
    told_by_shutdown,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import timedelta
    from weakref import ReferenceType

    from sigmic_guard import RemoteTask
    from sigmic_guard.integrations.asgi.protocol import Message
    from sigmic_guard.integrations.asgi.streaming import Encode, StreamOptions

    _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["OnDisconnect", "RequestTasks", "setup", "stream", "tasks_of"]

#: Seconds after which a client that was turned away shall come back.
RETRY_AFTER: Final = 2.0
#: Seconds between two looks at the connections whose hang-up matters: aiohttp tells of none.
RECHECK_SECONDS: Final = 0.1
#: Seconds that are left for the DELETEs where somebody asks twice.
HURRY_SECONDS: Final = 0.5
#: What nginx calls a request whose client hung up; nobody reads it but the access log.
HUNG_UP: Final = 499
#: A key of a request's storage: a string, where aiohttp knows nothing better.
_RESPONSE: Final[Any] = (
    web.RequestKey("response", ref) if hasattr(web, "RequestKey") else "sigmic_guard.response"
)


def setup(
    app: web.Application, *, on_disconnect: OnDisconnect = "cancel", **supervisor_options: Any
) -> None:
    """Give an application a supervisor, and its requests their tasks.

    The supervisor is entered before anything else of the application starts, and left last. When
    aiohttp begins to stop, a new task is refused with 503 and ``Retry-After``, and what is live is
    drained, so that the handlers come to their ends. Applications that are added to this one take
    part. To be called before the application is started.

    :param on_disconnect: what becomes of a request's tasks when its client hangs up before the
        response is complete; see :class:`RequestTasks`.
    :param supervisor_options: the arguments of :class:`~sigmic_guard.Supervisor`.
    :raises ConfigurationError: one of them makes no sense, or the application was set up before.
    """
    if _HOST in app:
        raise ConfigurationError("the application has a supervisor already: set it up once")
    host = _Host(Supervisor(**supervisor_options), check_on_disconnect(on_disconnect))
    app[_HOST] = host
    app.middlewares.insert(0, host.middleware)
    app.on_response_prepare.append(_note_response)
    app.cleanup_ctx.insert(0, host.run)
    app.on_shutdown.append(host.begin_to_stop)


def tasks_of(request: web.Request) -> RequestTasks:
    """Return the tasks of a request, or of a websocket's.

    :raises ConfigurationError: neither the application nor one around it was set up.
    """
    host = request.config_dict.get(_HOST)
    if host is None:
        raise ConfigurationError(
            "aiohttp_web.setup(app) was not called for this application, nor for one around it"
        )
    return host.exchange_of(request).tasks


async def stream(
    request: web.Request,
    message: str | None = None,
    *,
    task: RemoteTask | None = None,
    encode: Encode = sse.encode_event,
    heartbeat: float | timedelta | None = 15.0,
    farewell: bytes | str | None = None,
    **options: Unpack[StreamOptions],
) -> web.StreamResponse:
    """Stream what a task does, a new one or ``task``, and return the response for the handler.

    The arguments, the events and what is raised are those of
    :class:`sigmic_guard.integrations.asgi.TaskStream`.
    """
    source = TaskStream(
        tasks_of(request),
        message,
        task=task,
        encode=encode,
        heartbeat=heartbeat,
        farewell=farewell,
        **options,
    )
    sink = _Sink(request)
    await source.respond(sink.send)
    return sink.response or web.Response(status=HUNG_UP)


class _Host:
    """The supervisor of an application, and whose hang-up matters."""

    def __init__(self, supervisor: Supervisor, on_disconnect: Any) -> None:
        self._supervisor = supervisor
        self.on_disconnect = on_disconnect
        self._is_running = False
        self._stop = asyncio.Event()
        #: Of the requests that use tasks, by the connection, which has one at a time: what a
        #: handler is given may be a copy of the request.
        self._exchanges: dict[int, _Exchange] = {}
        self._watched: set[_Exchange] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.middleware = self._make_middleware()

    def find(self) -> Supervisor:
        """Return the supervisor.

        :raises ConfigurationError: the application has not started, or is over.
        """
        if not self._is_running:
            raise ConfigurationError("the application does not run: its supervisor is not entered")
        return self._supervisor

    @property
    def draining(self) -> bool:
        """Whether the shutdown has begun; an error of another supervisor's looks the same."""
        return self._supervisor.draining

    async def run(self, app: web.Application) -> AsyncIterator[None]:  # noqa: ARG002
        """Enter the supervisor, and leave it; for ``cleanup_ctx``."""
        # In a task of its own: some who run an application start it in one, and stop it in another.
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self._live(entered), name="sigmic_guard aiohttp_web")
        try:
            await asyncio.wait({running, entered}, return_when=asyncio.FIRST_COMPLETED)
            if not entered.done():
                await running  # raises why
            self._is_running = True
            yield
        finally:  # also where the application is stopped while it starts
            self._is_running = False
            entered.cancel()
            self._stop.set()
            if self._timer is not None:
                self._timer.cancel()
            await running

    async def _live(self, entered: asyncio.Future[None]) -> None:
        async with self._supervisor:
            if not entered.done():
                entered.set_result(None)
            try:
                await self._stop.wait()
            except asyncio.CancelledError:
                # By a second signal, which breaks off aiohttp's shutdown.
                await self._supervisor.shutdown(grace=HURRY_SECONDS)
                raise

    async def begin_to_stop(self, app: web.Application) -> None:  # noqa: ARG002
        """Begin the drain, before aiohttp waits for open requests; for ``on_shutdown``."""
        self._supervisor.request_shutdown()

    # --- hang-ups ---------------------------------------------------------------------------------

    def watch(self, exchange: _Exchange | None) -> None:
        """Have it told when its client has hung up."""
        if exchange is not None:
            self._watched.add(exchange)
        if self._timer is None:
            self._look_again()

    def _look_again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(RECHECK_SECONDS, self._look)

    def _look(self) -> None:
        for exchange in [one for one in self._watched if one.is_cut_off]:
            self._watched.discard(exchange)
            exchange.tasks.hang_up()
        self._timer = None
        if self._watched:
            self._look_again()

    # --- requests ---------------------------------------------------------------------------------

    def exchange_of(self, request: web.Request) -> _Exchange:
        """Return what is known of a request that uses tasks, from now on at the latest."""
        exchange = self._exchanges.get(id(request.protocol))
        if exchange is None:
            exchange = self._exchanges[id(request.protocol)] = _Exchange(self, request)
        return exchange

    def forget(self, request: web.Request, exchange: _Exchange) -> None:
        """Forget a request that is over."""
        self._exchanges.pop(id(request.protocol), None)
        self._watched.discard(exchange)

    def _make_middleware(self) -> Any:
        exchanges = self._exchanges

        @web.middleware
        async def sigmic_guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
            try:
                response = await handler(request)
            except BaseException as error:
                exchange = exchanges.get(id(request.protocol))
                answer = None if exchange is None else await exchange.fail(error)
                if answer is None:
                    raise
                return answer
            exchange = exchanges.get(id(request.protocol))
            if exchange is not None:
                exchange.close(None)
            return response

        return sigmic_guard


#: Where an application has it.
_HOST: Final = web.AppKey("sigmic_guard", _Host)


class _Exchange:
    """One request that uses tasks."""

    def __init__(self, host: _Host, request: web.Request) -> None:
        self._host = host
        self._request = request
        mine = ref(self)  # or the tasks would refer to themselves
        self.tasks = RequestTasks(
            host.find, host.on_disconnect, lambda: host.watch(mine()), RETRY_AFTER
        )

    @property
    def is_cut_off(self) -> bool:
        """Whether the connection is no more."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def close(self, error: BaseException | None) -> bool:
        """End what is left of the tasks; ``True`` if the error was only how one of them ended."""
        self._host.forget(self._request, self)
        return self.tasks.close(error)

    async def fail(self, error: BaseException) -> web.StreamResponse | None:
        """Return the answer to a request whose handler raised; ``None`` to let the error go on."""
        if self.is_cut_off:
            self.tasks.hang_up()
        over = self.close(error)
        if self.tasks.disconnected and (over or consists_of(error, told_by_hang_up)):
            return self._response or web.Response(status=HUNG_UP)
        if self._host.draining and (over or consists_of(error, told_by_shutdown)):
            return await self._turn_away()
        return (self._response or web.Response(status=500)) if over else None

    @property
    def _response(self) -> web.StreamResponse | None:
        """What has begun to be sent."""
        known: ReferenceType[web.StreamResponse] | None = self._request.get(_RESPONSE)
        return None if known is None else known()

    async def _turn_away(self) -> web.StreamResponse:
        response = self._response
        if response is None:
            headers = {"Retry-After": str(ceil(self.tasks.retry_after)), "Connection": "close"}
            return web.Response(status=503, text=REFUSAL, headers=headers)
        with move_on_after(LAST_WORDS):
            if isinstance(response, web.WebSocketResponse):
                code = WSCloseCode.SERVICE_RESTART
                await response.close(code=code, message=CLOSE_REASON.encode())
                return response
            if response.content_type == sse.MEDIA_TYPE:
                await response.write(sse.farewell_bytes(self.tasks.retry_after))
                await response.write_eof()
                return response
        _cut(self._request)  # what has no farewell must not look complete
        return response


class _Sink:
    """Takes an ASGI response, and makes one of aiohttp's of it."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse | None = None

    async def send(self, message: Message) -> None:
        """Send a part of it."""
        if message["type"] == "http.response.start":
            headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
            self.response = web.StreamResponse(status=message["status"], headers=dict(headers))
            await self.response.prepare(self._request)
            return
        assert self.response is not None
        last = not message["more_body"]
        try:
            if message["body"]:
                await self.response.write(message["body"])
            if last:
                await self.response.write_eof()
                last = False
        finally:
            if last:  # the client does not read: aiohttp would wait until it does
                _cut(self._request)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _note_response(request: web.Request, response: web.StreamResponse) -> None:
    """Remember what has begun to be sent; weakly, since it refers to the request."""
    if not isinstance(response, web.Response):  # which is sent once the handler has returned
        request[_RESPONSE] = ref(response)
