"""How far a supervisor has come, and what time it is."""

from __future__ import annotations

from enum import IntEnum

from sigmic_guard.supervisor.ground.clock import WallClock
from sigmic_guard.supervisor.ground.native import event_type, scope_type


class Phase(IntEnum):
    """The phases of a supervisor, in the order in which it may come into them."""

    OPEN = 0
    #: No task is taken on any more.
    CLOSING = 1
    #: And that is so because of a signal or a bug, by which the bodies are cancelled as well.
    FORCED = 2
    #: Nothing will change any more.
    CLOSED = 3


class Lifetime:
    """The phase of one supervisor, its clocks and its loop's primitives; made in that loop."""

    __slots__ = ("_reached", "make_event", "make_scope", "moment", "now")

    def __init__(self) -> None:
        # A signal handler may come between a look at the phase and its change: so nothing is
        # replaced, and the furthest counts.
        self._reached = {Phase.OPEN}
        #: Returns the seconds since the epoch, by the wall clock of this moment.
        self.now = WallClock()
        #: Returns anyio's time; with asyncio from wherever it is called.
        self.moment = self.now.moment
        #: Makes an event to wait for in this loop.
        self.make_event = event_type()
        #: Makes a cancel scope to enter in it.
        self.make_scope = scope_type()

    def advance(self, phase: Phase) -> None:
        """Come into a phase, or stay in a later one. Safe in a signal handler or another thread."""
        self._reached.add(phase)

    @property
    def phase(self) -> Phase:
        """How far it has come."""
        return max(self._reached)

    @property
    def closing(self) -> bool:
        """Whether no task is taken on any more."""
        return len(self._reached) > 1

    @property
    def forced(self) -> bool:
        """Whether the bodies are cancelled as well; once it is closed that is all the same."""
        return self.phase >= Phase.FORCED

    @property
    def closed(self) -> bool:
        """Whether nothing will change any more."""
        return Phase.CLOSED in self._reached
