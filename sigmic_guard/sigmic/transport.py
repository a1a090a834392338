"""The one door to the network, and the funnel that no aiohttp exception gets past.

aiohttp's exceptions and frames carry request headers, and so the credential. Hence what is raised
here is raised outside of any ``except``, with neither cause nor context, and a cancellation passes
with its traceback cut off at this module.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from sigmic_guard.errors import (
    ConfigurationError,
    ConnectionFailed,
    ProtocolError,
    SigmicGuardError,
)
from sigmic_guard.sigmic.responses import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from yarl import URL

    from sigmic_guard.sigmic.bodies import Body
    from sigmic_guard.sigmic.credentials import Credential

    #: Method, route, status (or "timeout", "connection", "cancelled"), seconds.
    OnRequest = Callable[[str, str, str, float], None]

__all__ = ["FOREIGN", "Attempt", "Transport", "read_answer", "trace_headers", "translate"]

ReadT = TypeVar("ReadT")

#: Bytes of a JSON body, decompressed.
MAX_JSON: Final = 16 * 1024 * 1024
#: Bytes of a refusal: an envelope is small, and a gateway's page is not read on.
_MAX_REFUSAL: Final = 64 * 1024
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

    __slots__ = ("body", "connected", "transport", "where")

    def __init__(self, body: Body | None = None, where: str = "") -> None:
        self.body = body
        #: The host and port that it goes to, for messages.
        self.where = where
        #: Whether a connection was ever had. While not, not a byte of the request has left.
        self.connected = False
        self.transport: asyncio.Transport | None = None


#: The common ones, in plain words.
_REASONS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNRESET: "connection reset",
    errno.ETIMEDOUT: "connecting timed out",
}

_UNFINISHED: Final = frozenset({"cancelled", "connection", "timeout"})
#: ``traceparent`` and ``tracestate`` of the requests that are sent in this context, if they belong
#: to a trace; they go beside the client's own headers.
trace_headers: Final[ContextVar[Mapping[str, str] | None]] = ContextVar(
    "sigmic_guard_trace_headers", default=None
)
_ATTEMPT: Final[ContextVar[Attempt]] = ContextVar("sigmic_guard_attempt")


class _Connector(aiohttp.TCPConnector):
    """Tells the attempt when it is given a connection: TLS shaken, out of the pool's queue."""

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        attempt = _ATTEMPT.get()
        attempt.connected = True
        attempt.transport = connection.transport
        return connection


def translate(exc: BaseException, attempt: Attempt) -> SigmicGuardError:
    """Return the error that a foreign exception means to a user. It does not hold the exception."""
    if isinstance(exc, SigmicGuardError):
        return exc
    if attempt.body is not None and attempt.body.failed_file is not None:
        name = attempt.body.failed_file.name
        return ConnectionFailed(
            f"The file {name!r} changed or vanished while it was being sent.", sent=True
        )
    kind = type(exc).__name__
    if not attempt.connected:
        return ConnectionFailed(_no_connection(exc, attempt), sent=False)
    if isinstance(exc, (HttpProcessingError, aiohttp.ClientResponseError)):
        return ProtocolError(f"The API's answer is no readable HTTP ({kind}).")
    return ConnectionFailed(
        f"The connection broke before the answer was complete ({kind}).", sent=True
    )


def _no_connection(exc: BaseException, attempt: Attempt) -> str:
    """Say why there is no connection, in the words of the system, without the exception's text."""
    where = f"No connection to {attempt.where or 'the API'} could be made"
    kind = type(exc).__name__
    error = _system_error(exc)
    if error is None or error.errno is None:
        return f"{where} ({kind})."
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        whose = "this process" if error.errno == errno.EMFILE else "this machine"
        return (
            f"{where}: {whose} is out of file descriptors ({errno.errorcode[error.errno]}). Raise "
            "the limit (ulimit -n), or run fewer tasks at once (max_tasks=…)."
        )
    if isinstance(error, socket.gaierror):
        return f"{where}: no such name, or no answer from the name service ({kind})."
    word = errno.errorcode.get(error.errno, str(error.errno))
    reason = _REASONS.get(error.errno) or os.strerror(error.errno)
    return f"{where}: {reason} ({word})."


def _system_error(exc: BaseException) -> OSError | None:
    """Return what the system said, which may be wrapped, or one of several addresses' answers."""
    waiting: list[BaseException | None] = [exc]
    seen = set[int]()
    found: OSError | None = None
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        if isinstance(link, OSError) and link.errno is not None:
            if link.errno in {errno.EMFILE, errno.ENFILE} or isinstance(link, socket.gaierror):
                return link
            found = found or link
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
        waiting += [getattr(link, "os_error", None), link.__cause__, link.__context__]
    return found


class Transport:
    """A session with its connections. It belongs to the event loop of its first request.

    :param credential: ``None`` until :meth:`use` is called.
    :param connections: how many there may be at once; 0 for no limit. Further calls wait, within
        their time-outs.
    :param on_request: called with method, route, status and seconds after each call.
    """

    def __init__(
        self,
        credential: Credential | None,
        *,
        connections: int,
        accept_encoding: str,
        on_request: OnRequest | None = None,
    ) -> None:
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
        self,
        method: str,
        route: str,
        url: URL,
        *,
        timeout: float,
        read: Callable[[aiohttp.ClientResponse], Awaitable[ReadT]],
        body: Body | None = None,
    ) -> ReadT:
        """Send a request, and return what ``read`` makes of the response, whatever its status.

        :param route: the path with placeholders, for ``on_request``.
        :param timeout: seconds for all of it, ``read`` included.
        :raises ConnectionFailed: no complete answer came. The connection is dropped.
        :raises ProtocolError: what came was not HTTP. The connection is dropped.
        """
        if self.closed:
            raise ConnectionFailed("The client is closed.", sent=False)
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
                failure = _too_slow(timeout, attempt)
            else:
                outcome = "connection"
                failure = translate(exc, attempt)
        except asyncio.CancelledError as exc:
            if not self.closed or _is_cancelled():
                # Unchanged, but for the frames below: they hold the request.
                raise exc.with_traceback(None)  # noqa: B904
            # Nobody cancelled: that is how a closing pool tells those who wait for a place.
            outcome = "connection"
            failure = ConnectionFailed("The client was closed.", sent=attempt.connected)
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
                _tell(self._on_request, method, route, outcome, perf_counter() - started)
        try:
            raise failure
        finally:
            del failure  # or its own traceback would hold it, and only the collector free it

    async def _send(self, method: str, url: URL, body: Body | None) -> aiohttp.ClientResponse:
        """Return the response once its head is there. Redirects are not followed."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise ConfigurationError("A client belongs to one event loop: make another one.")
        if self._session is None:
            self._loop = loop
            headers = {} if self._credential is None else self._credential.headers
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=self._connections, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers | {"Accept-Encoding": self._accept_encoding},
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return await self._session.request(
            method, url, data=body, headers=trace_headers.get(), allow_redirects=False
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
    limit = MAX_JSON if 200 <= response.status < 300 else _MAX_REFUSAL
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


def _tell(on_request: OnRequest, method: str, route: str, status: str, seconds: float) -> None:
    """Call somebody else's function, which must not decide what becomes of a request."""
    try:
        on_request(method, route, status, seconds)
    except Exception as exc:  # noqa: BLE001 - a user's
        asyncio.get_running_loop().call_exception_handler(
            {"message": "on_request raised", "exception": exc}
        )


def _is_cancelled() -> bool:
    """Whether anybody asked for the running task's cancellation, and has not taken it back."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _too_slow(timeout: float, attempt: Attempt) -> ConnectionFailed:
    what = "answer" if attempt.connected else "connection"
    return ConnectionFailed(
        f"There was no {what} within {timeout:g} seconds.",
        sent=attempt.connected,
        timed_out=True,
    )
