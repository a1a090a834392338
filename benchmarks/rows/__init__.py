"""One module for each row of the table; each has a ``ROW``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.core.model import Row

#: In the order of the table.
NAMES: Final = (
    "server",
    "drain",
    "lifecycle",
    "scope_cancel",
    "tracking",
    "deadlines",
    "sse",
    "ledger",
    "watch",
    "hosts",
    "overhead",
    "growth",
)


def load(name: str) -> Row:
    """Return a row by its name."""
    row: Row = import_module(f"benchmarks.rows.{name}").ROW
    return row
