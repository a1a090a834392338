"""Telling what a reconnected stream says again from what it says for the first time.

After a reconnect the server repeats the saved messages, and of the current turn what was said so
far, in pieces that need not be those that it came in the first time. So text is compared as text,
by position, and everything else as a bag of events.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Replay:
    """Remembers what one consumer was given."""

    def __init__(self) -> None:
        #: All text so far.
        self.said = ""
        self._position = 0  # how much of what was said this connection has repeated
        self._given: Counter[tuple[str, str]] = Counter()
        self._to_repeat: Counter[tuple[str, str]] = Counter()

    def reconnected(self) -> None:
        """Expect everything again."""
        self._position = 0
        self._to_repeat = self._given.copy()

    def sort(self, kind: str, data: Any, raw: str) -> Iterator[tuple[Any, bool]]:
        """Yield the event's data, and whether it was given before; in two parts if both is true."""
        if kind == "content" and isinstance(data, dict) and isinstance(data.get("text"), str):
            yield from self._sort_text(data, data["text"])
            return
        key = (kind, _identity(kind, data, raw))
        if self._to_repeat[key] > 0:
            self._to_repeat[key] -= 1
            yield data, True
        else:
            self._given[key] += 1
            yield data, False

    def rest(self, answer: str | None) -> str:
        """Return what of the answer was not said; nothing where it is no continuation of that."""
        return answer[len(self.said) :] if answer and answer.startswith(self.said) else ""

    def _sort_text(self, data: dict[str, Any], text: str) -> Iterator[tuple[dict[str, Any], bool]]:
        awaited = self.said[self._position :]
        if awaited and awaited.startswith(text):
            self._position += len(text)
            yield data, True
        elif awaited and text.startswith(awaited):
            self.said += text[len(awaited) :]
            self._position = len(self.said)
            yield {**data, "text": awaited}, True
            yield {**data, "text": text[len(awaited) :]}, False
        elif not awaited and text == self.said and data.get("isPartial") is False:
            yield data, True  # the whole, after its parts
        else:
            self.said += text
            self._position = len(self.said)
            yield data, False


def _identity(kind: str, data: Any, raw: str) -> str:
    """Name what an event is about, where the server may say the same in other words."""
    match kind, data:
        case "history_message", {"id": message_id}:
            return str(message_id)
        case "tool_call", {"callId": call_id, "status": status}:
            return f"{call_id} {status}"
        case "history_done", _:
            return ""
        case _:
            return raw
