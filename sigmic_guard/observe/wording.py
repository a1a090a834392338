"""What may be said in public about a text, a status or an exception."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sigmic_guard.errors import ApiError, ConnectionFailed, ProtocolError, SigmicGuardError

if TYPE_CHECKING:
    from types import TracebackType

_MOST: Final = 200
#: What looks like a credential: our API keys, what follows Bearer or Basic, a URL's user info.
_SECRETS: Final = re.compile(
    r"sigmic_(?!guard\b)[^\s'\"]+|(?i:(?<=bearer )|(?<=basic ))[^\s'\"]+|(?<=://)[^\s/'\"@]+(?=@)"
)

#: What stands for a value that is not to be told.
OTHER: Final = "other"

#: What stands where a status would, if no answer came.
_NO_ANSWER: Final = frozenset({"timeout", "connection", "protocol", "cancelled"})


def status_of(error: SigmicGuardError) -> str:
    """Name what a request failed of: its HTTP status, or what was there instead of one."""
    if isinstance(error, ApiError | ProtocolError) and error.status is not None:
        return str(error.status)
    if isinstance(error, ConnectionFailed):
        return "timeout" if error.timed_out else "connection"
    return "protocol"


def bounded_status(status: str) -> str:
    """Return ``status`` if it is one: a number that HTTP knows, or a word that we know."""
    number = len(status) == 3 and status.isascii() and status.isdigit() and status[0] in "12345"
    return status if number or status in _NO_ANSWER else OTHER


def clean(text: str) -> str:
    """Return ``text`` fit for one line: stars for credentials, escapes, and an end in sight."""
    # Asked first, for most texts are ids: of these the pattern needs one.
    if " " in text or "sigmic_" in text or "://" in text:
        text = _SECRETS.sub("***", text)
    if len(text) > _MOST:
        text = text[: _MOST - 1] + "…"
    return text if text.isprintable() else repr(text)[1:-1]


def described(error: BaseException) -> str:
    """Say what ``error`` is: its message too if it is ours, else only its type."""
    name = type(error).__qualname__
    return f"{name}: {clean(str(error))}" if isinstance(error, SigmicGuardError) else name


def whereabouts(error: BaseException) -> str:
    """Say what ``error`` is and where it was raised, and leave out what it says."""
    name, last = type(error).__qualname__, _last(error.__traceback__)
    if last is None:
        return name
    code = last.tb_frame.f_code
    return f"{name} at {code.co_filename}:{last.tb_lineno} in {code.co_qualname}"


def _last(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback
