"""Finding the tasks of dead owners, and taking them over to be ended.

Level-triggered: at start-up, and then now and again, it looks for unfinished rows whose owner is
dead, whatever has happened before, and takes each by compare-and-set, so that two reapers never
work on the same row. From then on a row is a task of this supervisor like any other, and takes the
ordinary way: the triage asks how it is, the canceller ends it, the reconciler finds what has no
name.

What cannot be reached, be it the ledger or the API, leads to nothing but another try. A ledger that
hangs holds up this worker, and nobody else: not a DELETE, nor a shutdown, which dismisses it.
"""

from __future__ import annotations

from collections import deque
from math import inf
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

from anyio import Event, current_time, move_on_after

from sigmic_guard.errors import LedgerError, SigmicGuardError, SupervisorShutdown, fresh
from sigmic_guard.ledger import CorruptRows, Write, find_orphans
from sigmic_guard.lifecycle import (
    REAPABLE,
    Record,
    State,
    TakeOver,
    Verdict,
    claimable_for,
    contradiction,
    judge,
    step,
)
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.lifecycle.orphan import orphan_since
from sigmic_guard.lifecycle.states import SETTLED
from sigmic_guard.observe import LedgerCommitted, LedgerFailed
from sigmic_guard.supervisor.ground.from_entry import orphan_row_left, orphan_row_of
from sigmic_guard.supervisor.ground.results import OrphanRow, ReapReport
from sigmic_guard.supervisor.ground.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sigmic_guard.ledger import Orphan
    from sigmic_guard.supervisor.ground.entries import Entries
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.recovery.reconciler import Reconciler
    from sigmic_guard.supervisor.recovery.triage import Triage
    from sigmic_guard.supervisor.work.sparing import Sparer

#: Seconds between two rounds, give or take a half.
ROUND_SECONDS: Final = 30.0
#: And at least, where one that waited for its key is due before.
MIN_ROUND_SECONDS: Final = 1.0
#: Rows that are taken in one transaction.
MAX_ROWS: Final = 500


class TakenRow(NamedTuple):
    """A row that is ours as soon as it is written."""

    record: Record
    #: What it is then: the same, or the next step of one that was claimed by its key, if nobody
    #: should want it any more.
    orphan: Record


class Round:
    """One look at all rows, and what was found."""

    def __init__(self) -> None:
        self.done = Event()
        self.error: SigmicGuardError | None = None
        #: What was taken over.
        self.taken: list[Entry] = []
        #: What is left to somebody else, or for later.
        self.left: list[tuple[Orphan, Verdict]] = []
        #: Rows that nobody here can act on, and why, by intent id.
        self.corrupt: dict[str, str] = {}
        #: When the first that waits for its key has waited enough, on anyio's clock.
        self.due = inf


class Reaper:
    """Takes dead owners' tasks over. :meth:`reap_in_rounds` is the worker."""

    def __init__(
        self,
        ground: Ground,
        reconciler: Reconciler,
        triage: Triage,
        entries: Entries,
        sparer: Sparer,
    ) -> None:
        self._roster = ground.roster
        self._api = ground.api
        self._ledger = ground.ledger
        self._outbox = ground.outbox
        self._observer = ground.observer
        self._owner_id = ground.owner_id
        self._namespace = ground.settings.namespace
        self._reconciler = reconciler
        self._triage = triage
        self._entries = entries
        self._sparer = sparer
        self.tally = triage.tally
        #: Rows of which a hit left unknown whether they are ours, by intent id.
        self._in_doubt: dict[str, TakenRow] = {}
        #: What the last round found that nobody here can act on.
        self._corrupt: Mapping[str, str] = {}
        #: Rows that are ours by now, and that nobody has seen to yet.
        self._ours: deque[TakenRow] = deque()
        self._holding = False
        self._closed: SupervisorShutdown | None = None
        self._round: Round | None = None
        self._next = Round()
        self._wanted = Event()

    # --- from outside ---------------------------------------------------------------------------

    def hold(self) -> None:
        """Take nothing over any more; what is ours already is a task like any other."""
        while self._ours:
            self.admit(self._ours.popleft())
        self._holding = True

    def close(self) -> None:
        """Tell those who wait that no round comes any more."""
        self._closed = SupervisorShutdown("the supervisor shut down, and reaps no more")
        for round_ in (self._round, self._next):
            if round_ is not None:
                round_.error = self._closed
                round_.done.set()
        self.tally.close()

    async def request(self) -> Round:
        """Wait for a round that begins after now.

        :raises LedgerError: the ledger could not be read or written; the next round tries again.
        :raises SupervisorShutdown: no round comes any more.
        """
        if self._closed is not None:
            raise fresh(self._closed)
        round_ = self._next
        self._wanted.set()
        await round_.done.wait()
        if round_.error is not None:
            raise fresh(round_.error)
        return round_

    async def reap(self) -> ReapReport:
        """Wait for a round, and until nobody here works on what was found.

        :raises LedgerError: the ledger could not be read or written; the next round tries again.
        :raises SupervisorShutdown: no round comes any more.
        """
        tasks = set(self._triage.tasks)
        round_ = await self.request()
        tasks |= self._triage.tasks | set(round_.taken)
        reaped, left, slices = list[OrphanRow](), list[OrphanRow](), Slices()
        for task in tasks:
            await task.until(lambda task: not self.works_on(task) or task.unsupervised)
            await slices.yield_if_due()
        for task in tasks:
            found = orphan_row_of(task)
            (reaped if found.result is not None else left).append(found)
            await slices.yield_if_due()
        now = self._roster.now()
        for orphan, verdict in round_.left:
            left.append(orphan_row_left(orphan, verdict, now))
            await slices.yield_if_due()
        return ReapReport(reaped=reaped, left=left, corrupt=dict(round_.corrupt))

    def works_on(self, task: Entry) -> bool:
        """Tell whether anything more may become of a task here by itself."""
        if task.record.state is State.UNKNOWN:
            return self._reconciler.looks_for(task)
        return task.record.state not in SETTLED

    # --- rounds ---------------------------------------------------------------------------------

    async def reap_in_rounds(self) -> None:
        """Look now, and then again and again."""
        while True:
            if self._round is None:
                self._round, self._next, self._wanted = self._next, Round(), Event()
            round_ = self._round
            try:
                await self._look_around(round_)
            except LedgerError as error:
                if self._closed is not None:
                    return  # the ledger may be closed by now, which is no failure
                round_.error = error
                self._observer.observe(LedgerFailed(0, error))
            self._round = None
            round_.done.set()
            until_due = max(MIN_ROUND_SECONDS, round_.due - current_time())
            with move_on_after(min(ROUND_SECONDS * (0.5 + random()), until_due)):
                await self._wanted.wait()

    async def _look_around(self, round_: Round) -> None:
        # A write that was under way when it came to be in doubt is done before the upkeep is.
        doubts = dict(self._in_doubt)
        await self._ledger.upkeep(self._roster.now())
        await self._clear_doubts(doubts)
        await self._admit_ours()
        to_take: list[tuple[Orphan, Verdict]] = []
        round_.left, round_.due = [], inf  # a round whose worker was hit is begun again
        orphans, corrupt = await find_orphans(self._ledger, self._namespace)
        round_.corrupt = dict(corrupt)
        for orphan in orphans:
            try:
                verdict = await self.judge(orphan)
            except CorruptRows as error:
                round_.corrupt |= error.corrupt
                continue
            (to_take if verdict in REAPABLE else round_.left).append((orphan, verdict))
            if verdict is Verdict.WAIT:
                left = claimable_for(*orphan, self._roster.now())
                round_.due = min(round_.due, current_time() + left)
        self._tell_corrupt(round_.corrupt)
        await self.tally.report(round_.left)
        self._triage.ask_again()
        await self.take_over(to_take)
        await self._look_for_strays()

    async def _look_for_strays(self) -> None:
        since, slices = self._reconciler.afterlife.since(self._roster.now()), Slices()
        recent: list[Record] = []
        for record in await self._ledger.absent(self._namespace, since):
            if self._triage.is_within_reach(record) and self._reconciler.afterlife.lasts(record):
                recent.append(record)
            await slices.yield_if_due()
        self._reconciler.watch_for_strays(recent)

    def _tell_corrupt(self, corrupt: Mapping[str, str]) -> None:
        """Tell of rows that nobody here can act on, whenever they are others than before."""
        if corrupt and corrupt != self._corrupt:
            self._observer.observe(LedgerFailed(0, CorruptRows(corrupt)))
        self._corrupt = corrupt

    async def judge(self, orphan: Orphan) -> Verdict:
        """Tell what is to become of a dead owner's row.

        :raises CorruptRows: this row contradicts itself, or another of its task is corrupt.
        :raises LedgerError: the ledger could not be read.
        """
        record = orphan.record
        if (why := contradiction(record)) is not None:
            raise CorruptRows({record.intent_id: why})
        verdict = self._judge(orphan, wanted=False)
        if verdict is Verdict.REAP and await self._sparer.is_wanted(record):
            verdict = self._judge(orphan, wanted=True)
        return verdict

    def _judge(self, orphan: Orphan, *, wanted: bool) -> Verdict:
        return judge(
            orphan.record,
            base_url=self._api.base_url,
            credential_fingerprint=self._api.credential_fingerprint,
            orphaned_at=orphan.orphaned_at,
            dead_for=orphan.dead_for,
            now=self._roster.now(),
            wanted=wanted,
        )

    # --- taking over ----------------------------------------------------------------------------

    async def take_over(self, orphans: Sequence[tuple[Orphan, Verdict]]) -> None:
        """Take rows over that are still as they were read, and see to them.

        :raises LedgerError: the ledger could not be written.
        """
        slices = Slices()
        for start in range(0, len(orphans), MAX_ROWS):
            taken: list[TakenRow] = []
            for orphan, verdict in orphans[start : start + MAX_ROWS]:
                now = self._roster.now()
                since = orphan_since(*orphan, now)
                heir = TakeOver(self._owner_id, since, release=verdict is Verdict.RELEASE)
                after = step(orphan.record, Happening.TAKE_OVER, now, heir=heir)
                taken.append(TakenRow(after, after))
                await slices.yield_if_due()
            self._ours.extend(await self.commit(taken))
            await self._admit_ours()

    async def _admit_ours(self) -> None:
        """See to what was taken over; if this is hit, the next round goes on with it."""
        slices = Slices()
        try:
            while self._ours:
                self.admit(self._ours.popleft())
                await slices.yield_if_due()
        except BaseException:
            self._wanted.set()
            raise

    async def commit(self, taken: Sequence[TakenRow]) -> Sequence[TakenRow]:
        """Write take-overs, and return those that are ours now.

        Of whatever a hit leaves in doubt the next round finds out.

        :raises LedgerError: none was written.
        """
        if self._holding:
            return []
        began = perf_counter()
        try:
            refusals = await self._ledger.commit(
                [Write(row.record, row.record.version - 1) for row in taken]
            )
        except LedgerError:
            self._note_doubt(taken)  # and no hurry: it may fail again
            raise
        except BaseException:
            if self._holding:  # no round comes any more
                for row in taken:
                    self.admit(row)
            self._doubt(taken)
            raise
        self._observer.observe(LedgerCommitted(len(taken), perf_counter() - began))
        return [one for one, refusal in zip(taken, refusals, strict=True) if refusal is None]

    def _doubt(self, taken: Iterable[TakenRow]) -> None:
        """Have a round find out which of them are ours: nobody else here knows of them."""
        self._note_doubt(taken)
        self._wanted.set()

    def _note_doubt(self, taken: Iterable[TakenRow]) -> None:
        self._in_doubt |= {row.record.intent_id: row for row in taken}

    async def _clear_doubts(self, doubts: Mapping[str, TakenRow]) -> None:
        for intent_id, row in doubts.items():
            stored = await self._ledger.get(intent_id)
            if self._in_doubt.get(intent_id) != row:
                continue  # another worker has cleared it, or there is a newer one
            del self._in_doubt[intent_id]
            if stored == row.record:
                self.admit(row)

    def admit(self, row: TakenRow) -> None:
        """See to a row that is ours by now."""
        record, orphan = row
        if self._holding:
            # Its owner will be dead in a moment, and somebody else comes for it. A row that was not
            # taken after all has another version, and stays as it is.
            if not record.orphan:
                self._roster.hand_back(record)
            return
        if record.intent_id in self._roster.tasks:
            return  # a round and a claim wrote the same, and both were told that it is so
        if orphan is not record:
            self._outbox.add(record, orphan)
        task = self._entries.inherit(orphan)
        if self._round is not None:
            self._round.taken.append(task)
        self._triage.join(task)
        self._roster.inherit(task)
