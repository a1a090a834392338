"""A response that streams what a task does: :class:`TaskStream`."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Unpack

from anyio import move_on_after

from sigmic_guard import ConfigurationError, Outcome, SupervisorShutdown, TaskError, TaskEvent
from sigmic_guard.integrations import sse
from sigmic_guard.lifecycle.values import check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from sigmic_guard import RemoteTask, TaskEvents, TaskOptions, TaskResult
    from sigmic_guard.integrations.asgi.protocol import Message, Receive, Scope, Send
    from sigmic_guard.integrations.requests import OnDisconnect, RequestTasks

    class StreamOptions(TaskOptions, total=False):
        """Options of the task, and what becomes of it when the client hangs up."""

        on_disconnect: OnDisconnect | None

    #: Returns what is sent for an event; ``None`` for nothing.
    Encode = Callable[[TaskEvent], bytes | str | None]

#: Seconds for the last event, to a client that may not read.
LAST_WORDS: Final = 1.0
_BY_ITSELF: Final = frozenset({Outcome.COMPLETED, Outcome.FAILED})


class TaskStream:
    """A response that creates a task, and sends its events as they come: an ASGI application.

    The task begins with the response, and is ended when that ends, however it does: there is no
    generator that could be left behind. The status is 200 once the task exists; an error before
    that is raised as :meth:`RequestTasks.task` would. The first event is ``start``, with the task's
    ``id``, for a cancel button. The last one tells the end: ``end``, with ``outcome`` and, where it
    was cancelled, ``reason``; or the farewell, where the service shuts down.

    Given a ``task`` that exists already, it creates none, and streams what that one says, its
    history first. It owns the task only if the request does, by :meth:`RequestTasks.adopt`; of
    another one it shows what happens, and a client that hangs up changes nothing.

    :param tasks: of the request.
    :param message: what the task is asked to do; with ``task``, a follow-up that is sent to it, or
        ``None`` for none.
    :param task: the one to be streamed; default: a new one.
    :param encode: returns what is sent for an event, ``None`` for nothing; default: server-sent
        events of the same names, their data as JSON, without what a reconnect repeats.
    :param heartbeat: seconds of silence after which a comment is sent, at least 1; default 15.
        ``None`` sends none.
    :param farewell: what is sent last where the service shuts down; default: an event
        ``shutdown``, with ``retry_after``.
    :param options: those of :meth:`RequestTasks.task`, for a new task.
    :raises ConfigurationError: ``heartbeat`` is too short; there is neither ``message`` nor
        ``task``; or ``options`` are given with a task that has its own.
    """

    #: Set another one with an ``encode`` that makes no server-sent events.
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
        **options: Unpack[StreamOptions],
    ) -> None:
        if task is None and message is None:
            raise ConfigurationError("give a message, or the task that is to be streamed")
        if task is not None and options:
            raise ConfigurationError(
                "a task that exists has its options: give on_disconnect to tasks.adopt()"
            )
        self._tasks = tasks
        self._message = message
        self._task = task
        self._encode = encode
        self._heartbeat = (
            inf if heartbeat is None else check_seconds("heartbeat", heartbeat, least=1.0)
        )
        self._farewell = farewell
        self._options = options
        self.status_code = 200
        #: Of the response; names in lower case.
        self.raw_headers = [
            (b"content-type", self.media_type.encode("latin-1")),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx passes on what comes
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Do :meth:`respond`, as an ASGI application."""
        await self.respond(send)

    async def respond(self, send: Send) -> None:
        """Send what the task does, from its start to its end; a new one is created, and ended."""
        writer = _Writer(send, self._tasks)
        try:
            if self._task is None:
                assert self._message is not None
                async with self._tasks.task(self._message, **self._options) as task:
                    await self._stream(task, writer)
                    end: RemoteTask | TaskResult = await task.wait()
            else:
                self._tasks.listen()
                if self._message is not None:
                    await self._task.send(self._message)
                await self._stream(self._task, writer)
                end = await self._until_over(self._task)
        except SupervisorShutdown:
            if not writer.started:
                raise
            self._tasks.cut = False  # it says so itself
            await writer.finish(self._last_words())
        except TaskError as error:
            if not writer.started or error.result is None:
                raise
            await self._tell_end(error.result, writer)
        else:
            await self._tell_end(end, writer)

    async def _stream(self, task: RemoteTask, writer: _Writer) -> None:
        events = task.events()
        self._tasks.listen(events.close)
        await writer.start(self.status_code, self.raw_headers)
        await writer.write(self._encode(TaskEvent("start", {"id": task.id})))
        try:
            while not self._tasks.disconnected:
                event = await self._next(events, writer)
                if event is None:
                    break
                await writer.write(self._encode(event))
        finally:
            events.close()

    async def _next(self, events: TaskEvents, writer: _Writer) -> TaskEvent | None:
        """Return the next event, ``None`` after the last one."""
        while True:
            with move_on_after(self._heartbeat):
                return await anext(events, None)
            await writer.write(sse.HEARTBEAT)

    async def _until_over(self, task: RemoteTask) -> RemoteTask:
        """Wait for the end of a task that has no block here, no longer than a block would.

        :raises SupervisorShutdown: the service shuts down, and it did not end before.
        """
        if self._tasks.supervisor.draining and task.outcome not in _BY_ITSELF:
            raise SupervisorShutdown("the supervisor shut down")
        if not self._tasks.disconnected:
            patience = None if task.reason is None else task.record.policy.cancel_wait
            with move_on_after(patience):
                await task.wait()
        return task

    async def _tell_end(self, task: RemoteTask | TaskResult, writer: _Writer) -> None:
        end = {"outcome": task.outcome or Outcome.CANCELLED, "reason": task.reason}
        await writer.finish(self._encode(TaskEvent("end", end)))

    def _last_words(self) -> bytes | str | None:
        if self._farewell is None and self.media_type == sse.MEDIA_TYPE:
            return sse.farewell_bytes(self._tasks.retry_after)
        return self._farewell


class _Writer:
    """Sends a response in pieces, as long as somebody is there."""

    def __init__(self, send: Send, tasks: RequestTasks) -> None:
        self._send = send
        self._tasks = tasks
        self.started = False

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._pass({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes | str | None) -> None:
        if piece is not None:
            await self._pass(_body(piece, more=True))

    async def finish(self, piece: bytes | str | None) -> None:
        with move_on_after(LAST_WORDS):
            await self._pass(_body(piece or b"", more=False))

    async def _pass(self, message: Message) -> None:
        if self._tasks.disconnected:
            return
        try:
            await self._send(message)
        except OSError:  # so some hosts say that the client is gone
            self._tasks.hang_up()


def _body(piece: bytes | str, *, more: bool) -> Message:
    body = piece.encode() if isinstance(piece, str) else piece
    return {"type": "http.response.body", "body": body, "more_body": more}
