"""An open event stream: a plain object, with no scope or task hanging on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sigmic_guard.errors import ConnectionFailed, ProtocolError, SigmicGuardError
from sigmic_guard.sigmic.responses import read_retry_after
from sigmic_guard.sigmic.sse import SSEDecoder
from sigmic_guard.sigmic.transport import FOREIGN, Attempt, read_answer, translate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp

    from sigmic_guard.sigmic.responses import Answer
    from sigmic_guard.sigmic.sse import ServerSentEvent
    from sigmic_guard.sigmic.transport import AiohttpTransport

__all__ = ["SigmicEventStream", "read_head"]

_EVENT_STREAM: Final = "text/event-stream"
#: Bytes that are decoded before others get their turn: some hundred events.
SLICE: Final = 16 * 1024
#: Turns in which a loop that stood still may find that the stream was not silent after all: one to
#: read the socket, one to wake receive(), and one more for loops that see to timers first.
DOUBTS: Final = 3


async def read_head(
    response: aiohttp.ClientResponse,
) -> aiohttp.ClientResponse | Answer | ProtocolError:
    """Return an event stream's response with its body unread, or what came in its place."""
    if not 200 <= response.status < 300:
        return await read_answer(response)
    if response.content_type != _EVENT_STREAM:
        response.close()
        retry_after = read_retry_after(response.headers.get("Retry-After"))
        return ProtocolError(
            "The answer is no event stream.", status=response.status, retry_after=retry_after
        )
    return response


class SigmicEventStream:
    """The events of one response. See :class:`~sigmic_guard.sigmic.api.EventStream`.

    :param silence: seconds that :meth:`receive` waits for a byte, be it of a heartbeat.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, transport: AiohttpTransport, *, silence: float
    ) -> None:
        self._response = response
        self._transport = transport
        self._silence = silence
        self._decoder = SSEDecoder()
        #: What was read and not decoded yet, and where that begins.
        self._chunk = b""
        self._next = 0
        self._attempt = Attempt()
        self._attempt.connected = True
        self._loop = asyncio.get_running_loop()
        # One timer, armed again when it goes off early: cheaper than one for each chunk.
        self._timer: asyncio.TimerHandle | None = None
        #: Since when receive() has been waiting for a byte; None while nobody waits.
        self._waiting_since: float | None = None
        self._doubts = 0
        self._silent = False
        #: What broke the connection, while what came before is still being delivered.
        self._broken: SigmicGuardError | None = None
        self._closed = False

    async def receive(self) -> Sequence[ServerSentEvent]:
        """Return the next events, at least one; an empty sequence at the stream's clean end.

        The end proves nothing about the task: where a server announces no length, a broken
        connection ends in the same way. To be called by one task at a time. After a cancellation
        the stream is as it was; after a raise it is closed.

        :raises ConnectionFailed: the stream broke, was silent for too long, or is closed.
        :raises ProtocolError: one event is larger than 8 MiB.
        """
        failure: SigmicGuardError | None = None
        try:
            if self._next < len(self._chunk):
                await asyncio.sleep(0)  # this came with what was returned last
            while not self._closed:
                if self._next >= len(self._chunk) and not await self._read():
                    # Closing the client looks like the server's end.
                    self._closed = self._transport.closed
                    if not self._closed:
                        return ()
                    break
                end = self._next + SLICE
                piece, self._next = self._chunk[self._next : end], end
                if events := self._decoder.feed(piece):
                    return events
        except SigmicGuardError as exc:
            failure = exc.with_traceback(None)
        except FOREIGN as exc:
            failure = self._explain(exc)
        self.close()
        raise failure or ConnectionFailed("The event stream is closed.", sent=True)

    async def _read(self) -> bool:
        """Take what the connection brings, or brought before it broke; ``False`` at its end."""
        if self._broken is not None:
            raise self._broken
        content = self._response.content
        self._wait_from_now()
        try:
            self._chunk = await content.readany()
        except FOREIGN as exc:
            if self._closed:
                raise
            # aiohttp holds back what came before a failure: to a slow consumer that is a lot.
            content.set_exception(None)  # type: ignore[arg-type]
            self._chunk = content.read_nowait()
            if not self._chunk:
                raise
            self._broken = self._explain(exc)
        finally:
            self._waiting_since = None
        self._next = 0
        return bool(self._chunk)

    async def aclose(self) -> None:
        """Drop the connection: the same as :meth:`close`, for ``aclosing`` and its like."""
        self.close()

    def close(self) -> None:
        """Drop the connection at once; a receive() under way raises. Again does nothing."""
        self._closed = True
        self._chunk = b""
        self._response.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _explain(self, exc: BaseException) -> SigmicGuardError:
        if self._silent:
            return ConnectionFailed(
                f"The event stream was silent for {self._silence:g} seconds.",
                sent=True,
                timed_out=True,
            )
        if self._closed:
            return ConnectionFailed("The event stream is closed.", sent=True)
        return translate(exc, self._attempt)

    def _wait_from_now(self) -> None:
        self._doubts = 0
        self._waiting_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._waiting_since + self._silence, self._on_timer)

    def _on_timer(self) -> None:
        """Close the stream, which wakes receive(), if it has waited for too long."""
        self._timer = None
        if self._waiting_since is None:  # the next receive() arms it again
            return
        due = self._waiting_since + self._silence
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._on_timer)
        elif self._doubts < DOUBTS:
            self._doubts += 1
            self._timer = self._loop.call_later(0, self._on_timer)
        else:
            self._silent = True
            self._response.close()
