"""Reads the frames of a traceback as an error collector does: item by item, whatever reprs say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.pretty import pretty_repr

import sigmic_guard

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARY: Final = str(Path(sigmic_guard.__file__).parent)
_MAX_DEPTH: Final = 8


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, whatever hangs on it, and whatever hangs on that."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [other for other in (link.__cause__, link.__context__) if other is not None]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions


def library_locals(error: BaseException) -> Iterator[tuple[str, object]]:
    """Where it is, and the value, of each local of a frame that is not the caller's own."""
    for link in chain(error):
        traceback = link.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code.co_filename.startswith(_LIBRARY):
                for name, value in frame.f_locals.items():
                    yield f"{frame.f_code.co_qualname}: {name}", value
            traceback = traceback.tb_next


def serialised(value: object, depth: int = 0) -> Iterator[str]:
    """All texts that a collector makes of a value."""
    yield repr(value)
    yield pretty_repr(value)
    if isinstance(value, str):
        yield str.__str__(value)
    if isinstance(value, bytes | bytearray):
        yield bytes(value).decode("latin-1")
    if depth < _MAX_DEPTH:
        for item in _items(value):
            yield from serialised(item, depth + 1)


def _items(value: Any) -> Iterator[object]:
    if isinstance(value, Mapping):
        for name in value:
            yield name
            yield value[name]
    elif isinstance(value, Sequence | AbstractSet) and not isinstance(
        value, str | bytes | bytearray
    ):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.repr:
                yield getattr(value, field.name)
