"""Reading tasks out of answers: strictly if possible, liberally if not.

A field that is not of the documented shape must not hide the status of its task, nor a task that of
the others on its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec

from sigmic_guard.errors import ProtocolError
from sigmic_guard.lifecycle.text import STATUSES, tidy_detail, tidy_status
from sigmic_guard.sigmic.models import Scrap, TaskInfo
from sigmic_guard.sigmic.responses import DECODE_ERRORS, decode

if TYPE_CHECKING:
    from sigmic_guard.sigmic.credentials import Redactor

T = TypeVar("T")

_INFO: Final = msgspec.json.Decoder(TaskInfo)
_INFOS: Final = msgspec.json.Decoder(list[TaskInfo])
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_TOTAL: Final = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0)])
_MORE: Final = msgspec.json.Decoder(bool)
#: What a number begins with that is not 0.
_DIGITS: Final = frozenset({b"%d" % digit for digit in range(1, 10)})
_KNOWN: Final = {
    field.encode_name: (field.name, msgspec.json.Decoder(field.type))
    for field in msgspec.structs.fields(TaskInfo)
}


def read_info(raw: msgspec.Raw, status: int) -> TaskInfo | ProtocolError:
    """Read one task; of a malformed one, what is well formed, if that is its id and its status.

    :param status: the HTTP status, for the error.
    """
    info = decode(raw, _INFO, status)
    if isinstance(info, TaskInfo):
        return info
    known = _read_fields(raw)
    return TaskInfo(**known) if {"id", "status"} <= known.keys() else info


def read_infos(
    raw: msgspec.Raw, status: int
) -> tuple[list[TaskInfo], tuple[Scrap, ...]] | ProtocolError:
    """Read a page of tasks, and what is left of those that cannot be told from others.

    A task with an id and no status that can be read is one in a status that nobody knows.
    """
    infos = decode(raw, _INFOS, status)
    if not isinstance(infos, ProtocolError):
        return infos, ()
    raws = decode(raw, _RAWS, status)
    if isinstance(raws, ProtocolError):
        return infos
    readable: list[TaskInfo] = []
    scraps: list[Scrap] = []
    for one in raws:
        known = _read_fields(one)
        if "id" in known:
            readable.append(TaskInfo(**{"status": "", **known}))
        else:
            scraps.append(Scrap(bytes(one).strip(), known.get("message")))
    return readable, tuple(scraps)


def read_pagination(raw: msgspec.Raw) -> tuple[int | None, bool | None]:
    """Return ``total`` and ``hasMore``; each is ``None`` if it is not told as documented."""
    try:
        fields = _FIELDS.decode(raw)
    except DECODE_ERRORS:
        return None, None
    return _read_one(fields.get("total"), _TOTAL), _read_one(fields.get("hasMore"), _MORE)


def _read_one(raw: msgspec.Raw | None, decoder: msgspec.json.Decoder[T]) -> T | None:
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except DECODE_ERRORS:
        return None


def _read_fields(raw: msgspec.Raw) -> dict[str, Any]:
    """Return those fields of an object that are of the documented shape."""
    known: dict[str, Any] = {}
    try:
        fields = _FIELDS.decode(raw)
    except DECODE_ERRORS:
        return known
    for encoded, value in fields.items():
        if encoded in _KNOWN:
            name, decoder = _KNOWN[encoded]
            try:
                known[name] = decoder.decode(value)
            except DECODE_ERRORS:
                continue
    if "completed_at" not in known and (at := bytes(fields.get("completedAt", b""))):
        known["completed_at"] = _time_in_other_words(at)
    return known


def _time_in_other_words(raw: bytes) -> str | None:
    """Return a time that is no string, for it tells at least that there was one."""
    return raw.decode(errors="replace") if raw.strip()[:1] in _DIGITS else None


def tidy(info: TaskInfo, redact: Redactor) -> TaskInfo:
    """Return the task with what strangers wrote into its status and its error fit to be told.

    :param redact: takes out what must not show.
    """
    if info.error is None and info.status in STATUSES:
        return info
    return msgspec.structs.replace(
        info,
        status=tidy_status(redact(info.status)),
        error=tidy_detail(info.error, redact),
    )
