"""Secrets on their way into a request, which nothing but the request's body shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, KeysView, ValuesView

__all__ = ["Secrets"]


class Secrets:
    """Names and values that can be read like those of a mapping, and do not look like one.

    Tools that show the locals of a traceback go through mappings, sequences and dataclasses item by
    item, whatever their reprs say. Of this they show the repr, which tells the size.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str] | Secrets = {}) -> None:  # noqa: B006 - only read
        self._values = dict(values.items())

    def __repr__(self) -> str:
        return f"<{len(self._values)} secrets>"

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secrets):
            return self._values == other._values
        return self._values == other if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._values.keys()

    def values(self) -> ValuesView[str]:
        """Return the values."""
        return self._values.values()

    def items(self) -> ItemsView[str, str]:
        """Return the names with their values."""
        return self._values.items()

    def __copy__(self) -> Secrets:
        return self  # nobody can change it

    def __deepcopy__(self, memo: object) -> Secrets:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("Secrets cannot be pickled.")
