"""Who is told what happens: :class:`Observer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sigmic_guard.observe.events import ObservedEvent


class Observer(Protocol):
    """Is told everything that happens, one frozen event at a time.

    It is called inline, on hot paths and inside clean-up, so it must be quick and must not raise.
    It looks at the event's type, and leaves alone what it does not know::

        class Deletes:
            count = 0

            def observe(self, event: ObservedEvent) -> None:
                if isinstance(event, DeleteAnswered):
                    self.count += 1
    """

    def observe(self, event: ObservedEvent) -> None:
        """Take note of what happened."""
