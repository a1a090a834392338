"""The way of every record into the ledger: one writer, in order, a transaction for all that waits.

Whoever changes a record leaves it here with a plain call. While one transaction is under way the
next fills up, which makes the group commit by itself; several steps of one record become one write.
A ledger that fails never stops a DELETE: what could not be written is kept and tried again, and
only those who asked for durability (:meth:`Outbox.insert_and_tell`) are told.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from anyio import Event, move_on_after

from sigmic_guard.errors import DuplicateKey, LedgerError, bare, fresh
from sigmic_guard.ledger import Refusal, Write
from sigmic_guard.lifecycle import State
from sigmic_guard.observe import LedgerCommitted, LedgerFailed
from sigmic_guard.supervisor.ground.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.errors import SigmicGuardError
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe import Observer
    from sigmic_guard.supervisor.ground.lifetime import Lifetime
    from sigmic_guard.supervisor.ground.timer import Alarm, Timer

#: Seconds before a failed transaction is tried again.
RETRY_SECONDS: Final = 1.0
#: The least, and the part of what is left, where there is an end to the time for it.
MIN_RETRY_SECONDS: Final = 0.05
RETRY_SHARE: Final = 0.125
#: Rows of one transaction there: what is written is written when the time is over.
MAX_LAST_ROWS: Final = 4096


class _Waiter:
    """Who waits for a new row, and is told once."""

    __slots__ = ("_told", "alarm", "record")

    def __init__(self, record: Record, told: Callable[[SigmicGuardError | None], None]) -> None:
        self.record = record
        #: For when he has waited long enough.
        self.alarm: Alarm | None = None
        self._told: Callable[[SigmicGuardError | None], None] | None = told

    def tell(self, error: SigmicGuardError | None) -> None:
        told, self._told = self._told, None
        if told is not None:
            told(error)


class _Batch:
    """What goes into one transaction, and how it went."""

    __slots__ = ("awaited", "done", "error", "in_doubt", "refusals", "writes")

    def __init__(self) -> None:
        self.writes: dict[str, Write] = {}
        #: Of the new rows that somebody waits for: told of a failure, and not tried again.
        self.awaited: dict[str, _Waiter] = {}
        self.done = Event()
        self.error: LedgerError | None = None
        #: It was interrupted: nobody knows whether it was done.
        self.in_doubt = False
        self.refusals: dict[str, Refusal] = {}

    def verdict(self, record: Record) -> SigmicGuardError | None:
        """Say why the record's new row was not written, if it was not."""
        if self.error is not None:
            return fresh(self.error)
        match self.refusals.get(record.intent_id):
            case None:
                return None
            case Refusal.DUPLICATE_KEY:
                return DuplicateKey(
                    "an unfinished task in the ledger holds the key", key=record.key or ""
                )
            case Refusal.CONFLICT:
                return LedgerError("the ledger already has a row with the new task's intent id")


class Outbox:
    """Queues writes and commits them. :meth:`write_rows` is the worker."""

    def __init__(
        self, ledger: Ledger, observer: Observer, lifetime: Lifetime, timer: Timer
    ) -> None:
        self._ledger = ledger
        self._observer = observer
        self._lifetime = lifetime
        self._timer = timer
        self._next = _Batch()
        self._under_way: _Batch | None = None
        self._wanted = Event()
        #: Live records without a row: not written yet, or refused. Their steps change nothing.
        self._rowless: set[str] = set()
        self._closed = False
        #: When the time to write is over, on anyio's clock, and that this is known.
        self._ends_at: float | None = None
        self._hastened = Event()

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
        told: list[SigmicGuardError | None] = []
        woken = self._lifetime.make_event()

        def tell(error: SigmicGuardError | None) -> None:
            told.append(error)
            woken.set()

        self.insert_and_tell(record, tell, timeout=timeout)
        await woken.wait()
        error = told.pop()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame

    def insert_and_tell(
        self,
        record: Record,
        told: Callable[[SigmicGuardError | None], None],
        *,
        timeout: float,
    ) -> None:
        """Insert a record, and tell when it is durable, or why not: what :meth:`commit` raises.

        :param told: is called once, after ``timeout`` seconds at the latest; must not raise.
        """
        batch = self._next
        self.insert(record)
        waiter = batch.awaited[record.intent_id] = _Waiter(record, told)
        if batch.done.is_set():  # there is no worker any more
            waiter.tell(batch.verdict(record))
        else:
            until = self._lifetime.moment() + timeout
            waiter.alarm = self._timer.at(until, self._late, waiter, timeout)

    def _late(self, waiter: _Waiter, timeout: float) -> None:
        waiter.tell(
            LedgerError(
                f"the ledger did not answer within {timeout:g} s, so the task was not taken on; "
                "look at its disk, and at who else has the file open"
            )
        )

    def holds(self, record: Record) -> bool:
        """Tell whether a change of the record's row is not written yet."""
        return record.intent_id in self._next.writes or (
            self._under_way is not None and record.intent_id in self._under_way.writes
        )

    async def flush(self) -> bool:
        """Wait until everything that is queued now was written, or could not be: then ``False``."""
        if self._closed:
            return False
        written = True
        for batch in (self._under_way, self._next if self._next.writes else None):
            if batch is not None:
                self._wanted.set()
                await batch.done.wait()
                written = written and batch.error is None
        return written

    def hasten(self, ends_at: float) -> None:
        """Let a failed transaction be tried again soon, and none be so large that all is in doubt.

        :param ends_at: when the time to write is over, on anyio's clock.
        """
        self._ends_at = ends_at
        self._hastened.set()

    async def empty(self) -> None:
        """Wait until nothing is queued, however often that has to be tried."""
        while not self._closed and (self._under_way is not None or self._next.writes):
            await self.flush()

    async def unwritten(self) -> int:
        """Return how many ends of tasks are queued, or under way, and so not known to be written.

        To be called when nobody commits any more.
        """
        count, slices, under_way = 0, Slices(), self._under_way
        for batch in (self._next, under_way):
            for intent_id, write in batch.writes.items() if batch is not None else ():
                if write.record.over and (
                    batch is self._next or intent_id not in self._next.writes
                ):
                    count += 1
                await slices.yield_if_due()
        return count

    def close(self) -> None:
        """Let nobody wait for a worker that has gone: what is still queued is not written."""
        self._closed = True
        for batch in (self._under_way, self._next):
            if batch is not None and not batch.done.is_set():
                batch.error = LedgerError("the supervisor shut down before this could be written")
                self._tell(batch)

    async def write_rows(self) -> None:
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
            try:
                await self._write(batch)
            except LedgerError as error:
                batch.error = bare(error)  # the frames hold rows
                self._observer.observe(LedgerFailed(len(batch.writes), error))
            await self._close(batch)
            if batch.error is not None:
                await self._pause()

    async def _write(self, batch: _Batch) -> None:
        """Commit the batch; of one that failed in the middle, what was written is out of it."""
        writes = list(batch.writes.values())
        size = len(writes) if self._ends_at is None or batch.awaited else MAX_LAST_ROWS
        for start in range(0, len(writes), size):
            portion = writes[start : start + size]
            started = perf_counter()
            refusals = await self._ledger.commit(portion)
            self._observer.observe(LedgerCommitted(len(portion), perf_counter() - started))
            if any(refusals):
                for write, refusal in zip(portion, refusals, strict=True):
                    if refusal is not None:
                        await self._refused(batch, write, refusal)
            if len(portion) < len(writes):
                for record, _ in portion:
                    if record.intent_id not in batch.refusals:
                        del batch.writes[record.intent_id]

    async def _pause(self) -> None:
        """Wait before the next try."""
        if self._ends_at is None:
            with move_on_after(RETRY_SECONDS):
                await self._hastened.wait()
        else:
            left = self._ends_at - self._lifetime.moment()
            with move_on_after(min(RETRY_SECONDS, max(left * RETRY_SHARE, MIN_RETRY_SECONDS))):
                await Event().wait()

    async def _refused(self, batch: _Batch, write: Write, refusal: Refusal) -> None:
        if refusal is Refusal.CONFLICT and await self._is_ours(write):
            return
        record = write.record
        batch.refusals[record.intent_id] = refusal
        if record.intent_id not in batch.awaited:
            error = LedgerError(f"the row of a task was changed by somebody else ({refusal})")
            self._observer.observe(LedgerFailed(1, error))

    async def _is_ours(self, write: Write) -> bool:
        """Tell whether nobody but us wrote the row: then it was in a transaction in doubt."""
        record = write.record
        try:
            stored = await self._ledger.get(record.intent_id)
        except LedgerError:
            return False
        if stored is None:
            return record.finished_at is not None  # written, and forgotten since
        if stored.owner_id != record.owner_id:
            return record.state is State.HANDED_OVER  # it was, and somebody has it by now
        if stored.version == write.expected:
            return False  # with the version that was expected another try would come to the same
        if stored.version < record.version:
            newest = self._next.writes.get(record.intent_id, Write(record, 0))
            self._next.writes[record.intent_id] = Write(newest.record, stored.version)
            self._wanted.set()
        return True

    async def _close(self, batch: _Batch) -> None:
        """Tell those who wait, and queue again what must not be lost."""
        later, slices = self._next.writes, Slices()
        awaited = set[str]() if batch.in_doubt else batch.awaited.keys()
        refused = {} if batch.in_doubt else batch.refusals
        failed = awaited if batch.error is not None else set[str]()
        for intent_id in failed | refused.keys():
            newest = later.pop(intent_id, batch.writes[intent_id])
            if intent_id in awaited and newest.record.finished_at is None:
                self._rowless.add(intent_id)
        if batch.error is not None:
            for intent_id, write in batch.writes.items():
                if intent_id not in awaited and intent_id not in refused:
                    newest = later.get(intent_id, write)
                    later[intent_id] = Write(newest.record, write.expected)
                await slices.yield_if_due()  # hit here, it is done again, and comes to the same
            if later:
                self._wanted.set()
        self._under_way = None
        self._tell(batch)

    def _tell(self, batch: _Batch) -> None:
        """Tell all who wait for it: it is over."""
        batch.done.set()
        for waiter in batch.awaited.values():
            self._timer.forget(waiter.alarm)
            waiter.tell(batch.verdict(waiter.record))
