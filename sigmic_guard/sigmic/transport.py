"""Requests by aiohttp, and the funnel that no aiohttp exception gets past.

aiohttp's exceptions and frames carry request headers, and so the credential. Hence what is raised
here is raised outside of any ``except``, with neither cause nor context, and a cancellation passes
with its traceback cut off at this module.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from yarl import URL

from sigmic_guard.errors import ConnectionFailed, SigmicGuardError
from sigmic_guard.sigmic import failures
from sigmic_guard.sigmic.control import USER_AGENT, tell, trace_headers
from sigmic_guard.sigmic.payload import BodyPayload
from sigmic_guard.sigmic.quiet import is_quiet
from sigmic_guard.sigmic.responses import MAX_JSON, MAX_REFUSAL, Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.client import ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from sigmic_guard.sigmic.bodies import Body
    from sigmic_guard.sigmic.control import OnRequest
    from sigmic_guard.sigmic.credentials import Credential

__all__ = ["FOREIGN", "AiohttpTransport", "Attempt", "read_answer", "translate"]

ReadT = TypeVar("ReadT")

#: Seconds that closing may take where a peer takes no more bytes.
_MAX_CLOSE: Final = 1.0
# Shorter than the 5 s after which common servers hang up on an idle connection: what is sent into a
# hang-up is lost, and nobody can tell whether it was obeyed.
_KEEP_ALIVE: Final = 4.0

#: What aiohttp and the layers below it raise. Anything else is a bug, and shall be seen.
#: ValueError: InvalidURL, certificate and IDNA errors; RuntimeError: a closed session.
FOREIGN: Final = (
    aiohttp.ClientError,
    aiohttp.EofStream,
    HttpProcessingError,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
)


class Attempt:
    """One call on its way, and how far it provably got: that is what a failure means."""

    __slots__ = ("body", "connected", "fresh", "transport", "where")

    def __init__(self, body: Body | None = None, where: str = "") -> None:
        self.body = body
        #: The host and port that it goes to, for messages.
        self.where = where
        #: Whether a connection was ever had. While not, not a byte of the request has left.
        self.connected = False
        #: Whether the connection that it was given was made for it.
        self.fresh = False
        self.transport: asyncio.Transport | None = None


_UNFINISHED: Final = frozenset({"cancelled", "connection", "timeout"})
_ATTEMPT: Final[ContextVar[Attempt]] = ContextVar("sigmic_guard_attempt")


class _Connector(aiohttp.TCPConnector):
    """Tells the attempt when it is given a connection: TLS shaken, out of the pool's queue.

    One that was kept is given only if it is quiet.
    """

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection:
        attempt = _ATTEMPT.get()
        while True:
            attempt.fresh = False
            connection = await super().connect(req, traces, timeout)
            transport = connection.transport
            if attempt.fresh or (transport is not None and is_quiet(transport)):
                break
            connection.close()
        attempt.connected = True
        attempt.transport = transport
        return connection

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        _ATTEMPT.get().fresh = True
        return await super()._create_connection(req, traces, timeout)


def translate(exc: BaseException, attempt: Attempt) -> SigmicGuardError:
    """Return the error that a foreign exception means to a user. It does not hold the exception."""
    if isinstance(exc, SigmicGuardError):
        return exc
    if attempt.body is not None and attempt.body.failed_file is not None:
        name = attempt.body.failed_file.name
        return ConnectionFailed(
            f"The file {name!r} changed or vanished while it was being sent.", sent=True
        )
    if not attempt.connected:
        return failures.no_connection(exc, attempt.where)
    unreadable = (HttpProcessingError, aiohttp.ClientResponseError)
    # A body that cannot be decompressed aiohttp tells as one that did not come.
    wrapped = isinstance(exc.__cause__ or exc.__context__, ContentEncodingError)
    if wrapped or isinstance(exc, unreadable):
        return failures.no_http()
    return failures.broken(exc)


class AiohttpTransport:
    """A session with its connections. It belongs to the event loop of its first request.

    :param base_url: where the API is, without a trailing slash.
    :param credential: ``None`` until :meth:`use` is called.
    :param connections: how many there may be at once; 0 for no limit. Further calls wait, within
        their time-outs.
    :param on_request: called with method, route, status and seconds after each call.
    """

    def __init__(
        self,
        base_url: str,
        credential: Credential | None,
        *,
        connections: int,
        accept_encoding: str,
        on_request: OnRequest | None = None,
    ) -> None:
        self._base_url = base_url
        self._credential = credential
        self._connections = connections
        self._accept_encoding = accept_encoding
        self._on_request = on_request
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[Attempt] = set()
        self.closed = False

    def use(self, credential: Credential) -> None:
        """Send another credential from the next request on."""
        self._credential = credential
        if self._session is not None:
            self._session.headers.update(credential.headers)

    async def call(
        self, method: str, route: str, path: str, *, timeout: float, body: Body | None = None
    ) -> Answer:
        """Send a request and return its answer. See :class:`ControlTransport`."""
        return await self.fetch(method, route, path, timeout=timeout, body=body, read=read_answer)

    async def fetch(
        self,
        method: str,
        route: str,
        path: str,
        *,
        timeout: float,
        read: Callable[[aiohttp.ClientResponse], Awaitable[ReadT]],
        body: Body | None = None,
    ) -> ReadT:
        """Send a request, and return what ``read`` makes of the response, whatever its status.

        :param route: the path with placeholders, for ``on_request``.
        :param path: below the base URL, and encoded.
        :param timeout: seconds for all of it, ``read`` included.
        :raises ConnectionFailed: no complete answer came. The connection is dropped.
        :raises ProtocolError: what came was not HTTP. The connection is dropped.
        """
        if self.closed:
            raise failures.closed()
        # Encoded: yarl must not undo %2F and the like.
        url = URL(self._base_url + path, encoded=True)
        attempt = Attempt(body, f"{url.host}:{url.port}")
        outcome = "cancelled"
        response: aiohttp.ClientResponse | None = None
        failure: SigmicGuardError
        scope = asyncio.timeout(timeout)
        token = _ATTEMPT.set(attempt)
        self._under_way.add(attempt)
        started = perf_counter() if self._on_request else 0.0
        try:
            async with scope:
                response = await self._send(method, url, body)
                result = await read(response)
        except FOREIGN as exc:
            if scope.expired() and isinstance(exc, TimeoutError):
                outcome = "timeout"
                failure = failures.too_slow(timeout, sent=attempt.connected)
            else:
                outcome = "connection"
                failure = (
                    failures.closed_under_way(sent=attempt.connected)
                    if self.closed
                    else translate(exc, attempt)
                )
        except asyncio.CancelledError as exc:
            if not self.closed or _is_cancelled():
                # Unchanged, but for the frames below: they hold the request.
                raise exc.with_traceback(None)  # noqa: B904
            # Nobody cancelled: that is how a closing pool tells those who wait for a place.
            outcome = "connection"
            failure = failures.closed_under_way(sent=attempt.connected)
        else:
            outcome = str(response.status)
            return result
        finally:
            _ATTEMPT.reset(token)
            self._under_way.discard(attempt)
            if outcome in _UNFINISHED and response is not None:
                response.close()
            response = None  # its repr shows headers, and tracebacks may be printed with locals
            if self._on_request:
                tell(self._on_request, method, route, outcome, perf_counter() - started)
        try:
            raise failure
        finally:
            del failure  # or its own traceback would hold it, and only the collector free it

    async def _send(self, method: str, url: URL, body: Body | None) -> aiohttp.ClientResponse:
        """Return the response once its head is there. Redirects are not followed."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise failures.another_loop()
        if self._session is None:
            self._loop = loop
            headers = {} if self._credential is None else self._credential.headers
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=self._connections, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers
                | {"Accept-Encoding": self._accept_encoding, "User-Agent": USER_AGENT},
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
            # What is sent twice is for those to decide who know what it does.
            self._session._retry_connection = False  # noqa: SLF001
        data = None if body is None else BodyPayload(body)
        return await self._session.request(
            method, url, data=data, headers=trace_headers.get(), allow_redirects=False
        )

    async def aclose(self) -> None:
        """Close every connection, within a second. Calls under way fail; so does any later one."""
        self.closed = True
        session, self._session = self._session, None
        for attempt in self._under_way:
            # Closing in good order would first wait for a peer that may take no bytes.
            if attempt.transport is not None:
                attempt.transport.abort()
        if session is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_MAX_CLOSE):
                    await session.close()


async def read_answer(response: aiohttp.ClientResponse) -> Answer:
    """Read a response to its end, or as far as it makes sense."""
    limit = MAX_JSON if 200 <= response.status < 300 else MAX_REFUSAL
    retry_after = response.headers.get("Retry-After")
    chunks = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > limit:
            response.close()
            return Answer(response.status, None, retry_after)
        chunks.append(chunk)
    return Answer(response.status, b"".join(chunks), retry_after)


def _is_cancelled() -> bool:
    """Whether anybody asked for the running task's cancellation, and has not taken it back."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
