"""Sparing tasks: who is about to end one lets it go where another row says that it is wanted.

A live owner that has adopted the task wants it, and so does whoever may ask for its key; which rows
say so :func:`~sigmic_guard.lifecycle.wants` tells. Only this supervisor's record of it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sigmic_guard.ledger import CorruptRows
from sigmic_guard.lifecycle import CancelReason, Event, State, wants
from sigmic_guard.lifecycle.states import TO_BE_ENDED
from sigmic_guard.supervisor.ground.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground

#: Where a task is whose end is wanted, or about to be.
_SPARED: Final = TO_BE_ENDED | {State.TAKEN_OVER}


class Sparer:
    """Finds out what somebody else wants, and lets it go."""

    def __init__(self, ground: Ground) -> None:
        self._roster = ground.roster
        self._ledger = ground.ledger
        self._owner_id = ground.owner_id

    def is_wanted_here(self, record: Record) -> bool:
        """Tell whether this supervisor has adopted the same task; the ledger may not know yet."""
        ours = self._roster.named.get(record.remote_id or "")
        return ours is not None and wants(ours.record, record, alive=True)

    async def is_wanted(self, record: Record) -> bool:
        """Tell whether another row of the same task is of somebody who wants it.

        :raises LedgerError: the ledger could not be read.
        """
        if record.remote_id is None:
            return False
        if self.is_wanted_here(record):
            return True
        for other in await self._ledger.unfinished(remote_id=record.remote_id):
            if wants(other, record, alive=True) and wants(
                other, record, alive=await self._ledger.owner_alive(other.owner_id)
            ):
                return True
        return False

    async def spare_all(self, tasks: Iterable[Entry], *, orphans_only: bool) -> None:
        """Let those go that a shutdown is about to end, and that somebody else wants.

        Of our own tasks (not the orphans) our row has to say in the ledger that it is to end before
        the other's row is read. Otherwise two owners that leave at the same time would let a task
        go for each other's sake.

        :raises LedgerError: the ledger could not be read.
        """
        slices = Slices()
        named: dict[str, list[Entry]] = {}
        for task in tasks:
            record = task.record
            by_shutdown = record.reason is CancelReason.SHUTDOWN and not orphans_only
            if (
                (record.orphan or by_shutdown)
                and record.remote_id is not None
                and record.state in TO_BE_ENDED
            ):
                named.setdefault(task.id, []).append(task)
            await slices.yield_if_due()
        if not named:
            return
        for owner_id in await self._ledger.owners():
            if owner_id == self._owner_id:
                continue
            alive = await self._ledger.owner_alive(owner_id)
            try:
                others = await self._ledger.unfinished(owner_id=owner_id)
            except CorruptRows as error:
                others = error.readable  # better than not to look at all
            for other in others:
                for task in named.get(other.remote_id or "", ()):
                    if wants(other, task.record, alive=alive):
                        self.let_go(task)
                await slices.yield_if_due()

    def let_go(self, task: Entry) -> None:
        """Take this record of the task off the books: another one counts."""
        if task.record.state in _SPARED:
            self._roster.apply(task, Event.FORGET)
