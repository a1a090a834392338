"""Who is told what happens: :class:`Observer`, and :class:`Tracer`, which is told more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe.events import ObservedEvent

#: A request about one task: POST, DELETE, the GET that shows what came of that, a follow-up, a
#: decision on a tool call, and the opening of an event stream.
Operation: TypeAlias = Literal["create", "cancel", "confirm", "send", "approve", "stream"]
#: What a task was told, what it answered, and the id of their conversation.
Detail: TypeAlias = Literal["message", "answer", "conversation"]


class Observer(Protocol):
    """Is told everything that happens, one frozen event at a time.

    It is called inline, on hot paths and inside clean-up, so it must be quick and must not raise;
    one that raises is reported once, by type and place, and called again the next time. It looks
    at the event's type, and leaves alone what it does not know::

        class Deletes:
            count = 0

            def observe(self, event: ObservedEvent) -> None:
                if isinstance(event, DeleteAnswered):
                    self.count += 1

    The birth of a task that was asked for, ``TaskChanged`` with no ``before`` and no ``event``, is
    told in the context of whoever asks; all else may be told in a worker's.
    """

    def observe(self, event: ObservedEvent) -> None:
        """Take note of what happened."""


class Tracer(Observer, Protocol):
    """An observer that stands around requests as well, and is told what no event holds.

    ``Supervisor(observers=[…])`` takes it like any other. Whatever it raises changes nothing.
    """

    def around(self, operation: Operation, record: Record) -> AbstractContextManager[object]:
        """Return what one request about a task is sent within; it sees what that raises."""

    def detail(self, record: Record, name: Detail, value: str) -> None:
        """Take note of a text: messages and answers are the user's own, and may be of any size."""
