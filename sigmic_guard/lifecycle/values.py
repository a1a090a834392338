"""What users hand over, made plain: exact ``str``, ``float``, ``bool``, ``Path`` and the like.

An almost-string is a string with methods of its own: it can fail in an encoder, in a thread or in a
worker, long after the call that brought it, and for everybody. So each value is taken apart here,
in the caller's own call, by the methods of its base type, and whatever that raises becomes a
:class:`~sigmic_guard.ConfigurationError`. No message calls a ``__repr__`` of somebody else's, and
none that is about variables shows a value.
"""

from __future__ import annotations

import operator
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final, TypeVar

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle.secrets import Secrets

CallT = TypeVar("CallT")

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
#: Characters of a value that a message shows.
_MOST_SHOWN: Final = 60
#: Items that are taken of an iterable which may never end.
_MOST_ITEMS: Final = 1000


def shown(value: object) -> str:
    """Return a value as a message may show it: short, in one line, by no method of its own."""
    kind = type(value)
    if kind is str or issubclass(kind, str):
        return ascii(plain(value)[:_MOST_SHOWN])
    if kind is int:  # beyond some thousand digits even repr() fails
        return repr(value) if abs(value) < 10**_MOST_SHOWN else "an immense number"  # type: ignore[arg-type]
    return repr(value) if value is None or kind in {bool, float} else f"a {kind.__name__}"


def no_such_options(unknown: Iterable[str], known: Collection[str]) -> str:
    """Return the words for options that do not exist: what was meant, or what there is."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    names = sorted(map(plain, unknown))
    meant = [near for name in names for near in get_close_matches(name, known, 1)]
    text = f"no such task option: {', '.join(name[:_MOST_SHOWN] for name in names)}"
    if len(meant) == len(names):
        return f"{text}; did you mean {', '.join(meant)}?"
    return f"{text}; there are {', '.join(sorted(known))}"


def plain(value: Any) -> Any:
    """Return a string as an exact ``str``, and anything else as it is."""
    kind = type(value)
    # str(value) would ask the value's own __str__.
    return value if kind is str or not issubclass(kind, str) else str.__str__(value)


def is_text(value: object) -> bool:
    """Whether this is a string that has a UTF-8 form: one without lone surrogates."""
    return issubclass(type(value), str) and (
        str.isascii(value) or not _SURROGATE.search(value)  # type: ignore[arg-type, call-overload]
    )


def check_text(name: str, value: object, *, empty: bool = True) -> str:
    """Return a name or the like as an exact string: any that a database can keep.

    :raises ConfigurationError: it is no string, is ``empty`` and must not be, or holds a NUL or a
        lone surrogate.
    """
    text: str = plain(value)
    if type(text) is not str:
        raise ConfigurationError(f"{name} must be a string, not {shown(value)}")
    if not text and not empty:
        raise ConfigurationError(f"{name} must be a string that is not empty")
    if not is_text(text) or "\x00" in text:
        raise ConfigurationError(f"{name} must be a string of valid Unicode, and hold no NUL")
    return text


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return the one of the ``choices`` that is meant.

    :raises ConfigurationError: it is none of them.
    """
    text = plain(value)
    if type(text) is str and text in choices:
        return text
    allowed = ", ".join(map(repr, choices))
    raise ConfigurationError(f"{name} must be one of {allowed}, not {shown(value)}")


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is ``True`` or ``False``, and nothing that only acts as one.

    :raises ConfigurationError: it is not.
    """
    if value is True or value is False:
        return value
    raise ConfigurationError(f"{name} must be True or False, not {shown(value)}")


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """Return a whole number, at least ``least``, as an exact ``int``.

    :raises ConfigurationError: it is none.
    """
    number = _whole(value)
    if number is None or number < least:
        raise ConfigurationError(
            f"{name} must be a whole number, at least {least}, not {shown(value)}"
        )
    return number


def check_number(name: str, value: object) -> float:
    """Return a finite number as an exact ``float``.

    :raises ConfigurationError: it is none.
    """
    number = _number(value)
    if number is None or not -sys.float_info.max <= number <= sys.float_info.max:
        raise ConfigurationError(f"{name} must be a finite number, not {shown(value)}")
    return number


def check_callable(name: str, value: CallT) -> CallT:
    """Return ``value`` if it can be called, or is ``None``.

    :raises ConfigurationError: it is neither.
    """
    if value is None or callable(value):
        return value
    raise ConfigurationError(f"{name} must be something to call, not {shown(value)}")


def check_seconds(name: str, value: object, *, least: float = 0.0) -> float:
    """Return a finite number of seconds, or a ``timedelta``, as an exact ``float``.

    :raises ConfigurationError: it is neither, or less than ``least``.
    """
    if type(value) is float and least <= value <= sys.float_info.max:
        return value
    if issubclass(type(value), timedelta):
        number: float | None = timedelta.total_seconds(value)  # type: ignore[arg-type]
    else:
        number = _number(value)
    # The comparison holds neither for nan nor for inf.
    if number is None or not least <= number <= sys.float_info.max:
        raise ConfigurationError(
            f"{name} must be a finite number of seconds, at least {least:g}, or a timedelta, "
            f"not {shown(value)}"
        )
    return number


def check_moment(name: str, value: Any) -> float:
    """Return an aware ``datetime`` as seconds since the epoch.

    :raises ConfigurationError: it has no time zone, or is beyond what a clock can show.
    """
    try:
        naive = datetime.utcoffset(value) is None
        seconds = datetime.timestamp(value)
    except Exception as error:  # a time zone is somebody's code
        raise ConfigurationError(
            f"{name} is no moment that a clock can show ({type(error).__name__})"
        ) from error
    if naive:
        raise ConfigurationError(f"{name} must have a time zone: datetime.now(UTC) + …")
    return seconds


def check_path(name: str, value: object) -> Path:
    """Return a path: of a string, or of anything that has ``__fspath__``.

    :raises ConfigurationError: it is neither, holds a NUL, or can be the name of no file.
    """
    text = plain(value)
    if type(text) is not str:
        if not issubclass(type(value), os.PathLike):
            raise ConfigurationError(f"{name} must be paths, not {shown(value)}")
        try:
            text = plain(os.fsdecode(value))  # type: ignore[arg-type]
        except Exception as error:
            raise ConfigurationError(
                f"{name} holds a path that cannot be read ({type(error).__name__})"
            ) from error
    if "\x00" in text:
        raise ConfigurationError(f"{name} holds a path with a NUL in it")
    try:
        os.fsencode(text)
    except UnicodeError as error:
        problem = f"{name} holds a path that the file system cannot encode ({type(error).__name__})"
    else:
        return Path(text)
    raise ConfigurationError(problem)


def check_paths(name: str, values: object) -> tuple[Path, ...]:
    """Return the paths of an iterable, which is read once.

    :raises ConfigurationError: it is none, or one path; or reading it fails.
    """
    found: list[object] | None = None
    try:
        if isinstance(values, Iterable) and not isinstance(values, str | bytes | os.PathLike):
            found = list(islice(values, _MOST_ITEMS))
    except Exception as error:
        raise ConfigurationError(f"{name} cannot be read ({type(error).__name__})") from error
    if found is None:
        raise ConfigurationError(f"{name} must be a list of paths")
    return tuple([check_path(name, value) for value in found])


def check_variables(name: str, value: object) -> dict[str, str]:
    """Return a copy of a mapping, as a plain ``dict``; what it maps is not judged here.

    :raises ConfigurationError: it is no mapping, or reading it fails.
    """
    if value is None:
        return {}
    try:
        found = _read_variables(value)
    finally:
        # A traceback that is printed with its locals must not show it.
        del value
    if isinstance(found, str):
        raise ConfigurationError(f"{name} {found}")
    return found


def check_secrets(name: str, value: object) -> Secrets:
    """Return variables that show nowhere; see :func:`check_variables`.

    :raises ConfigurationError: it is no mapping, or reading it fails.
    """
    if type(value) is Secrets:
        return value  # made here before
    try:
        found = check_variables(name, value)
    finally:
        del value
    return Secrets(found)


def _read_variables(value: object) -> dict[str, str] | str:
    """Return the variables, or why they cannot be had: nothing is raised that holds one."""
    try:
        if not isinstance(value, Mapping):
            return "must map names to strings"
        return {plain(key): plain(text) for key, text in value.items()}
    except Exception as error:
        return f"cannot be read ({type(error).__name__})"


def _whole(value: object) -> int | None:
    kind = type(value)
    if kind is int:
        return value  # type: ignore[return-value]
    if kind is bool or not issubclass(kind, Integral):
        return None
    try:
        # A subclass has methods of its own; a number of somebody else's has nothing but those.
        return int.__int__(value if issubclass(kind, int) else operator.index(value))  # type: ignore[arg-type]
    except Exception:
        return None


def _number(value: object) -> float | None:
    kind = type(value)
    if kind is float:
        return value  # type: ignore[return-value]
    if issubclass(kind, float):
        return float.__float__(value)  # type: ignore[arg-type]
    if kind is bool or not issubclass(kind, Real):
        return None
    try:
        # numpy's durations call themselves whole numbers, of a unit that they do not tell float().
        if getattr(getattr(value, "dtype", None), "kind", "") in {"m", "M"}:
            return None
        return float(int.__int__(value) if issubclass(kind, int) else value)  # type: ignore[arg-type]
    except Exception:  # an int beyond every float, or an error of its own
        return None
