"""The one reader of ``receive()``: it hears the client hang up while the application listens not.

A host tells of a hang-up only to who is inside ``receive()``, and two readers would take each
other's messages. So the application reads through a :class:`Receiver`. Once a hang-up matters, and
whenever the application is not reading, a pump reads for it, and keeps what comes within a bound.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sigmic_guard.integrations.asgi.protocol import Message, Receive

#: Bytes, and messages, that are kept for an application that does not read. Then nobody reads: the
#: host stops the client, and a hang-up is heard once the application has read on.
MOST_BYTES: Final = 64 * 1024
MOST_MESSAGES: Final = 64

_DISCONNECTS: Final = frozenset({"http.disconnect", "websocket.disconnect"})


class Receiver:
    """Reads for one request.

    :param receive: the host's.
    :param spawn: runs the pump beside the application; ``False`` if it cannot.
    """

    __slots__ = (
        "_arrived",
        "_buffer",
        "_last",
        "_pumping",
        "_reading",
        "_receive",
        "_scope",
        "_size",
        "_spawn",
        "_wanted",
        "hung_up",
    )

    def __init__(
        self,
        receive: Receive,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], bool],
    ) -> None:
        self._receive = receive
        self._spawn = spawn
        #: Called once when the client has hung up.
        self.hung_up: Callable[[], None] = _no_matter
        self._wanted = False
        #: How many calls of the application's are inside of the host's ``receive()``.
        self._reading = 0
        self._pumping = False
        self._scope: CancelScope | None = None
        self._buffer: deque[Message] | None = None
        self._size = 0
        #: The disconnect: there is nothing after it.
        self._last: Message | None = None
        #: Set when the pump has brought something, or has ended.
        self._arrived: Event | None = None

    async def __call__(self) -> Message:
        """Return the next message: what the application calls as ``receive()``."""
        while True:
            if self._buffer:
                message = self._buffer.popleft()
                self._size -= _size_of(message)
                self._listen()
                return message
            if self._last is not None:
                return self._last
            if not self._pumping:
                return await self._read()
            if self._arrived is None:
                self._arrived = Event()
            await self._arrived.wait()

    async def _read(self) -> Message:
        self._reading += 1
        try:
            message = await self._receive()
            if message["type"] in _DISCONNECTS:
                self._take_last(message)
            return message
        finally:
            self._reading -= 1
            self._listen()

    def listen(self) -> None:
        """From now on hear of a hang-up at once, whether the application reads or not."""
        self._wanted = True
        self._listen()

    def stop(self) -> None:
        """Listen no more: the request is over, or its response complete, and who hangs up may."""
        self._wanted = False
        self.hung_up = _no_matter  # it leads back to us: nothing is left to the collector
        if self._scope is not None:
            self._scope.cancel()

    def _listen(self) -> None:
        if not self._wanted or self._reading or self._pumping or self._last is not None:
            return
        if self._full:
            return
        # Before it runs: who reads in between waits for what it brings.
        self._pumping = True
        if not self._spawn(self._pump):
            self._pumping = False

    async def _pump(self) -> None:
        try:
            with CancelScope() as self._scope:
                while self._wanted and self._last is None and not self._full:
                    self._take(await self._receive())
        except Exception:  # noqa: BLE001 - the application meets it when it reads on
            self._wanted = False
        finally:
            self._scope, self._pumping = None, False
            self._wake()

    def _take(self, message: Message) -> None:
        if message["type"] in _DISCONNECTS:
            self._take_last(message)
        else:
            if self._buffer is None:
                self._buffer = deque()
            self._buffer.append(message)
            self._size += _size_of(message)
        self._wake()

    def _take_last(self, message: Message) -> None:
        if self._last is None:
            self._last = message
            self.hung_up()

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.set()

    @property
    def _full(self) -> bool:
        return self._buffer is not None and (
            self._size >= MOST_BYTES or len(self._buffer) >= MOST_MESSAGES
        )


def _no_matter() -> None:
    pass


def _size_of(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
