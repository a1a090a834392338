"""Who consumes a task's events, and how the watcher makes sure of those who do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from sigmic_guard.supervisor.ground.timer import Alarm


class Reader(Protocol):
    """An iterator over the events."""

    def hang_up(self) -> None:
        """Drop the connection."""

    def hang_up_idle(self) -> None:
        """Drop it if nothing came since the last call, although somebody waited."""

    def start_over(self) -> None:
        """Forget what was read: it was about another task."""


class Audience:
    """The consumers of one task's events; a task that nobody ever listened to has none."""

    __slots__ = ("glance_alarm", "listening", "pause_alarm", "pauses", "readers")

    def __init__(self) -> None:
        #: The iterators that are neither at their end nor closed.
        self.readers: WeakSet[Reader] = WeakSet()
        #: How many consumers wait for an event at this moment: they learn the end from the stream.
        self.listening = 0
        #: How often a consumer went away with an event, to come back or not.
        self.pauses = 0
        #: When the task is watched again, because no consumer has come back.
        self.pause_alarm: Alarm | None = None
        #: When it is looked at although somebody reads its stream.
        self.glance_alarm: Alarm | None = None

    def hang_up(self) -> None:
        """End the streams that are being read: nothing is to be heard from this task."""
        for reader in tuple(self.readers):
            reader.hang_up()

    def start_over(self) -> None:
        """Have them drop what they read: it was another task's."""
        for reader in tuple(self.readers):
            reader.start_over()

    def hang_up_idle(self) -> None:
        """End those from which nothing came since the last call, although somebody waited."""
        for reader in tuple(self.readers):
            reader.hang_up_idle()
