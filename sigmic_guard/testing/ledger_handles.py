"""Opening handles on the ledger under test, and asking them in one line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

from sigmic_guard.ledger import Ledger, Refusal, Write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sigmic_guard.lifecycle import Record

LedgerFactory: TypeAlias = Callable[[], Ledger]


@asynccontextmanager
async def opened(factory: LedgerFactory, owner_id: str = "owner-1") -> AsyncIterator[Ledger]:
    """Open a new handle, and close it at the end."""
    ledger = factory()
    await ledger.open(owner_id)
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def write(ledger: Ledger, record: Record, expected: int) -> Refusal | None:
    """Do one write."""
    [refusal] = await ledger.commit([Write(record, expected)])
    return refusal


async def ids(
    ledger: Ledger, namespace: str | None = "default", *, owner_id: str | None = None
) -> list[str]:
    """Return the ids of the unfinished rows, sorted: a ledger may give them in any order."""
    rows = await ledger.unfinished(namespace, owner_id=owner_id)
    return sorted(row.intent_id for row in rows)
