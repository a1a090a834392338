"""The remote system over HTTP: one method for each of its endpoints.

Source: the API page, "Endpoints".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeVar, get_args

import msgspec

from sigmic_guard.errors import ApiError, ConfigurationError, ProtocolError
from sigmic_guard.lifecycle.text import tidy_status
from sigmic_guard.lifecycle.values import (
    check_callable,
    check_choice,
    check_count,
    check_paths,
    check_seconds,
    plain,
)
from sigmic_guard.sigmic.bodies import json_body
from sigmic_guard.sigmic.control import TransportKind
from sigmic_guard.sigmic.keyring import FIRST_TIMEOUT, Keyring
from sigmic_guard.sigmic.models import TaskPage
from sigmic_guard.sigmic.reading import read_info, read_infos, read_pagination, tidy
from sigmic_guard.sigmic.requests import (
    check_create,
    check_files,
    check_message,
    check_outcome,
    create_body,
    send_body,
)
from sigmic_guard.sigmic.responses import Answer, Envelope, decode, read_refusal, read_success
from sigmic_guard.sigmic.sending import explained, send
from sigmic_guard.sigmic.stream import SigmicEventStream, read_head
from sigmic_guard.sigmic.transport import AiohttpTransport
from sigmic_guard.sigmic.urls import TASKS, check_base_url, is_id, task_path
from sigmic_guard.sigmic.wire import WireTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from sigmic_guard.sigmic.api import ApprovalOutcome
    from sigmic_guard.sigmic.bodies import Body
    from sigmic_guard.sigmic.control import ControlTransport
    from sigmic_guard.sigmic.credentials import Redactor
    from sigmic_guard.sigmic.keyring import ApiKey
    from sigmic_guard.sigmic.models import CreateRequest, TaskInfo

__all__ = ["SigmicClient"]

T = TypeVar("T")

_TASK: Final = f"{TASKS}/{{id}}"
_CANCELLED: Final = "Task cancelled"


class _Created(msgspec.Struct, frozen=True):
    id: str


class _Message(msgspec.Struct, frozen=True):
    message: str


class _Sent(msgspec.Struct, frozen=True):
    status: str


class _Approved(msgspec.Struct, frozen=True):
    approved: bool


_CREATED: Final = msgspec.json.Decoder(_Created)
_MESSAGE: Final = msgspec.json.Decoder(_Message)
_SENT: Final = msgspec.json.Decoder(_Sent)
_APPROVED: Final = msgspec.json.Decoder(_Approved)


class SigmicClient:
    """Speaks to the Sigmic Task API; implements :class:`~sigmic_guard.sigmic.api.TaskApi`.

    Connections are made on first use, in the running event loop, and belong to it. Event streams
    have connections of their own, so that they can never keep a cancellation waiting. Every method
    is bounded by its ``timeout`` in seconds, and raises :class:`~sigmic_guard.errors.ApiError` for
    a refusal, ``ProtocolError`` for an answer that is not as documented, ``ConnectionFailed`` for
    none, and ``ConfigurationError`` for arguments that cannot be right, before anything is sent.

    :param api_key: a credential, or a callable, plain or async, that gives one. It is asked before
        the first request, and again when the API answers 401 in its own words, once at a time and
        at most every 5 seconds, for 10 seconds; the request is then sent once more. Default: the
        environment's ``SIGMIC_API_KEY``.
    :param base_url: defaults to ``SIGMIC_BASE_URL``, and then to the public API.
    :param account: names whose tasks these are, where credentials come and go; default: the
        environment's ``SIGMIC_ACCOUNT``. See :attr:`credential_fingerprint`.
    :param on_request: called with method, route (``/api/v1/tasks/{id}``), status (``"200"``, or
        ``"timeout"``, ``"connection"``, ``"cancelled"``) and seconds after each request.
        What it raises goes to the loop's exception handler: the request is what it was.
    :param connections: for all that are not streams; further calls wait for one. 0 for no limit.
        Uploads have as many of their own, unless ``transport`` is ``"aiohttp"``.
    :param stream_connections: for streams; 0 for no limit.
    :param transport: what carries all that are neither streams nor uploads: ``"wire"``, HTTP/1.1 on
        httptools, or ``"aiohttp"``, which carries those two in either case.
    :raises ConfigurationError: no or no possible API key, or base URL; or an argument of another
        kind.
    """

    def __init__(
        self,
        api_key: ApiKey | Keyring | None = None,
        base_url: str | None = None,
        *,
        account: str | None = None,
        on_request: Callable[[str, str, str, float], None] | None = None,
        connections: int = 100,
        stream_connections: int = 0,
        transport: TransportKind = "wire",
    ) -> None:
        try:
            self._keyring = Keyring.of(api_key, account)
            self._base_url = check_base_url(base_url)
        finally:
            # A traceback that is printed with its locals must not show them.
            del api_key, base_url
        on_request = check_callable("on_request", on_request)
        kind = check_choice("transport", transport, get_args(TransportKind))
        connections = check_count("connections", connections, least=0)
        self._uploads = AiohttpTransport(
            self._base_url,
            self._keyring.credential,
            connections=connections,
            accept_encoding="gzip, deflate",
            on_request=on_request,
        )
        self._control: ControlTransport = self._uploads
        if kind == "wire":
            self._control = WireTransport(
                self._base_url,
                self._keyring.credential,
                connections=connections,
                on_request=on_request,
            )
        self._streams = AiohttpTransport(
            self._base_url,
            self._keyring.credential,
            connections=check_count("stream_connections", stream_connections, least=0),
            accept_encoding="identity",  # a compressor would hold events back
            on_request=on_request,
        )

        self._keyring.listeners += [self._control.use, self._uploads.use, self._streams.use]

    def __repr__(self) -> str:
        # A traceback with locals asks for it also where __init__ raised.
        fields = vars(self)
        return f"SigmicClient({fields.get('_base_url')!r}, {fields.get('_keyring')!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A SigmicClient cannot be pickled or copied: it holds connections.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def base_url(self) -> str:
        """Where the API is, without a trailing slash."""
        return self._base_url

    @property
    def credential_fingerprint(self) -> str:
        """A short hash that tells one account or credential from another and gives none away.

        It never changes: without an account it is that of the first credential.

        :raises ConfigurationError: it depends on a callable that was not asked yet.
        """
        return self._keyring.fingerprint

    async def authenticate(self, *, timeout: float = FIRST_TIMEOUT) -> None:
        """Have a credential; the first request does so too, within its own ``timeout``.

        :raises ConfigurationError: ``api_key`` is a callable that gave none.
        """
        await self._keyring.ready(check_seconds("timeout", timeout))

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        """Create a task and return its id. The POST is sent once.

        After ``ConnectionFailed(sent=True)``, ``ProtocolError`` or ``ServerError`` the task may
        exist all the same.
        """
        check_create(request)
        body = create_body(request, await check_files(request.files))
        redact = self._keyring.redact
        created = await self._call(
            "POST",
            TASKS,
            TASKS,
            _CREATED,
            timeout=timeout,
            body=body,
            redact=redact.hiding(request.secrets.values()) if request.secrets else redact,
        )
        if not is_id(created.id):
            raise ProtocolError("The API created a task without a usable id.", status=200)
        return created.id

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        """Read a task. An answer about another task is a ``ProtocolError``."""
        task_id = plain(task_id)
        envelope = await self._fetch("GET", _TASK, task_path(task_id), timeout=timeout)
        info = _unwrap(read_info(envelope.data, 200))
        if info.id != task_id:
            raise ProtocolError(
                "The API answered with another task than was asked for.", status=200
            )
        return tidy(info, self._keyring.redact)

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        """Read one page of the list, most recent activity first. ``limit`` is at most 100."""
        limit, offset = check_count("limit", limit), check_count("offset", offset, least=0)
        if limit > 100:
            raise ConfigurationError("limit must be 1 to 100.")
        path = f"{TASKS}?limit={limit}&offset={offset}"
        envelope = await self._fetch("GET", TASKS, path, timeout=timeout)
        infos, scraps = _unwrap(read_infos(envelope.data, 200))
        tasks = [tidy(info, self._keyring.redact) for info in infos]
        total, has_more = read_pagination(envelope.pagination)
        return TaskPage(
            tasks=tasks,
            total=total,
            # A full page, and no word on what follows: there may be more.
            has_more=len(tasks) + len(scraps) >= limit if has_more is None else has_more,
            scraps=scraps,
        )

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        """Cancel a task; ``True`` if the answer is the documented one.

        ``False`` for whatever else came with a 2xx: what it means, only GET can tell.
        """
        answer = await send(
            self._keyring,
            self._control.call,
            "DELETE",
            _TASK,
            task_path(task_id),
            timeout=timeout,
        )
        envelope = read_success(answer, self._keyring.redact)
        if isinstance(envelope, ProtocolError) and 200 <= answer.status < 300:
            return False
        if not isinstance(envelope, Envelope):
            try:
                raise explained(envelope, self._keyring)
            finally:
                del envelope  # see _unwrap
        done = decode(envelope.data, _MESSAGE, answer.status)
        return isinstance(done, _Message) and done.message == _CANCELLED

    async def send(
        self, task_id: str, message: str, *, files: Sequence[Path] = (), timeout: float
    ) -> str:
        """Send a follow-up message and return the task's status. The POST is sent once."""
        message, paths = plain(message), check_paths("files", files)
        check_message(message, paths)
        path = task_path(task_id, "messages")
        body = send_body(message, await check_files(paths))
        route = f"{_TASK}/messages"
        sent = await self._call("POST", route, path, _SENT, timeout=timeout, body=body)
        return tidy_status(self._keyring.redact(sent.status))

    async def approve(
        self, task_id: str, call_id: str, outcome: ApprovalOutcome, *, timeout: float
    ) -> bool:
        """Decide on a tool call; ``True`` if it was approved. The POST is sent once."""
        outcome = check_outcome(outcome)
        path = task_path(task_id, "tools", call_id, "approve")
        body = json_body({"outcome": outcome})
        route = f"{_TASK}/tools/{{callId}}/approve"
        done = await self._call("POST", route, path, _APPROVED, timeout=timeout, body=body)
        return done.approved

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> SigmicEventStream:
        """Open the event stream; it breaks after ``silence`` seconds without a byte.

        ``timeout`` bounds the opening only. The caller must close the stream.
        """
        silence = check_seconds("silence", silence)
        opened = await send(
            self._keyring,
            partial(self._streams.fetch, read=read_head),
            "GET",
            f"{_TASK}/stream",
            task_path(task_id, "stream"),
            timeout=timeout,
        )
        if isinstance(opened, Answer):
            raise explained(read_refusal(opened, self._keyring.redact), self._keyring)
        if isinstance(opened, ProtocolError):
            try:
                raise opened
            finally:
                del opened  # see _unwrap
        return SigmicEventStream(opened, self._streams, silence=silence)

    async def aclose(self) -> None:
        """Close every connection. Calls under way fail; so does any later one."""
        await self._keyring.aclose()
        await self._streams.aclose()
        await self._control.aclose()
        await self._uploads.aclose()

    async def _call(
        self,
        method: str,
        route: str,
        path: str,
        decoder: msgspec.json.Decoder[T],
        *,
        timeout: float,
        body: Body | None = None,
        redact: Redactor | None = None,
    ) -> T:
        """Send a request and return the decoded ``data`` of its success."""
        envelope = await self._fetch(method, route, path, timeout=timeout, body=body, redact=redact)
        decoded = decode(envelope.data, decoder, 200)
        return _unwrap(decoded)

    async def _fetch(
        self,
        method: str,
        route: str,
        path: str,
        *,
        timeout: float,
        body: Body | None = None,
        redact: Redactor | None = None,
    ) -> Envelope:
        transport = self._control if body is None or not body.has_files else self._uploads
        answer = await send(
            self._keyring,
            transport.call,
            method,
            route,
            path,
            timeout=timeout,
            body=body,
        )
        envelope = read_success(answer, redact or self._keyring.redact)
        if not isinstance(envelope, Envelope):
            try:
                raise explained(envelope, self._keyring)
            finally:
                del envelope  # see _unwrap
        return envelope


def _unwrap(result: T | ApiError | ProtocolError) -> T:
    """Return a result, or raise the error that stands in for it.

    An error that a frame of its own traceback holds is freed by the collector alone, and with it
    all that the callers' frames hold: an iterator, say, whose stream stays open until then.
    """
    if isinstance(result, (ApiError, ProtocolError)):
        try:
            raise result
        finally:
            del result
    return result
