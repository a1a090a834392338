"""The way of every record into the ledger: one writer, in order, a transaction for all that waits.

Whoever changes a record leaves it here with a plain call. While one transaction is under way the
next fills up, which makes the group commit by itself; several steps of one record become one write.
A ledger that fails never stops a DELETE: what could not be written is kept and tried again, and
only those who asked for durability (:meth:`Outbox.commit`) are told.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from anyio import Event, move_on_after, sleep

from sigmic_guard.errors import DuplicateKey, LedgerError, bare, fresh
from sigmic_guard.ledger import Refusal, Write
from sigmic_guard.supervisor.timer import Slices

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe import Observer

#: Seconds before a failed transaction is tried again.
RETRY: Final = 1.0


class _Batch:
    """What goes into one transaction, and how it went."""

    __slots__ = ("awaited", "done", "error", "in_doubt", "refusals", "writes")

    def __init__(self) -> None:
        self.writes: dict[str, Write] = {}
        #: The new rows that somebody waits for: told of a failure, and not tried again.
        self.awaited: set[str] = set()
        self.done = Event()
        self.error: LedgerError | None = None
        #: It was interrupted: nobody knows whether it was done.
        self.in_doubt = False
        self.refusals: dict[str, Refusal] = {}


class Outbox:
    """Queues writes and commits them. :meth:`run` is the worker."""

    def __init__(self, ledger: Ledger, observer: Observer) -> None:
        self._ledger = ledger
        self._observer = observer
        self._next = _Batch()
        self._under_way: _Batch | None = None
        self._wanted = Event()
        #: Live records without a row: not written yet, or refused. Their steps change nothing.
        self._rowless: set[str] = set()
        self._closed = False

    def withhold(self, record: Record) -> None:
        """Take a record on that is not to be written before :meth:`insert`."""
        self._rowless.add(record.intent_id)

    def release(self, record: Record) -> None:
        """Let go of a record that was withheld and will not be written."""
        self._rowless.discard(record.intent_id)

    def insert(self, record: Record) -> None:
        """Queue the first row of a record that was withheld."""
        self._rowless.discard(record.intent_id)
        self.add(None, record)

    def add(self, before: Record | None, after: Record, *, urgent: bool = True) -> None:
        """Queue a record; what is not ``urgent`` waits for company."""
        if after.intent_id in self._rowless:
            if after.finished_at is not None:
                self._rowless.discard(after.intent_id)
            return
        waiting = self._next.writes.get(after.intent_id)
        if waiting is not None:
            expected = waiting.expected  # two steps in one write
        else:
            expected = 0 if before is None else before.version
        self._next.writes[after.intent_id] = Write(after, expected)
        if urgent:
            self._wanted.set()

    async def commit(self, record: Record, *, timeout: float) -> None:
        """Insert a record, and wait until it is durable, at most ``timeout`` seconds.

        :raises DuplicateKey: an unfinished row holds the key. The row is not written.
        :raises LedgerError: the row is not written, and will not be; or nobody knows, or the time
            is over, and what becomes of the record will be written all the same.
        """
        batch = self._next
        self.insert(record)
        batch.awaited.add(record.intent_id)
        with move_on_after(timeout):
            await batch.done.wait()
        if not batch.done.is_set():
            raise LedgerError(
                f"the ledger did not answer within {timeout:g} s, so the task was not taken on; "
                "look at its disk, and at who else has the file open"
            )
        if batch.error is not None:
            raise fresh(batch.error)
        match batch.refusals.get(record.intent_id):
            case None:
                return
            case Refusal.DUPLICATE_KEY:
                raise DuplicateKey(
                    "an unfinished task in the ledger holds the key", key=record.key or ""
                )
            case Refusal.CONFLICT:
                raise LedgerError("the ledger already has a row with the new task's intent id")

    async def flush(self) -> None:
        """Wait until everything that is queued now was written, or could not be."""
        if self._closed:
            return
        for batch in (self._under_way, self._next if self._next.writes else None):
            if batch is not None:
                self._wanted.set()
                await batch.done.wait()

    def close(self) -> None:
        """Let nobody wait for a worker that has gone: what is still queued is not written."""
        self._closed = True
        for batch in (self._under_way, self._next):
            if batch is not None and not batch.done.is_set():
                batch.error = LedgerError("the supervisor shut down before this could be written")
                batch.done.set()

    async def run(self) -> None:
        """Commit for ever."""
        if self._under_way is not None:
            self._under_way.error = LedgerError("a transaction was interrupted, and is repeated")
            self._under_way.in_doubt = True
            await self._close(self._under_way)
        while True:
            await self._wanted.wait()
            self._wanted = Event()
            batch = self._next
            if not batch.writes:
                continue
            self._under_way, self._next = batch, _Batch()
            started = perf_counter()
            try:
                refusals = await self._ledger.commit(list(batch.writes.values()))
            except LedgerError as error:
                batch.error = bare(error)  # the frames hold rows
                self._observer.ledger_failed(len(batch.writes), error)
            else:
                self._observer.ledger_committed(len(batch.writes), perf_counter() - started)
                if any(refusals):
                    for intent_id, refusal in zip(batch.writes, refusals, strict=True):
                        if refusal is not None:
                            await self._refused(batch, intent_id, refusal)
            await self._close(batch)
            if batch.error is not None:
                await sleep(RETRY)

    async def _refused(self, batch: _Batch, intent_id: str, refusal: Refusal) -> None:
        record = batch.writes[intent_id].record
        if refusal is Refusal.CONFLICT and await self._is_ours(record):
            return
        batch.refusals[intent_id] = refusal
        if intent_id not in batch.awaited:
            error = LedgerError(f"the row of a task was changed by somebody else ({refusal})")
            self._observer.ledger_failed(1, error)

    async def _is_ours(self, record: Record) -> bool:
        """Tell whether nobody but us wrote the row: then it was in a transaction in doubt."""
        try:
            stored = await self._ledger.get(record.intent_id)
        except LedgerError:
            return False
        if stored is None:
            return record.finished_at is not None  # written, and forgotten since
        if stored.owner_id != record.owner_id:
            return False
        if stored.version < record.version:
            newest = self._next.writes.get(record.intent_id, Write(record, 0))
            self._next.writes[record.intent_id] = Write(newest.record, stored.version)
            self._wanted.set()
        return True

    async def _close(self, batch: _Batch) -> None:
        """Tell those who wait, and queue again what must not be lost."""
        later, slices = self._next.writes, Slices()
        awaited = set() if batch.in_doubt else batch.awaited
        for intent_id in awaited if batch.error is not None else batch.refusals:
            newest = later.pop(intent_id, batch.writes[intent_id])
            if intent_id in awaited and newest.record.finished_at is None:
                self._rowless.add(intent_id)
        if batch.error is not None:
            for intent_id, write in batch.writes.items():
                if intent_id not in awaited:
                    newest = later.get(intent_id, write)
                    later[intent_id] = Write(newest.record, write.expected)
                await slices.breathe()  # hit here, it is done again, and comes to the same
            if later:
                self._wanted.set()
        self._under_way = None
        batch.done.set()
