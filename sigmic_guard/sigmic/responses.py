"""What an answer means: the envelope, and the error that each refusal becomes.

Only the API speaks for the API. What comes without its envelope is a gateway's, whatever its
status, and proves nothing: a :class:`ProtocolError`, or with 5xx a :class:`ServerError`. So the
type of an error says what it proves.

Functions that look into a body return what is wrong instead of raising it. So no traceback, printed
with its locals, shows a body, which may echo a secret.

Source: the API page, "Base, authentication, envelope".
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from sigmic_guard.errors import (
    ApiError,
    AuthenticationError,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
    TaskNotFound,
    ValidationError,
)
from sigmic_guard.lifecycle.backoff import MAX_RETRY_AFTER
from sigmic_guard.lifecycle.text import one_line

if TYPE_CHECKING:
    from sigmic_guard.sigmic.credentials import Redactor

__all__ = [
    "DECODE_ERRORS",
    "MAX_JSON",
    "MAX_REFUSAL",
    "Answer",
    "Envelope",
    "decode",
    "in_own_words",
    "read_refusal",
    "read_retry_after",
    "read_success",
]


T = TypeVar("T")

#: Bytes of a JSON body, decompressed.
MAX_JSON: Final = 16 * 1024 * 1024
#: Bytes of a refusal: an envelope is small, and a gateway's page is not read on.
MAX_REFUSAL: Final = 64 * 1024

_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    401: AuthenticationError,
    403: PermissionDenied,
    404: TaskNotFound,
    429: RateLimited,
}
# For a failure that came with a 2xx; any other code is a ServerError.
_BY_CODE: Final[dict[str, type[ApiError]]] = {
    "AUTH_REQUIRED": AuthenticationError,
    "INVALID_API_KEY": AuthenticationError,
    "INVALID_AUTH_FORMAT": AuthenticationError,
    "INVALID_TOKEN": AuthenticationError,
    "ORIGIN_NOT_ALLOWED": PermissionDenied,
    "FORBIDDEN": PermissionDenied,
    "NOT_FOUND": TaskNotFound,
    "VALIDATION_ERROR": ValidationError,
}
_SECONDS: Final = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)
# RecursionError: JSON nested thousands deep. UnicodeDecodeError: not UTF-8.
DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Answer:
    """A response that was read to its end; its repr shows the status only.

    :ivar body: the decompressed bytes; ``None`` where there were more than is read.
    """

    __slots__ = ("body", "retry_after", "status")

    def __init__(self, status: int, body: bytes | None, retry_after: str | None = None) -> None:
        self.status = status
        self.body = body
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"


class Envelope(msgspec.Struct, frozen=True):
    """The documented frame around every JSON answer, its parts still undecoded."""

    success: bool
    data: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    pagination: msgspec.Raw = msgspec.Raw()

    def __repr__(self) -> str:
        return f"<Envelope success={self.success}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("success", self.success)]


class _Failure(msgspec.Struct, frozen=True):
    code: str
    message: Any = None


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_FAILURE: Final = msgspec.json.Decoder(_Failure)


def read_success(answer: Answer, redact: Redactor) -> Envelope | ApiError | ProtocolError:
    """Return the envelope of a success, or the error that the answer means.

    :param redact: takes out what must not show in the error.
    """
    if not 200 <= answer.status < 300:
        return read_refusal(answer, redact)
    envelope = _read_envelope(answer)
    if isinstance(envelope, ProtocolError):
        return envelope
    if not envelope.success:
        return _read_failure(answer, envelope, redact)
    return envelope


def read_refusal(answer: Answer, redact: Redactor) -> ApiError | ProtocolError:
    """Return the error that a status other than 2xx means."""
    status = answer.status
    if not 400 <= status < 600:
        what = "a redirect, which is never followed" if 300 <= status < 400 else "an unknown status"
        return _odd(answer, f"The API answered HTTP {status}: {what}.")
    envelope = _read_envelope(answer)
    if isinstance(envelope, Envelope) and not envelope.success:
        return _read_failure(answer, envelope, redact)
    return _without_envelope(answer)


def decode(raw: msgspec.Raw, decoder: msgspec.json.Decoder[T], status: int) -> T | ProtocolError:
    """Decode a part of an envelope, or say what is wrong with it."""
    try:
        return decoder.decode(raw)
    except DECODE_ERRORS as exc:
        reason = _describe(exc)
    return ProtocolError(f"The answer is not of the documented shape: {reason}", status=status)


def _read_envelope(answer: Answer) -> Envelope | ProtocolError:
    success = 200 <= answer.status < 300
    if answer.body is None:
        return _odd(answer, "The answer is too large to be read.", unreadable=success)
    if not answer.body:
        return _odd(answer, "The answer is empty.")
    try:
        return _ENVELOPE.decode(answer.body)
    except DECODE_ERRORS as exc:
        reason = _describe(exc)
    broken = success and _is_cut_or_broken(answer.body)
    return _odd(
        answer,
        f"The answer is no envelope of the API: {reason}",
        unreadable=broken,
        broken=broken,
    )


def _is_cut_or_broken(body: bytes) -> bool:
    """Tell whether a body begins as the API's do; a gateway's page does not."""
    return body[:64].lstrip().startswith(b"{") and b'"success"' in body[:4096]


def in_own_words(answer: Answer) -> bool:
    """Whether a refusal is the API's, and not that of something in between."""
    envelope = _read_envelope(answer)
    if isinstance(envelope, ProtocolError) or envelope.success:
        return False
    try:
        _FAILURE.decode(envelope.error)
    except DECODE_ERRORS:
        return False
    return True


def _read_failure(answer: Answer, envelope: Envelope, redact: Redactor) -> ApiError | ProtocolError:
    try:
        failure = _FAILURE.decode(envelope.error)
    except DECODE_ERRORS:
        return _without_envelope(answer)
    status = answer.status
    code = _clean(failure.code, redact)
    message = _clean(failure.message, redact) if isinstance(failure.message, str) else ""
    kind = _BY_CODE.get(code, ServerError) if status < 400 else error_kind(status)
    return kind(
        message or "The API refused the request.",
        code=code,
        status=status,
        retry_after=read_retry_after(answer.retry_after),
    )


def _without_envelope(answer: Answer) -> ApiError | ProtocolError:
    """Return the error for a failure in words that are not the API's; they are not passed on."""
    status = answer.status
    if status < 500:
        return _odd(
            answer,
            f"HTTP {status} without the API's envelope: a gateway's. "
            "Look at base_url, and at proxies.",
        )
    return ServerError(
        "The request failed without an explanation from the API.",
        code=f"HTTP_{status}",
        status=status,
        retry_after=read_retry_after(answer.retry_after),
    )


def _odd(
    answer: Answer, message: str, *, unreadable: bool = False, broken: bool = False
) -> ProtocolError:
    return ProtocolError(
        message,
        status=answer.status,
        retry_after=read_retry_after(answer.retry_after),
        unreadable=unreadable,
        broken=broken,
    )


def error_kind(status: int) -> type[ApiError]:
    """Return the class of what the API says with this status."""
    return _BY_STATUS.get(status, ValidationError if status < 500 else ServerError)


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds to wait, at most a minute; ``None`` for neither a number nor a date."""
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(value)
        if until.tzinfo is None:  # "-0000": UTC, without a word on where it is from
            until = until.replace(tzinfo=UTC)
        seconds = (until - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _clean(text: str, redact: Redactor) -> str:
    """Make a server's text fit for a log: hide first, for a cut secret would not be found."""
    return one_line(redact(text))


def _describe(exc: Exception) -> str:
    """Return what msgspec says: it names types and places, never values."""
    return f"{exc}"[:200] if isinstance(exc, msgspec.DecodeError) else type(exc).__name__
