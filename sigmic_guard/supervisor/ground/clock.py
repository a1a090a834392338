"""Wall time, for what rows tell other processes. All waits and deadlines follow anyio's clock.

The wall clock may be set, forwards and back, at any moment: it is read anew each time, and no
difference between two readings is believed to be time that passed here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from anyio import current_time
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import Callable

#: What anyio's clock was ahead of the monotonic one when this event loop asked first.
_AHEAD: RunVar[float] = RunVar("sigmic_guard_clock_ahead")
#: Seconds by which two readings of one clock may differ.
_JITTER = 1.0


class WallClock:
    """Tells the seconds since the epoch; made and called in the event loop.

    Where anyio's clock is a virtual one, as trio's for tests is, its jumps are added, so that
    virtual time is virtual everywhere.
    """

    def __init__(self) -> None:
        # Of two such clocks in one loop the second must not forget the jumps that the first saw.
        ahead = current_time() - time.monotonic()
        self._ahead = _AHEAD.get(ahead)
        _AHEAD.set(self._ahead)
        #: asyncio's clock is the monotonic one, and need not be asked.
        self._virtual = abs(ahead) > _JITTER
        #: Returns anyio's time; with asyncio from wherever it is called.
        self.moment: Callable[[], float] = current_time if self._virtual else time.monotonic

    def __call__(self) -> float:
        """Return the seconds since the epoch."""
        if not self._virtual:
            return time.time()
        return time.time() + current_time() - time.monotonic() - self._ahead
