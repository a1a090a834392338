"""Reading tasks out of answers: strictly if possible, liberally if not.

A field that is not of the documented shape must not hide the status of its task, nor a task that of
the others on its page.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sigmic_guard.errors import ProtocolError
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.sigmic.responses import DECODE_ERRORS, decode

_INFO: Final = msgspec.json.Decoder(TaskInfo)
_INFOS: Final = msgspec.json.Decoder(list[TaskInfo])
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
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
    fields = decode(raw, _FIELDS, status)
    if isinstance(fields, ProtocolError):
        return info
    known: dict[str, Any] = {}
    for encoded, value in fields.items():
        if encoded in _KNOWN:
            name, decoder = _KNOWN[encoded]
            try:
                known[name] = decoder.decode(value)
            except DECODE_ERRORS:
                continue
    return TaskInfo(**known) if {"id", "status"} <= known.keys() else info


def read_infos(raw: msgspec.Raw, status: int) -> list[TaskInfo] | ProtocolError:
    """Read a page of tasks, without those that cannot be told from others."""
    infos = decode(raw, _INFOS, status)
    if not isinstance(infos, ProtocolError):
        return infos
    raws = decode(raw, _RAWS, status)
    if isinstance(raws, ProtocolError):
        return infos
    readable = (read_info(one, status) for one in raws)
    return [info for info in readable if isinstance(info, TaskInfo)]
