"""One connection, which carries one call at a time."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Final, cast

from sigmic_guard.sigmic.wire.deadlines import End
from sigmic_guard.sigmic.wire.reading import AnswerReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sigmic_guard.sigmic.wire.reading import Result

__all__ = ["Connection"]

#: Seconds for which one that nobody uses is kept. Shorter than the 5 s after which common servers
#: hang up: what is sent into a hang-up is lost, and nobody can tell whether it was obeyed.
KEEP_ALIVE: Final = 4.0


class Connection(asyncio.Protocol):
    """Sends a request, and wakes who sent it when there is a result to :meth:`take`.

    :param lost: called once, when there is no connection any more.
    :ivar idle_since: when it was last given back, by the loop's clock.
    """

    __slots__ = ("_answer", "_looker", "_loop", "_lost", "_reader", "_transport", "idle_since")

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[[Connection], None]) -> None:
        self._loop = loop
        self._lost = lost
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[End | None] | None = None
        self._looker = select.poll()
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return "<Connection>"

    # --- what its user does ---------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether a request can be handed to it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def quiet(self) -> bool:
        """Whether the peer has neither hung up nor said anything that nobody asked for.

        The event loop may not have looked at the socket since, so that is asked.
        """
        return self.open and not self._looker.poll(0)

    @property
    def reusable(self) -> bool:
        """Whether the call is over, both ways, and left it fit for another one."""
        return (
            self._reader.reusable
            and self.open
            and self._transport is not None
            and not self._transport.get_write_buffer_size()
        )

    def send(self, request: Iterable[bytes]) -> asyncio.Future[End | None]:
        """Hand a request to an open connection; the future is done, with ``None``, with the result.

        Or before that, if somebody else ends it.
        """
        assert self._transport is not None
        answer = self._answer = self._loop.create_future()
        self._reader.expect()
        for piece in request:
            self._transport.write(piece)
        return answer

    def take(self) -> Result:
        """Return the result, once."""
        return self._reader.take()

    def abort(self) -> None:
        """Drop it at once, with whatever has not been sent."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Do that because the client is closed; a call under way learns so."""
        self._wake(End.CLOSED)
        self.abort()

    # --- what the loop tells --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and watch its socket."""
        self._transport = cast("asyncio.Transport", transport)
        self._looker.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._answer is None or self._answer.done():
            self._reader.reusable = False
            self.abort()  # nobody asked for it
        elif self._reader.feed(data):
            self._wake()

    def eof_received(self) -> None:
        """Read what ends with the connection. The transport then closes by itself."""
        if self._answer is not None and not self._answer.done():
            self._reader.feed_eof()
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make what came the result: it will be no more."""
        if self._answer is not None and not self._answer.done():
            self._reader.feed_eof(exc)
            self._wake()
        self._reader.reusable = False
        self._reader.close()
        self._lost(self)

    def _wake(self, end: End | None = None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(end)
