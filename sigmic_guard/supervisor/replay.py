"""Telling what a reconnected stream says again from what it says for the first time.

After a reconnect the server repeats the saved messages, and of the current turn what was said so
far, in pieces that need not be those that it came in the first time. So text is compared as text,
by position, and everything else as a bag of events.

What an event costs depends on its own size and never on what came before it: text is kept in
blocks, which are put together only where a reconnect repeats it, or the whole is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Characters that are collected before they become a block: small strings cost more than they say.
BLOCK: Final = 64 * 1024
#: Pieces of text that wait for that, at most.
PIECES: Final = 4096
#: Events other than text that are remembered: the first. Later ones are new when they are repeated.
MAX_REMEMBERED: Final = 100_000

_HISTORY: Final = ("history_message", "history_done")


class _Text:
    """Text that grows: appending is linear over all, and the whole is joined on demand."""

    def __init__(self) -> None:
        self.length = 0
        self._blocks: list[str] = []
        self._pieces: list[str] = []
        self._waiting = 0  # characters in the pieces

    def append(self, piece: str) -> None:
        """Add a piece at the end."""
        if not piece:
            return
        self.length += len(piece)
        self._waiting += len(piece)
        self._pieces.append(piece)
        if self._waiting >= BLOCK or len(self._pieces) >= PIECES:
            self._blocks.append("".join(self._pieces))
            self._pieces.clear()
            self._waiting = 0

    def whole(self) -> str:
        """Return all of it; asked again with nothing added it costs nothing."""
        if self._pieces or len(self._blocks) != 1:
            self._blocks = ["".join([*self._blocks, *self._pieces])]
            self._pieces.clear()
            self._waiting = 0
        return self._blocks[0]


class Replay:
    """Remembers what one consumer was given."""

    def __init__(self) -> None:
        self._text = _Text()
        self._position = 0  # how much of the text this connection has repeated
        #: By kind and identity: the most often that one connection gave it. A hash stands for each,
        #: so that events are not kept alive.
        self._given: dict[tuple[str, int], int] = {}
        #: The same of this connection; ``None`` for the first, which repeats nothing.
        self._here: dict[tuple[str, int], int] | None = None

    @property
    def said(self) -> str:
        """All text so far."""
        return self._text.whole()

    def reconnected(self, *, new_turn: bool = False) -> None:
        """Expect everything again.

        :param new_turn: there was a follow-up since: of the turn before only the history comes.
        """
        self._position = 0
        self._here = {}
        if new_turn:
            self._text = _Text()
            self._given = {key: n for key, n in self._given.items() if key[0] in _HISTORY}

    def sort(self, kind: str, data: Any, raw: str) -> Iterable[tuple[Any, bool]]:
        """Return the event's data, and whether it was given before; in two parts if both is true.

        :param raw: the data as it came.
        """
        if kind == "content" and isinstance(data, dict) and isinstance(data.get("text"), str):
            return self._sort_text(data, data["text"])
        return ((data, self._is_repeated((kind, hash(_identity(kind, data, raw))))),)

    def rest(self, answer: str | None) -> str:
        """Return what of the answer was not said; nothing where it is no continuation of that."""
        if not answer or len(answer) <= self._text.length:
            return ""
        return answer[self._text.length :] if answer.startswith(self.said) else ""

    def _is_repeated(self, key: tuple[str, int]) -> bool:
        """Count an event; ``True`` if earlier connections gave it as often as this one has now."""
        given, here = self._given, self._here
        before = given.get(key, 0)
        if not before and len(given) >= MAX_REMEMBERED:
            return False
        count = before + 1
        if here is not None:
            count = here[key] = here.get(key, 0) + 1
            if count <= before:
                return True
        given[key] = count
        return False

    def _sort_text(self, data: dict[str, Any], text: str) -> Iterable[tuple[dict[str, Any], bool]]:
        size, awaited = len(text), self._text.length - self._position
        if not awaited:
            whole = data.get("isPartial") is False and size == self._text.length
            if whole and text == self.said:
                return ((data, True),)  # the whole, after its parts
        elif size <= awaited:
            if self.said.startswith(text, self._position):
                self._position += size
                return ((data, True),)
        elif text.startswith(again := self.said[self._position :]):
            self._append(new := text[awaited:])
            return (({**data, "text": again}, True), ({**data, "text": new}, False))
        self._append(text)
        return ((data, False),)

    def _append(self, text: str) -> None:
        self._text.append(text)
        self._position = self._text.length


def _identity(kind: str, data: Any, raw: str) -> str | int | tuple[str, str]:
    """Name what an event is about, where the server may say the same in other words.

    Only by plain values: anything else that strangers put there may be nested thousands deep.
    """
    match kind, data:
        case "history_message", {"id": str() | int() as message_id}:
            return message_id
        case "tool_call", {"callId": str(call_id), "status": str(status)}:
            return call_id, status
        case "history_done", _:
            return ""
        case _:
            return raw
