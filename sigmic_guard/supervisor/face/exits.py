"""How blocks wait for the end of their tasks, shielded, and go on: many together.

Where a shield is left inside a cancelled scope, anyio on asyncio looks through all the children of
that scope again, in this turn of the loop and in the next. So where many blocks are cancelled at
once, each turn in which some of them go on costs time that grows with the number of all the others,
and if each went on as soon as its DELETE is answered, the whole would be quadratic.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from anyio import sleep_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyio import Event

    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.lifetime import Lifetime

#: So many at once do not wait for each other.
FEW: Final = 64
#: Seconds between two turns of the loop in which blocks go on, for each that waits: about ten times
#: what anyio's looking through takes.
SECONDS_EACH: Final = 10e-6


class Exits:
    """Lets blocks and groups wait for the end of their tasks."""

    def __init__(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._waiting = 0
        #: When blocks may go on again, on anyio's clock.
        self._next = -inf
        #: Is set then, if some wait for it.
        self._opened: Event | None = None

    async def until_settled(self, tasks: Iterable[Entry], seconds: float) -> None:
        """Wait until nobody here works on any of the tasks any more, ``seconds`` at most.

        No cancellation comes through, except a native one.
        """
        self._waiting += 1
        try:
            until = self._lifetime.moment() + seconds
            with self._lifetime.make_scope(deadline=until, shield=True):
                for task in tasks:
                    await task.until_settled()
                await self._until_open()
        finally:
            self._waiting -= 1

    async def _until_open(self) -> None:
        if self._opened is not None:
            await self._opened.wait()
        elif self._waiting > FEW:
            if self._lifetime.moment() < self._next:
                self._opened = self._lifetime.make_event()
                try:
                    await sleep_until(self._next)
                finally:
                    self._opened.set()
                    self._opened = None
            self._next = self._lifetime.moment() + self._waiting * SECONDS_EACH
