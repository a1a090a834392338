"""Telling, without a mark, which tasks a create may have made whose answer was lost.

All there is to go by is the message and the time of the creation, which is no proof. So a candidate
runs, carries no mark, and is nobody's: no row of the ledger knows its id, and no create that is
under way may turn out to have made it.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING, Final

from sigmic_guard.lifecycle import State
from sigmic_guard.supervisor.listing import seconds_of
from sigmic_guard.supervisor.marking import digest
from sigmic_guard.supervisor.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.roster import Roster

#: Seconds by which the server's clock and ours may differ where times of creation are compared.
NEAR: Final = 60.0


class Candidates:
    """What one scan of the list shows of the tasks that are sought without a mark."""

    def __init__(self, roster: Roster, ledger: Ledger, *, create_timeout: float) -> None:
        self._roster = roster
        self._ledger = ledger
        self._create_timeout = create_timeout
        self._sought: dict[str, list[Record]] = {}
        #: By intent id: the candidates' ids, and when they were created.
        self._found: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
        #: By digest: since when a create of that message may be under way that is still wanted.
        self._under_way: Mapping[str, float] | None = None

    def seek(self, record: Record) -> None:
        """Compare with this record what the scan shows."""
        if record.message_digest is not None:
            self._sought.setdefault(record.message_digest, []).append(record)

    def compare(self, info: TaskInfo) -> None:
        """Note a task without a mark."""
        if not self._sought or info.terminal or info.message is None:
            return
        for record in self._sought.get(digest(info.message), ()):
            created_at = seconds_of(info.created_at)
            if created_at is None or self._fits(record, created_at):
                self._found[record.intent_id][info.id] = created_at

    def _fits(self, record: Record, created_at: float) -> bool:
        latest = (record.posted_at or record.lost_at or record.created_at) + self._create_timeout
        return _sent_from(record) - NEAR <= created_at <= latest + NEAR

    async def of(self, record: Record) -> Sequence[str] | None:
        """Return the ids of those that are nobody's; ``None`` if that cannot be told yet.

        :raises LedgerError: it could not be read.
        """
        found = self._found.get(record.intent_id)
        if not found:
            return ()
        # In this order: a create that is no longer under way has its id in the ledger.
        if self._under_way is None:
            self._under_way = await self._read_under_way()
        since = self._under_way.get(record.message_digest or "", inf)
        if any(at is None or at >= since - NEAR for at in found.values()) and since < inf:
            return None
        named = self._roster.named
        return [it for it in found if it not in named and not await self._ledger.find(it)]

    async def _read_under_way(self) -> Mapping[str, float]:
        since: dict[str, float] = {}
        alive: dict[str, bool] = {}
        slices = Slices()
        for row in await self._ledger.unfinished():
            await slices.breathe()
            if row.message_digest not in self._sought or row.message_digest is None:
                continue
            task = self._roster.tasks.get(row.intent_id)
            record = row if task is None else task.record  # the ledger is told a little later
            if record.state not in _COMING:
                continue
            if row.owner_id not in alive:
                alive[row.owner_id] = await self._ledger.owner_alive(row.owner_id)
            if alive[row.owner_id]:
                earliest = since.get(row.message_digest, inf)
                since[row.message_digest] = min(earliest, _sent_from(record))
        return since


#: A row may still be an intent when its POST is under way.
_COMING: Final = frozenset({State.INTENT, State.CREATING})


def _sent_from(record: Record) -> float:
    """Return the earliest time at which its POST can have been sent."""
    return record.posted_at or record.created_at
