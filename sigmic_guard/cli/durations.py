"""Durations as people write them: ``90``, ``90s``, ``5m``, ``1h30m``."""

from __future__ import annotations

import re
from typing import Final

_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_NUMBER: Final = r"(?:\d+\.?\d*|\.\d+)"
_PLAIN: Final = re.compile(_NUMBER, re.ASCII)
_PARTS: Final = re.compile("".join(f"(?:({_NUMBER}){unit})?" for unit in _SECONDS), re.ASCII)


def parse_duration(value: str | float) -> float:
    """Return the seconds: of a number, or of numbers with ``d``, ``h``, ``m`` and ``s``.

    :raises ValueError: it is neither.
    """
    if not isinstance(value, str):
        return value  # a default
    text = value.strip().lower()
    if _PLAIN.fullmatch(text):
        return float(text)
    parts = _PARTS.fullmatch(text)
    if not text or parts is None:
        raise ValueError(f"{value!r} is no duration: give seconds, or for example 90s, 5m or 1h30m")
    pairs = zip(parts.groups(), _SECONDS.values(), strict=True)
    return sum(float(number) * seconds for number, seconds in pairs if number)
