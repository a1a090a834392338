"""Telling, without a mark, which tasks a create may have made whose answer was lost.

All there is to go by is the message and the time of the creation, which is no proof. So a candidate
runs, carries no mark, and is nobody's: no row of the ledger knows its id, and no create that is
under way may turn out to have made it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from sigmic_guard.lifecycle import State
from sigmic_guard.supervisor.ground.marking import digest
from sigmic_guard.supervisor.ground.timer import Slices
from sigmic_guard.supervisor.work.listing import seconds_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.roster import Roster

#: Seconds by which the server's clock and ours may differ where times of creation are compared.
NEAR: Final = 60.0
#: And by which the clock of whoever sent the create may have been wrong.
WRONG_CLOCK: Final = 3600.0


class Proposal(NamedTuple):
    """What a create may have made."""

    ids: Sequence[str]
    #: Whether the time of creation fits too, and not only by a clock that was wrong.
    near: bool


class Candidates:
    """What one scan of the list shows of the tasks that are sought without a mark."""

    def __init__(self, roster: Roster, ledger: Ledger, *, create_timeout: float) -> None:
        self._roster = roster
        self._ledger = ledger
        self._create_timeout = create_timeout
        self._digests: set[str] = set()
        #: By digest: the ids of those that run, and when they were created.
        self._found: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
        #: By digest: since when a create of that message may be under way that is still wanted.
        self._under_way: Mapping[str, float] | None = None

    def seek(self, record: Record) -> None:
        """Look for what this record's create may have made."""
        if record.message_digest is not None:
            self._digests.add(record.message_digest)

    def compare(self, info: TaskInfo) -> None:
        """Note a task without a mark."""
        if self._digests and not info.terminal and info.message is not None:
            its_digest = digest(info.message)
            if its_digest in self._digests:
                self._found[its_digest][info.id] = seconds_of(info.created_at)

    async def of(self, record: Record) -> Proposal | None:
        """Return the ids of those that are nobody's; ``None`` if that cannot be told yet.

        Where the time of none fits, those come that a clock wrong by an hour would explain.

        :raises LedgerError: it could not be read.
        """
        message_digest = record.message_digest
        if message_digest is None or message_digest not in self._found:
            return Proposal((), near=True)
        # In this order: a create that is no longer under way has its id in the ledger.
        if self._under_way is None:
            self._under_way = await self._read_under_way()
        since, slices = self._under_way.get(message_digest, inf), Slices()
        near, far = list[str](), list[str]()
        for task_id, created_at in self._found[message_digest].items():
            await slices.yield_if_due()
            if (
                not self._fits(record, created_at, WRONG_CLOCK + NEAR)
                or task_id in self._roster.named
            ):
                continue
            if await self._ledger.find(task_id):
                continue
            if since < inf and (created_at is None or created_at >= since - WRONG_CLOCK - NEAR):
                return None  # it may be that one's
            (near if self._fits(record, created_at, NEAR) else far).append(task_id)
        ids = [task_id for task_id in near or far if task_id not in self._roster.named]
        return Proposal(ids, near=bool(near))

    def _fits(self, record: Record, created_at: float | None, wrong: float) -> bool:
        if created_at is None:
            return True  # nothing speaks against it
        latest = (record.posted_at or record.lost_at or record.created_at) + self._create_timeout
        return _sent_from(record) - wrong <= created_at <= latest + wrong

    async def _read_under_way(self) -> Mapping[str, float]:
        since: dict[str, float] = {}
        alive: dict[str, bool] = {}
        slices = Slices()
        for row in await self._ledger.unfinished():
            await slices.yield_if_due()
            if row.message_digest is None or row.message_digest not in self._digests:
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
