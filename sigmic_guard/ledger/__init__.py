"""The store of one durable row per task: the protocol, and the ledgers that keep it."""

from __future__ import annotations

from sigmic_guard.ledger.memory import MemoryLedger, MemoryStore
from sigmic_guard.ledger.orphans import Orphan, Orphans, find_orphans, last_sign
from sigmic_guard.ledger.protocol import CorruptRows, Ledger, Refusal, Write
from sigmic_guard.ledger.sqlite import SqliteLedger
from sigmic_guard.ledger.urls import (
    LEDGER_VARIABLE,
    chosen_ledger_url,
    default_ledger_url,
    sqlite_path,
    sqlite_url,
)

__all__ = [
    "LEDGER_VARIABLE",
    "CorruptRows",
    "Ledger",
    "MemoryLedger",
    "MemoryStore",
    "Orphan",
    "Orphans",
    "Refusal",
    "SqliteLedger",
    "Write",
    "chosen_ledger_url",
    "default_ledger_url",
    "find_orphans",
    "last_sign",
    "open_ledger",
    "sqlite_path",
    "sqlite_url",
]


def open_ledger(url: str) -> Ledger:
    """Return the ledger that ``url`` names; it is opened by the supervisor that uses it.

    ``memory:`` survives nothing. ``sqlite:///relative/path`` and ``sqlite:////absolute/path`` name
    a file, made when it is opened.

    :raises ConfigurationError: no ledger has such a URL.
    """
    try:
        path = sqlite_path(url)
    finally:
        del url  # a traceback that is printed with its locals must not show a password
    return MemoryLedger() if path is None else SqliteLedger(path)
