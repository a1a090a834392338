"""One timer for all that is waited for: one for each call would be dear."""

from __future__ import annotations

import enum
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from contextvars import Context

__all__ = ["Deadlines", "End"]


class End(enum.Enum):
    """Why something is not waited for any more.

    A result of futures, which hold none that is an error: they would keep it, and what its frames
    hold, for as long as the one lives who has been woken.
    """

    EXPIRED = enum.auto()
    CLOSED = enum.auto()


#: Futures whose time is over within one such part of a second are ended together, at its end.
_PER_SECOND: Final = 64
#: Seconds for which a timer is set at most: some loops take no more than a few weeks.
_MAX_SLEEP: Final = 3600.0


class Deadlines:
    """Ends futures, with :attr:`End.EXPIRED` as their result, when their time is over."""

    __slots__ = ("_context", "_loop", "_moments", "_slots", "_timer", "_wakes_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        #: The futures by their moment, in parts of a second; and the moments, a heap.
        self._slots: dict[int, set[asyncio.Future[Any]]] = {}
        self._moments: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0

    def add(self, future: asyncio.Future[Any], at: float) -> None:
        """End a future at a time of the loop's clock, or a little later; see :meth:`discard`."""
        moment = int(at * _PER_SECOND) + 1
        slot = self._slots.get(moment)
        if slot is not None:
            slot.add(future)
            return
        self._slots[moment] = {future}
        heappush(self._moments, moment)
        if self._timer is None or moment < self._wakes_at:
            self._wake_at(moment)

    def discard(self, future: asyncio.Future[Any], at: float) -> None:
        """Forget a future, which was added for that time and is done, or not waited for."""
        slot = self._slots.get(int(at * _PER_SECOND) + 1)
        if slot is not None:
            slot.discard(future)

    def close(self) -> None:
        """End none any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._slots.clear()
        self._moments.clear()

    def _wake_at(self, moment: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        self._wakes_at = moment
        sleep = min(moment / _PER_SECOND - now, _MAX_SLEEP)
        self._timer = self._loop.call_at(now + sleep, self._on_timer, context=self._context)

    def _on_timer(self) -> None:
        self._timer = None
        # Some loops' timers come a millisecond early.
        now = (self._loop.time() + 0.001) * _PER_SECOND
        while self._moments and (self._moments[0] <= now or not self._slots[self._moments[0]]):
            for future in self._slots.pop(heappop(self._moments)):
                if not future.done():
                    future.set_result(End.EXPIRED)
        if self._moments:
            self._wake_at(self._moments[0])
