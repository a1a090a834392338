"""The store of one durable row per task: the protocol, and the ledgers that keep it."""

from __future__ import annotations

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger.memory import MemoryLedger, MemoryStore
from sigmic_guard.ledger.protocol import Ledger, Refusal, Write

__all__ = ["Ledger", "MemoryLedger", "MemoryStore", "Refusal", "Write", "open_ledger"]


def open_ledger(url: str) -> Ledger:
    """Return the ledger that ``url`` names; it is opened by the supervisor that uses it.

    :raises ConfigurationError: no ledger has such a URL.
    """
    if url in {"memory:", "memory"}:
        return MemoryLedger()
    raise ConfigurationError(f"no ledger knows the URL {url!r}; this version has 'memory:'")
