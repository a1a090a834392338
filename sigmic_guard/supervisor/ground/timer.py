"""One timer for everything that is due later: deadlines, retries, polls.

A heap, swept in slices, so that 100,000 deadlines in the same instant do not block the loop. Due
calls are plain functions: they decide, and leave the work to a worker.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, Event, current_time
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that one slice of a sweep may take before others get their turn.
SLICE_SECONDS: Final = 0.002
#: Seconds after which a call that raised is made again.
RETRY_SECONDS: Final = 10.0
#: Forgotten entries are cleared out once there are so many, and they are the majority.
MIN_FORGOTTEN: Final = 4096


class Alarm(list[Any]):
    """A call that is due at a time: ``[when, number, call, *args]``.

    ``when`` is in seconds on anyio's clock. ``call`` is ``None`` once it was made or forgotten. One
    object, for the collector goes through each; a list, for lists are compared without Python code,
    and ``number`` is never the same.
    """

    __slots__ = ()


class Slices:
    """Gives the loop its turn whenever 2 ms of real time are used up."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = perf_counter() + SLICE_SECONDS

    async def yield_if_due(self) -> None:
        """Yield, if it is time to."""
        if perf_counter() >= self._end:
            await checkpoint()
            self._end = perf_counter() + SLICE_SECONDS


class Timer:
    """Calls what is due. :meth:`ring` is the worker; the rest are plain calls.

    A call is about one task, and must not raise. One that does is reported, made again after a
    while, and keeps no other from its time.
    """

    def __init__(self, report: Callable[[str, Exception], None]) -> None:
        self._report = report
        self._heap: list[Alarm] = []
        self._number = count()  # alarms of one instant go off in the order they were set
        self._litter = 0
        self._earlier = Event()
        self._target = inf
        #: Is set when the sweep that is under way is over.
        self._swept: Event | None = None

    def at(self, when: float, call: Callable[..., None], *args: Any) -> Alarm:
        """Call ``call(*args)`` at ``when``, on anyio's clock."""
        alarm = Alarm((when, next(self._number), call, *args))
        heappush(self._heap, alarm)
        if when < self._target:
            self._earlier.set()
        return alarm

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> Alarm:
        """Call ``call(*args)`` in ``delay`` seconds."""
        return self.at(current_time() + delay, call, *args)

    def forget(self, alarm: Alarm | None) -> None:
        """Let an alarm not go off; what it held is let go at once."""
        if alarm is None or alarm[2] is None:
            return
        alarm[2:] = [None]
        self._litter += 1
        if self._litter > MIN_FORGOTTEN and self._litter > len(self._heap) // 2:
            self._target = -inf  # so that the worker is woken once, and not again
            self._earlier.set()

    async def ring(self) -> None:
        """Sweep for ever."""
        while True:
            if self._litter > MIN_FORGOTTEN and self._litter > len(self._heap) // 2:
                await self._clear_out()
            await self._sweep()
            self._earlier = Event()
            self._target = self._heap[0][0] if self._heap else inf
            with CancelScope(deadline=self._target):
                await self._earlier.wait()
            self._target = -inf  # it is awake: nobody needs to wake it

    async def until_swept(self) -> None:
        """Wait while calls are made that are due: what follows from them takes longer."""
        if self._swept is not None:
            await self._swept.wait()

    async def _sweep(self) -> None:
        slices = Slices()
        self._swept = swept = Event()
        try:
            while self._heap and self._heap[0][0] <= current_time():
                self._go_off(heappop(self._heap))
                await slices.yield_if_due()
        finally:
            self._swept = None
            swept.set()

    def _go_off(self, alarm: Alarm) -> None:
        _, _, call, *args = alarm
        if call is None:
            self._litter -= 1
            return
        alarm[2:] = [None]
        try:
            call(*args)
        except Exception as bug:  # noqa: BLE001 - whatever it is, it is this task's alone
            self._report("timer", bug)
            self.after(RETRY_SECONDS, call, *args)

    async def _clear_out(self) -> None:
        """Rebuild the heap from the alarms that count, in slices; it stays usable meanwhile."""
        old, self._heap, self._litter = self._heap, [], 0
        slices = Slices()
        try:
            while old:
                for alarm in old[-256:]:
                    if alarm[2] is not None:
                        heappush(self._heap, alarm)
                del old[-256:]
                await slices.yield_if_due()
        finally:
            if old:  # hit in the middle by a native cancellation: no alarm may be lost
                self._heap += old
                heapify(self._heap)
