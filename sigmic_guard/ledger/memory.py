"""``memory:``, the ledger that survives nothing: for tests, and for who opts out of the rest."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from anyio import current_time
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger.loops import Ending, Loop, notice
from sigmic_guard.ledger.protocol import Refusal
from sigmic_guard.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sigmic_guard.ledger.protocol import Write
    from sigmic_guard.lifecycle import Record


#: Writes of a large batch between which others get their turn; they take less than a millisecond.
SLICE: Final = 512


class MemoryStore:
    """What the handles on one ``memory:`` ledger share, as processes share a file."""

    def __init__(self) -> None:
        self.rows: dict[str, Record] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.owners: set[str] = set()
        #: Finished rows of which it is worth knowing; see :meth:`Ledger.absent`.
        self.absent: dict[str, Record] = {}
        #: By owner, in seconds since the epoch.
        self.last_seen: dict[str, float] = {}
        #: By dead owner, on anyio's clock.
        self.seen_dead: dict[str, float] = {}


class MemoryLedger:
    """Keeps the unfinished rows only: nobody can come back to read a finished one.

    :param store: another handle's ``store``, to see the same rows; default: one of its own.
    """

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self._owner_id: str | None = None
        self._pid = 0
        self._ending: Ending | None = None

    async def open(self, owner_id: str) -> None:
        """Announce the owner.

        :raises LedgerError: the handle is open.
        """
        if self._owner_id is not None:
            raise LedgerError("the ledger is open already in this handle: make one for each owner")
        notice()
        self._owner_id = owner_id
        self._pid = os.getpid()
        self.store.owners.add(owner_id)
        # An owner whose loop is gone is dead, whatever its process does.
        self._ending = Ending(Loop(), partial(self.store.owners.discard, owner_id))

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        """Do the writes; see :meth:`~sigmic_guard.ledger.protocol.Ledger.commit`."""
        self._check_open()
        refusals: list[Refusal | None] = []
        for record, expected in writes:
            refusals.append(self._write(record, expected))
            if len(refusals) % SLICE == 0:
                await checkpoint()
        return refusals

    def _write(self, record: Record, expected: int) -> Refusal | None:
        rows, keys = self.store.rows, self.store.keys
        stored = rows.get(record.intent_id)
        if (stored.version if stored is not None else 0) != expected:
            # A row that is so by now was written so, by a commit that was thought to have failed.
            return None if stored == record else Refusal.CONFLICT
        finished = record.finished_at is not None
        if record.key is not None:
            slot = record.namespace, record.key
            holder = keys.get(slot, record.intent_id)
            if holder != record.intent_id and not finished:
                return Refusal.DUPLICATE_KEY
            if not finished:
                keys[slot] = record.intent_id
            elif holder == record.intent_id:
                keys.pop(slot, None)
        if finished:
            rows.pop(record.intent_id, None)
            if record.state is State.NEVER_CREATED and record.lost_at is not None:
                self.store.absent[record.intent_id] = record
        else:
            rows[record.intent_id] = record
        return None

    async def get(self, intent_id: str) -> Record | None:
        """Return one row, unless it finished."""
        self._check_open()
        return self.store.rows.get(intent_id)

    async def find(self, identifier: str) -> Sequence[Record]:
        """Return the unfinished rows whose intent id or remote id it is."""
        self._check_open()
        rows = self.store.rows.values()
        return [row for row in rows if identifier in {row.intent_id, row.remote_id}]

    async def holder(self, namespace: str, key: str) -> Record | None:
        """Return the unfinished row that holds the key."""
        self._check_open()
        intent_id = self.store.keys.get((namespace, key))
        return None if intent_id is None else self.store.rows.get(intent_id)

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        """Return the rows that have no ``finished_at``."""
        self._check_open()
        return [
            row
            for row in self.store.rows.values()
            if namespace in {None, row.namespace}
            and owner_id in {None, row.owner_id}
            and remote_id in {None, row.remote_id}
        ]

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        """Return the ids of those who own unfinished rows."""
        self._check_open()
        rows = self.store.rows.values()
        if namespace is None:
            return {row.owner_id for row in rows}
        return {row.owner_id for row in rows if row.namespace == namespace}

    async def absent(self, namespace: str, since: float) -> Sequence[Record]:
        """Return the rows whose absence was proven since; older ones are forgotten."""
        self._check_open()
        absent = self.store.absent
        for row in list(absent.values()):
            if row.namespace == namespace and (row.finished_at or since) < since:
                del absent[row.intent_id]
        return [row for row in absent.values() if row.namespace == namespace]

    async def owner_alive(self, owner_id: str) -> bool:
        """Tell whether the owner has a handle open on this store."""
        self._check_open()
        notice()
        return owner_id in self.store.owners

    async def last_seen(self, owner_id: str) -> float | None:
        """Return when the owner last came by."""
        self._check_open()
        return self.store.last_seen.get(owner_id)

    async def dead_for(self, owner_id: str) -> float:
        """Return the seconds since somebody first asked this of a dead owner."""
        self._check_open()
        now = current_time()
        if owner_id in self.store.owners:
            return 0.0
        return max(0.0, now - self.store.seen_dead.setdefault(owner_id, now))

    async def upkeep(self, now: float) -> None:
        """Leave a sign of life, and forget the dead who left no row."""
        self._check_open()
        assert self._owner_id is not None
        self.store.last_seen[self._owner_id] = now
        known = self.store.owners | {row.owner_id for row in self.store.rows.values()}
        for owner_id in self.store.last_seen.keys() - known:
            del self.store.last_seen[owner_id]
        for owner_id in self.store.seen_dead.keys() - known:
            del self.store.seen_dead[owner_id]

    async def aclose(self) -> None:
        """Withdraw the announcement."""
        if self._owner_id is not None:
            self.store.owners.discard(self._owner_id)
            self._owner_id = None
        if self._ending is not None:
            self._ending.forget()

    def _check_open(self) -> None:
        if self._owner_id is None:
            raise LedgerError("the ledger is not open: call open(), and nothing after aclose()")
        if self._pid != os.getpid():
            raise LedgerError(
                f"the ledger was opened by another process (pid {self._pid}), from which this one "
                "was forked, and in memory nothing is shared: make one here"
            )
