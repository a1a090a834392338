"""Who has which connection, and whose turn it is.

A call holds a *place* from before it has a connection until after it has given that back, and there
are as many as there may be connections. Whoever takes a place uses an idle connection if there is
one, and has one made only if there is none: so there are never more connections than places.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from sigmic_guard.sigmic import failures
from sigmic_guard.sigmic.wire.connection import KEEP_ALIVE, Connection
from sigmic_guard.sigmic.wire.deadlines import Deadlines, End
from sigmic_guard.sigmic.wire.dialing import FOREIGN, Dialer

if TYPE_CHECKING:
    from contextvars import Context

    from sigmic_guard.errors import ConnectionFailed

    #: Emptied by whoever is told, so that it does not keep an error: see :class:`End`.
    Made = list[Connection | ConnectionFailed]

__all__ = ["Pool"]

#: Seconds that closing may take.
_MAX_CLOSE: Final = 1.0


class Pool:
    """The connections to one base URL, in one event loop.

    :param places: how many there may be at once; 0 for no limit.
    :param context: what they run in. It is nobody's who happens to need one first.
    """

    def __init__(self, base_url: str, places: int, context: Context) -> None:
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop, context)
        self._dialer = Dialer(base_url, self.loop)
        self._free = places or inf
        #: Who waits for a place, in their order; told ``None`` when it is theirs.
        self._waiting: OrderedDict[asyncio.Future[End | None], None]
        self._waiting = OrderedDict()
        #: The one that was used last is at the end, and is used next.
        self._idle: deque[Connection] = deque()
        self._connections: set[Connection] = set()
        self._dialing: set[asyncio.Task[None]] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None
        self._context = context
        self._closed = False

    @property
    def where(self) -> str:
        """The host and the port, for messages."""
        return self._dialer.where

    def enter(self) -> bool:
        """Take a place, if there is one; then :meth:`leave` must follow."""
        if self._free < 1:
            return False
        self._free -= 1
        return True

    async def wait(self, until: float) -> End | None:
        """Take a place when it is one's turn; ``None`` if that came, and nothing is held else."""
        place: asyncio.Future[End | None] = self.loop.create_future()
        self._waiting[place] = None
        self.deadlines.add(place, until)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result() is None:
                self._hand_on()
            raise
        finally:
            self._waiting.pop(place, None)
            self.deadlines.discard(place, until)

    def draw(self) -> Connection | None:
        """Return an idle connection that may be used, if there is one. For who has a place."""
        oldest = self.loop.time() - KEEP_ALIVE
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.quiet:
                return connection
            connection.abort()
        return None

    async def dial(self, until: float) -> Connection | ConnectionFailed | End:
        """Make a connection, or say why there is none. For who has a place."""
        if self._closed:
            return End.CLOSED
        made: asyncio.Future[Made | End] = self.loop.create_future()
        task = self.loop.create_task(self._dial(made), context=self._context)
        self._dialing.add(task)
        task.add_done_callback(partial(self._dialed, made))
        self.deadlines.add(made, until)
        try:
            result = await made
            return result if isinstance(result, End) else result.pop()
        finally:
            task.cancel()
            self.deadlines.discard(made, until)
            if made.done() and not made.cancelled():
                _drop(made.result())  # which was made for one that was cancelled at that moment

    def leave(self, connection: Connection | None) -> None:
        """Give the place back, with the connection that one had."""
        if connection is not None:
            if connection.reusable:
                connection.idle_since = self.loop.time()
                self._idle.append(connection)
                if self._sweep_timer is None:
                    self._sweep_at(connection.idle_since + KEEP_ALIVE)
            else:
                connection.abort()
        self._hand_on()

    async def aclose(self) -> None:
        """Drop everything, within a second; whoever waits or calls learns so."""
        self._closed = True
        for place in self._waiting:
            if not place.done():
                place.set_result(End.CLOSED)
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self.deadlines.close()
        self._idle.clear()
        with suppress(RuntimeError):  # the loop is closed, and so is all that was in it
            for task in self._dialing:
                task.cancel()
            for connection in tuple(self._connections):
                connection.close()
        if self.loop is not asyncio.get_running_loop():
            return
        waiting: set[asyncio.Future[None]] = set(self._dialing)
        if self._connections:
            self._gone = self.loop.create_future()
            waiting.add(self._gone)
        if waiting:
            await asyncio.wait(waiting, timeout=_MAX_CLOSE)

    def _hand_on(self) -> None:
        """Give a place to whoever has waited for it the longest."""
        while self._waiting:
            place, _ = self._waiting.popitem(last=False)
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    async def _dial(self, made: asyncio.Future[Made | End]) -> None:
        result: Connection | ConnectionFailed
        try:
            result = await self._dialer.dial(lambda: Connection(self.loop, self._forget))
        except FOREIGN as exc:
            result = failures.no_connection(exc, self._dialer.where)
        except Exception as exc:  # noqa: BLE001 - a bug, for whoever waits
            if not made.done():
                made.set_exception(exc)
            return
        if isinstance(result, Connection) and result.open:
            self._connections.add(result)
        if not made.done():
            made.set_result([result])
        elif isinstance(result, Connection):
            result.abort()

    def _dialed(self, made: asyncio.Future[Made | End], task: asyncio.Task[None]) -> None:
        """Tell whoever waits, where the task has not: it may have been cancelled unbegun."""
        self._dialing.discard(task)
        if not made.done():
            made.set_result(End.CLOSED)

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._gone is not None and not self._connections and not self._gone.done():
            self._gone.set_result(None)

    def _sweep_at(self, when: float) -> None:
        self._sweep_timer = self.loop.call_at(when, self._sweep, context=self._context)

    def _sweep(self) -> None:
        """Drop what nobody has used for long."""
        self._sweep_timer = None
        now = self.loop.time()
        while self._idle and self._idle[0].idle_since <= now - KEEP_ALIVE:
            self._idle.popleft().abort()
        if self._idle:
            self._sweep_at(self._idle[0].idle_since + KEEP_ALIVE)


def _drop(made: Made | End) -> None:
    for connection in () if isinstance(made, End) else made:
        if isinstance(connection, Connection):
            connection.abort()
