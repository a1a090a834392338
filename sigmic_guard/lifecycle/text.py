"""Making text of strangers fit to be told: what a server says, and the ids it gives.

Whatever they hold, an exception, a log line or a row shows them in one line, of a length with an
end in sight, and without what looks like a credential.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MAX_DETAIL",
    "MAX_ID",
    "MAX_MESSAGE",
    "MAX_STATUS",
    "STATUSES",
    "one_line",
    "shown_id",
    "tidy_detail",
    "tidy_status",
]

#: Characters of a remote status that are kept.
MAX_STATUS: Final = 64
#: Characters of a message that are passed on.
MAX_MESSAGE: Final = 300
#: Characters of all the texts in what the API tells of a failure.
MAX_DETAIL: Final = 10_000
#: How deep lists and objects may stand in one another there.
MAX_DEPTH: Final = 20
#: Characters of an id: no common server takes a URL that holds a longer one.
MAX_ID: Final = 65_536
#: Characters of an id in a message.
_MAX_SHOWN_ID: Final = 80

#: The documented statuses. Source: the API page, "Task statuses".
STATUSES: Final = frozenset(
    {"pending", "running", "awaiting_approval", "completed", "failed", "cancelled"}
)

#: Control characters, what ends a line, lone surrogates, and what changes the writing direction.
_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)
#: What looks like a credential: an API key, or a JWT.
_CREDENTIAL: Final = re.compile(
    r"sigmic_(?!guard\b)[^\s'\"]{16,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*", re.ASCII
)


def one_line(text: str, most: int = MAX_MESSAGE) -> str:
    """Return the text in one line of at most ``most`` characters, and an ellipsis."""
    # Hide first: a part of a credential would not be found.
    text = _CONTROL.sub(" ", _CREDENTIAL.sub("***", text)).strip()
    return text if len(text) <= most else text[:most] + "…"


def tidy_status(status: str) -> str:
    """Return a remote status fit for a row; a documented one as it is."""
    return status if status in STATUSES else one_line(status, MAX_STATUS)


def tidy_detail(detail: Any, redact: Callable[[str], str] = str) -> Any:
    """Return what the API tells of a failure: of the same structure, its texts made fit to be told.

    Beyond ``MAX_DETAIL`` characters, or ``MAX_DEPTH`` levels, an ellipsis stands for the rest.

    :param redact: takes out what must not show.
    """
    return _Tidying(redact).tidy(detail, 0)


class _Tidying:
    def __init__(self, redact: Callable[[str], str]) -> None:
        self._left = MAX_DETAIL
        self._redact = redact

    def tidy(self, value: Any, depth: int) -> Any:
        if self._left <= 0 or depth > MAX_DEPTH:
            return "…"
        if isinstance(value, str):
            text = one_line(self._redact(value), self._left)
            self._left -= len(text)
            return text
        self._left -= 1
        if isinstance(value, dict):
            return self._object(value, depth + 1)
        if isinstance(value, list | tuple):
            return self._array(value, depth + 1)
        return value

    def _object(self, fields: dict[Any, Any], depth: int) -> dict[Any, Any]:
        kept: dict[Any, Any] = {}
        for name, value in fields.items():
            if self._left <= 0:
                kept["…"] = f"{len(fields) - len(kept)} more"
                break
            kept[self.tidy(name, depth)] = self.tidy(value, depth)
        return kept

    def _array(self, items: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        kept: list[Any] = []
        for item in items:
            if self._left <= 0:
                kept.append(f"… {len(items) - len(kept)} more")
                break
            kept.append(self.tidy(item, depth))
        return kept


def shown_id(remote_id: str) -> str:
    """Return an id as a message shows it: in ASCII, escaped, and not at any length."""
    text = ascii(one_line(remote_id) if _CREDENTIAL.search(remote_id) else remote_id)[1:-1]
    return text if len(text) <= _MAX_SHOWN_ID else text[:_MAX_SHOWN_ID] + "…"
