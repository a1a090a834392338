"""Ending the tasks of dead owners.

Level-triggered: at start-up, and then now and again, it looks for unfinished rows whose owner is
dead, whatever has happened before, and takes each by compare-and-set, so that two reapers never
work on the same row. From then on a row is a task of this supervisor like any other, and takes the
ordinary way: a GET tells whether it still runs, the canceller ends it, the reconciler finds what
has no name.

What cannot be reached, be it the ledger or the API, leads to nothing but another try.
"""

from __future__ import annotations

from collections import deque
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Final

from anyio import Event, move_on_after

from sigmic_guard.errors import (
    ApiError,
    AuthenticationError,
    LedgerError,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicGuardError,
    SupervisorShutdown,
    TaskNotFound,
)
from sigmic_guard.ledger import Write, find_orphans
from sigmic_guard.lifecycle import (
    REAPABLE,
    Backoff,
    CancelReason,
    State,
    TakeOver,
    Verdict,
    judge,
    step,
)
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.supervisor.listing import seconds_of
from sigmic_guard.supervisor.results import ReapReport
from sigmic_guard.supervisor.tally import Tally
from sigmic_guard.supervisor.telling import result_of_orphan, tell_left, tell_orphan
from sigmic_guard.supervisor.timer import Slices
from sigmic_guard.supervisor.workers import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sigmic_guard.ledger import Ledger, Orphan
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe import Observer
    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.canceller import Canceller
    from sigmic_guard.supervisor.entry import Entry
    from sigmic_guard.supervisor.outbox import Outbox
    from sigmic_guard.supervisor.reconciler import Reconciler
    from sigmic_guard.supervisor.roster import Roster
    from sigmic_guard.supervisor.timer import Timer
    from sigmic_guard.supervisor.workers import Workers

#: Seconds between two rounds, give or take a half.
EVERY: Final = 30.0
#: Rows that are taken in one transaction.
PORTION: Final = 500
#: GETs under way at once, and seconds that one may take.
MAX_LOOKS: Final = 32
PATIENCE: Final = 10.0
#: Looks, after which an answer that makes no sense is taken for the only one there is.
MAX_NONSENSE: Final = 5
#: Seconds before a task is looked at again whose end was not believed.
AGAIN: Final = 1.0
#: Seconds for which a task may still appear after its absence was proven.
AFTERLIFE: Final = 600.0

_HOPELESS: Final = (AuthenticationError, PermissionDenied, TaskNotFound)


class Round:
    """One look at all rows, and what was found."""

    def __init__(self) -> None:
        self.done = Event()
        self.error: SigmicGuardError | None = None
        #: What was taken over.
        self.taken: list[Entry] = []
        #: What is left to somebody else, or for later.
        self.left: list[tuple[Orphan, Verdict]] = []


class Reaper:
    """Takes dead owners' tasks over. :meth:`run` is the worker."""

    def __init__(
        self,
        workers: Workers,
        roster: Roster,
        timer: Timer,
        api: TaskApi,
        ledger: Ledger,
        observer: Observer,
        outbox: Outbox,
        canceller: Canceller,
        reconciler: Reconciler,
        *,
        owner_id: str,
        namespace: str,
        entry_of: Callable[[Record, Verdict], Entry],
    ) -> None:
        self._roster = roster
        self._timer = timer
        self._api = api
        self._ledger = ledger
        self._observer = observer
        self._outbox = outbox
        self._canceller = canceller
        self._reconciler = reconciler
        self._owner_id = owner_id
        self._namespace = namespace
        self._entry_of = entry_of
        self._backoff = Backoff(first=0.2, most=10.0)
        self._pool: Pool[Entry] = Pool(workers, "examine", self._examine, MAX_LOOKS)
        #: Live tasks that were taken over to be ended.
        self.tasks: set[Entry] = set()
        self.tally = Tally(self.tasks, observer, roster.now, owner_id)
        #: Rows of which a hit left unknown whether they are ours, by intent id.
        self._in_doubt: dict[str, tuple[Record, Verdict]] = {}
        self._holding = False
        self._closed: SupervisorShutdown | None = None
        self._round: Round | None = None
        self._next = Round()
        self._wanted = Event()
        #: When a task ended by itself, in seconds since the epoch, where the API told.
        self._ended_at: dict[Entry, float] = {}
        roster.finished.append(self._finished)

    # --- from outside ---------------------------------------------------------------------------

    def hold(self) -> None:
        """Take nothing over any more."""
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
            raise self._closed
        round_ = self._next
        self._wanted.set()
        await round_.done.wait()
        if round_.error is not None:
            raise round_.error
        return round_

    async def reap(self) -> ReapReport:
        """Wait for a round, and until nobody here works on what was found.

        :raises LedgerError: the ledger could not be read or written; the next round tries again.
        :raises SupervisorShutdown: no round comes any more.
        """
        tasks = set(self.tasks)
        round_ = await self.request()
        tasks |= self.tasks | set(round_.taken)
        for task in tasks:
            await task.until(lambda task: not task.worked_on or task.unsupervised)
        now = self._roster.now()
        rows = [tell_orphan(task) for task in tasks]
        left = [row for row in rows if row.result is None]
        left += [tell_left(orphan, verdict, now) for orphan, verdict in round_.left]
        return ReapReport(reaped=[row for row in rows if row.result is not None], left=left)

    # --- rounds ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look now, and then again and again."""
        while True:
            if self._round is None:
                self._round, self._next, self._wanted = self._next, Round(), Event()
            round_ = self._round
            try:
                await self._look_around(round_)
            except LedgerError as error:
                round_.error = error
                self._observer.ledger_failed(0, error)
            self._round = None
            round_.done.set()
            with move_on_after(EVERY * (0.5 + random())):
                await self._wanted.wait()

    async def _look_around(self, round_: Round) -> None:
        # A write that was under way when it came to be in doubt is done before the upkeep is.
        doubts = dict(self._in_doubt)
        await self._ledger.upkeep(self._roster.now())
        await self._clear_doubts(doubts)
        to_take: list[tuple[Orphan, Verdict]] = []
        round_.left = []  # a round whose worker was hit is begun again
        for orphan in await find_orphans(self._ledger, self._namespace):
            verdict = await self.judge(orphan)
            (to_take if verdict in REAPABLE else round_.left).append((orphan, verdict))
        self.tally.report(round_.left)
        await self.take_over(to_take)
        absent = await self._ledger.absent(self._namespace, self._roster.now() - AFTERLIFE)
        self._reconciler.beware_of(filter(self._is_within_reach, absent))

    async def judge(self, orphan: Orphan) -> Verdict:
        """Tell what is to become of a dead owner's row.

        :raises LedgerError: the ledger could not be read.
        """
        record = orphan.record
        verdict = judge(
            record,
            base_url=self._api.base_url,
            credential_fingerprint=self._api.credential_fingerprint,
            orphaned_at=orphan.orphaned_at,
            now=self._roster.now(),
        )
        if verdict is Verdict.REAP and record.reason is None and await self._is_wanted(record):
            return Verdict.RELEASE
        return verdict

    async def _is_wanted(self, record: Record, *, by_heirs: bool = True) -> bool:
        """Tell whether a live owner has adopted the same remote task.

        :param by_heirs: whether rows count that were taken over themselves. They may be about to
            be ended, and two of them must not spare the task for each other's sake.
        """
        if record.remote_id is None:
            return False
        ours = self._roster.named.get(record.remote_id)
        if ours is not None and ours.orphan is None and ours.reason is None:
            return True  # the ledger may not know it yet
        for other in await self._ledger.unfinished(remote_id=record.remote_id):
            if other.intent_id != record.intent_id and await self._wants(other, by_heirs=by_heirs):
                return True
        return False

    async def _wants(self, other: Record, *, by_heirs: bool) -> bool:
        return (
            (by_heirs or other.orphaned_at is None)
            and self._is_within_reach(other)
            and other.reason is None
            and await self._ledger.owner_alive(other.owner_id)
        )

    def _is_within_reach(self, record: Record) -> bool:
        return (
            record.base_url == self._api.base_url
            and record.credential_fingerprint == self._api.credential_fingerprint
        )

    # --- taking over ----------------------------------------------------------------------------

    async def take_over(self, orphans: Sequence[tuple[Orphan, Verdict]]) -> None:
        """Take rows over that are still as they were read, and see to them.

        :raises LedgerError: the ledger could not be written.
        """
        slices = Slices()
        for start in range(0, len(orphans), PORTION):
            taken: list[tuple[Record, Verdict]] = []
            for (record, orphaned_at), verdict in orphans[start : start + PORTION]:
                heir = TakeOver(self._owner_id, orphaned_at)
                after = step(record, Happening.TAKE_OVER, self._roster.now(), heir=heir)
                taken.append((after, verdict))
                await slices.breathe()
            ours = await self.commit(taken)
            try:
                while ours:
                    self.see_to(*ours.popleft())
                    await slices.breathe()
            except BaseException:
                self._doubt(ours)
                raise

    async def commit(
        self, taken: Sequence[tuple[Record, Verdict]]
    ) -> deque[tuple[Record, Verdict]]:
        """Write take-overs, and return those that are ours now.

        Of whatever a hit leaves in doubt the next round finds out.

        :raises LedgerError: none was written.
        """
        if self._holding:
            return deque()
        began = perf_counter()
        try:
            refusals = await self._ledger.commit(
                [Write(record, record.version - 1) for record, _ in taken]
            )
        except LedgerError:
            self._note_doubt(taken)  # and no hurry: it may fail again
            raise
        except BaseException:
            self._doubt(taken)
            raise
        self._observer.ledger_committed(len(taken), perf_counter() - began)
        return deque(one for one, refusal in zip(taken, refusals, strict=True) if refusal is None)

    def _doubt(self, taken: Iterable[tuple[Record, Verdict]]) -> None:
        """Have a round find out which of them are ours: nobody else here knows of them."""
        self._note_doubt(taken)
        self._wanted.set()

    def _note_doubt(self, taken: Iterable[tuple[Record, Verdict]]) -> None:
        self._in_doubt |= {record.intent_id: (record, verdict) for record, verdict in taken}

    async def _clear_doubts(self, doubts: Mapping[str, tuple[Record, Verdict]]) -> None:
        for intent_id, (record, verdict) in doubts.items():
            stored = await self._ledger.get(intent_id)
            if self._in_doubt.get(intent_id) != (record, verdict):
                continue  # another worker has cleared it, or there is a newer one
            del self._in_doubt[intent_id]
            if stored == record:
                self.see_to(record, verdict)

    def see_to(self, record: Record, verdict: Verdict) -> None:
        """See to a row that is ours by now."""
        if self._holding:
            return  # its owner will be dead in a moment, and somebody else comes for it
        task = self._entry_of(record, verdict)
        self.tasks.add(task)
        if self._round is not None:
            self._round.taken.append(task)
        self.tally.count(task)
        self._roster.inherit(task)

    # --- seeing to it ---------------------------------------------------------------------------

    def join(self, task: Entry) -> None:
        """Count a task among the orphans that was found otherwise."""
        self.tasks.add(task)
        self.tally.count(task)

    def examine(self, task: Entry) -> None:
        """Find out by GET whether the task still runs, as soon as a worker is free."""
        self._pool.put(task)

    async def _examine(self, task: Entry) -> None:
        if task.examined or task.record.finished_at is not None:
            return
        turn = task.turn
        try:
            info = await self._look(task)
            # Its id may have become known only now, and somebody may have adopted it since.
            record = task.record
            wanted = record.reason is None and await self._is_wanted(record, by_heirs=False)
        except SigmicGuardError as error:
            delay = self._backoff.delay(
                task.looks, random(), retry_after=getattr(error, "retry_after", None)
            )
            task.looks += 1
            self._timer.after(delay, self.examine, task)
        except BaseException:
            self._pool.put(task)  # the worker was hit, the task is as it was
            raise
        else:
            if (
                info is not None
                and info.terminal
                and (ended_at := seconds_of(info.completed_at)) is not None
            ):
                self._ended_at[task] = ended_at
            task.examined = True
            if wanted:
                task.orphan = Verdict.RELEASE
            if info is not None and self._roster.observe(task, info, turn):
                return
            if info is not None and info.terminal:  # and not believed, for now
                task.examined = False
                self._timer.after(AGAIN, self.examine, task)
            else:
                await self._end(task)

    async def _look(self, task: Entry) -> TaskInfo | None:
        """Ask how the task is; ``None`` where the DELETE will tell.

        :raises SigmicGuardError: it is worth while to ask again.
        """
        try:
            return await self._api.get(task.id, timeout=PATIENCE)
        except _HOPELESS:
            return None
        except (ApiError, ProtocolError) as error:
            if isinstance(error, RateLimited | ServerError) or task.looks < MAX_NONSENSE:
                raise
            return None

    async def _end(self, task: Entry) -> None:
        """Let the task go, or have it ended: not before the ledger says that it is to end.

        If we died with the DELETE on its way, and a row that says nothing of it, somebody could ask
        for the key and have a task that this DELETE ends.
        """
        self._decide(task)
        try:
            await self._outbox.flush()
        finally:
            self._canceller.take(task)

    async def spare(self) -> None:
        """Find out whom of those that nobody examined yet somebody has adopted meanwhile.

        :raises LedgerError: the ledger could not be read.
        """
        unsure = [task for task in self.tasks if not task.examined and task.state is State.RUNNING]
        if not unsure:
            return
        ids, wanted, slices = {task.id for task in unsure}, set[str](), Slices()
        for other in await self._ledger.unfinished():
            if (
                other.remote_id in ids
                and other.remote_id not in wanted
                and other.owner_id != self._owner_id
                and await self._wants(other, by_heirs=False)
            ):
                wanted.add(other.remote_id)
            await slices.breathe()
        for task in unsure:
            ours = self._roster.named.get(task.id)
            if task.id in wanted or (ours is not None and ours.orphan is None):
                task.orphan = Verdict.RELEASE

    def end_now(self, task: Entry) -> None:
        """Let the task go, or have it ended without another look."""
        self._decide(task)
        self._canceller.take(task)

    def _decide(self, task: Entry) -> None:
        task.examined = True
        if task.record.state is State.RUNNING:
            if task.orphan is Verdict.RELEASE:
                self._roster.apply(task, Happening.DETACH)
            else:
                self._roster.cancel(task, CancelReason.ORPHAN)

    def _finished(self, task: Entry) -> None:
        ended_at = self._ended_at.pop(task, None)
        if task in self.tasks:
            self.tasks.discard(task)
            record = task.record
            result = result_of_orphan(record, task.cancel_result)
            assert result is not None
            self.tally.tell(task, result, orphaned_at=record.orphaned_at, ended_at=ended_at)
            self.tally.count()
