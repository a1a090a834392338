"""Who is dead, and what they left unfinished: :func:`find_orphans`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from anyio.lowlevel import checkpoint

from sigmic_guard.ledger.protocol import CorruptRows
from sigmic_guard.lifecycle import Record

if TYPE_CHECKING:
    from sigmic_guard.ledger.protocol import Ledger


#: Rows between which others get their turn; they take about a millisecond.
SLICE: Final = 512


class Orphan(NamedTuple):
    """An unfinished row of a dead owner."""

    record: Record
    #: The owner's last sign of life, in seconds since the epoch.
    orphaned_at: float
    #: Seconds since its death was first seen.
    dead_for: float = 0.0


class Orphans(NamedTuple):
    """The unfinished rows of dead owners."""

    readable: Sequence[Orphan]
    #: Why the others are corrupt, by intent id.
    corrupt: Mapping[str, str]


async def find_orphans(ledger: Ledger, namespace: str | None = None) -> Orphans:
    """Return all unfinished rows whose owner is dead.

    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read.
    """
    orphans: list[Orphan] = []
    corrupt: dict[str, str] = {}
    for owner_id in await ledger.owners(namespace):
        # An owner id is used once. Who is dead stays so, and the rows are read after it is known.
        if await ledger.owner_alive(owner_id):
            continue
        seen, dead_for = await ledger.last_seen(owner_id), await ledger.dead_for(owner_id)
        try:
            rows = await ledger.unfinished(namespace, owner_id=owner_id)
        except CorruptRows as error:
            rows = error.readable
            corrupt |= error.corrupt
        for number, row in enumerate(rows, 1):
            orphans.append(Orphan(row, last_sign(row, seen), dead_for))
            if number % SLICE == 0:
                await checkpoint()
    return Orphans(orphans, corrupt)


def last_sign(record: Record, seen: float | None) -> float:
    """Return when a row's owner was certainly alive, by the row itself and by the ledger.

    Of a reaper that died that does not count: the row had been an orphan before.
    """
    if record.orphaned_at is not None:
        return record.orphaned_at
    told = (seen, record.created_at, record.posted_at, record.cancel_requested_at)
    return max(at for at in told if at is not None)
