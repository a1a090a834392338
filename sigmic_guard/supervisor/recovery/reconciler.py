"""Finding the tasks whose create got no answer.

The create carried its intent id in ``env``, and the list gives ``env`` back. So an ``UNKNOWN`` task
is found by reading the list, and never by sending the POST again. That it does not exist is proven
by two complete scans that both began after the server can no longer be at work on the POST. Should
it appear after that it is a *stray*, and is told by its mark as well.

A create that could carry no mark is told by its message and the time of its creation, which is no
proof: such *candidates* are reported, and touched only where the policy says so.
"""

from __future__ import annotations

from math import inf
from random import random
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, current_time, move_on_after

from sigmic_guard.errors import LedgerError, SigmicGuardError
from sigmic_guard.lifecycle import Backoff
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.lifecycle.backoff import believed
from sigmic_guard.observe import CandidatesFound, LedgerFailed
from sigmic_guard.sigmic import is_id
from sigmic_guard.supervisor.ground.marking import marked_with
from sigmic_guard.supervisor.ground.pacing import REFUSALS, SLOWLY, asked_pause
from sigmic_guard.supervisor.ground.timer import Slices
from sigmic_guard.supervisor.recovery.absence import Absence
from sigmic_guard.supervisor.recovery.candidates import Candidates, Proposal
from sigmic_guard.supervisor.recovery.sought import CLOCK_SKEW, Sought, may_exist_since
from sigmic_guard.supervisor.recovery.strays import Strays
from sigmic_guard.supervisor.recovery.whole_list import read_all
from sigmic_guard.supervisor.work.listing import (
    MAX_AIMLESS,
    MAX_CLOCK_AHEAD,
    EndlessList,
    seconds_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.models import Scrap, TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.ground.roster import Roster
    from sigmic_guard.supervisor.recovery.triage import Triage
    from sigmic_guard.supervisor.work.creating import Creator
    from sigmic_guard.supervisor.work.listing import Lister, Listing
    from sigmic_guard.supervisor.work.watcher import Watcher

#: Complete scans, past the create's time-out, that prove a task's absence.
SCANS_FOR_ABSENCE: Final = 2
#: How long to pause between two scans: while a caller may wait for what they find, and later.
AWAITED_PAUSE: Final = Backoff(first=0.1, most=2.0)
PAUSE: Final = Backoff(first=0.1, most=10.0)
#: Seconds after which no caller waits any more; at least so many, and twice the create's time-out.
AWAITED_SECONDS: Final = 60.0
#: A scan is followed by a pause so many times as long, so that it stays cheap at any size.
PAUSE_PER_SCAN: Final = 3
#: Seconds between two scans at the end of a shutdown's budget.
MIN_PAUSE_SECONDS: Final = 0.1


def _do_nothing(_: Entry) -> None:
    pass


class _Hurried(SigmicGuardError):
    """The scan is to begin again."""


class Reconciler:
    """Resolves ``UNKNOWN`` tasks. :meth:`scan` is the worker."""

    def __init__(
        self,
        ground: Ground,
        watcher: Watcher,
        lister: Lister,
        creator: Creator,
        triage: Triage,
    ) -> None:
        self._ground = ground
        self._roster = ground.roster
        self._ledger = ground.ledger
        self._observer = ground.observer
        self._create_timeout = ground.settings.create_timeout
        self._watcher = watcher
        self._lister = lister
        #: By intent id.
        self._sought: dict[str, Sought] = {}
        self._strays = Strays()
        self.afterlife = self._strays.afterlife
        self._candidates = self._compare_nothing()
        self._wanted = Event()
        #: When the shutdown's budget ends, on anyio's clock; set when that comes to be earlier.
        self._budget_end: float | None = None
        self._shortened = Event()
        #: Scans in a row that were not what somebody new waits for.
        self._rounds = 0
        self._awaited_until = -inf
        #: The seconds to pause after a list without an end, unless somebody new comes.
        self._slow = 0.0
        #: By intent id: what the scan shows with its mark. A mark can be copied.
        self._marked: dict[str, list[TaskInfo]] = {}
        #: What the scan shows that tells no task.
        self._scraps: list[Scrap] = []
        #: What to do with a task whose id proves to be that of one that is looked for.
        self.mistaken: Callable[[Entry], None] = _do_nothing
        self._creator = creator
        self._triage = triage

    def look_for(self, task: Entry) -> None:
        """Look for a task whose create got no answer."""
        self._sought[task.record.intent_id] = Sought(task, self._create_timeout)
        self._awaited_until = current_time() + max(AWAITED_SECONDS, 2 * self._create_timeout)
        self.hurry()

    def looks_for(self, task: Entry) -> bool:
        """Tell whether the task is being looked for."""
        return task.record.intent_id in self._sought

    def hurry(self, *, by: float | None = None) -> None:
        """Look soon: somebody waits.

        :param by: when the shutdown's budget ends, on anyio's clock: every pause ends before, the
            one that is under way at once.
        """
        self._rounds = 0
        self._wanted.set()
        if by is not None:
            self._budget_end = by
            self._lister.hasten(by)
            self._shortened.set()

    def watch_for_strays(self, records: Sequence[Record]) -> None:
        """Read the list once for tasks that were proven absent and may have appeared since."""
        if records:
            self._strays.warn_of(records)
            self._wanted.set()

    # --- when to scan ---------------------------------------------------------------------------

    async def scan(self) -> None:
        """Scan the list for as long as a task is unknown."""
        least, refusals = 0.0, 0
        while True:
            await self._until_needed()
            await self._rest(least, SLOWLY.delay(refusals, random()) if refusals else 0.0)
            began, lost = current_time(), self._lister.lost
            try:
                await self._scan()
            except _Hurried:
                least = self._slow = 0.0
            except SigmicGuardError as error:  # an incomplete scan proves nothing
                # No answer is no reason to ask more rarely: somebody waits for this.
                least = believed(asked_pause(error))
                refusals = refusals + 1 if isinstance(error, REFUSALS) else 0
                self._slow = error.pause if isinstance(error, EndlessList) else 0.0
            else:
                spent = current_time() - began - (self._lister.lost - lost)
                least, refusals = PAUSE_PER_SCAN * spent, 0
                self._slow = 0.0

    async def _until_needed(self) -> None:
        await self._strays.sort_in()
        while not self._sought and not self._strays:
            await self._wanted.wait()
            self._wanted, self._rounds = Event(), 0
            await self._strays.sort_in()

    async def _rest(self, least: float, slowly: float) -> None:
        """Pause, ``slowly`` at least; somebody new cuts it short, but not below the least."""
        self._rounds += 1
        backoff = AWAITED_PAUSE if current_time() < self._awaited_until else PAUSE
        pause = max(backoff.delay(self._rounds, random()), least, slowly, self._slow)
        self._wanted = Event()
        await self._wait(pause, max(least, AWAITED_PAUSE.delay(1, random())))  # a crowd gathers

    async def _wait(self, seconds: float, least: float) -> None:
        """Wait; somebody new cuts it short, but not below the least."""
        if self._budget_end is not None:
            # Half of what is left: what is found at the last cannot be ended any more.
            most = max((self._budget_end - current_time()) / 2, MIN_PAUSE_SECONDS)
            least, seconds = min(least, most), min(seconds, most)
        ready = current_time() + least
        self._shortened = Event()
        with move_on_after(seconds):
            await self._wanted.wait()
        with CancelScope(deadline=ready):
            await self._shortened.wait()

    # --- one scan -------------------------------------------------------------------------------

    async def _scan(self) -> None:
        began, now = current_time(), self._roster.now()
        # Who comes from now on may be past already.
        self._wanted = Event()
        self._marked, self._scraps = {}, []
        sought, strays = dict(self._sought), self._strays.noted()
        self._candidates, slices = self._compare_nothing(), Slices()
        oldest = now
        for record in strays.values():
            oldest = min(oldest, may_exist_since(record, now))
            self._candidates.seek(record)
            await slices.yield_if_due()
        for one in sought.values():
            oldest = min(oldest, one.may_exist_since(now))
            self._candidates.seek(one.task.record)
            await slices.yield_if_due()
        age = now - oldest

        def too_old(at: float, newest: float) -> bool:
            # By the server's own clock as well: ours may be far ahead of it.
            return at < min(oldest, newest - age) - CLOCK_SKEW

        horizon = now + MAX_CLOCK_AHEAD
        try:
            complete = await read_all(
                lambda: self._begin(horizon),
                self._recognise,
                too_old,
                horizon=horizon,
                turn_page=self._settle,
                leave_out=self._scraps.append,
            )
        finally:
            self._settle(at_the_end=True)
        if not complete:
            return  # too much moves: this proves nothing
        absent = Absence(self._scraps)
        await self._strays.not_seen(strays, began)
        for intent_id, one in sought.items():
            past = began >= one.answered_by
            if past and self._sought.get(intent_id) is one and absent.is_proven(one.task.record):
                await self._not_seen(one)
            await slices.yield_if_due()

    def _compare_nothing(self) -> Candidates:
        return Candidates(self._roster, self._ledger, create_timeout=self._create_timeout)

    def _recognise(self, info: TaskInfo) -> None:
        if not is_id(info.id):
            return
        intent_id = marked_with(info)
        if intent_id is None:
            self._candidates.compare(info)
        elif intent_id in self._sought or intent_id in self._strays:
            self._marked.setdefault(intent_id, []).append(info)

    def _settle(self, *, at_the_end: bool = False) -> None:
        """Take those that carry the marks for what they are: of several the one created first.

        Who reads ``env`` and creates another task with it copies the mark. So one that is too young
        to be ours is believed only where the scan shows no older one.
        """
        for intent_id, infos in list(self._marked.items()):
            info = min(infos, key=_age)
            one = self._sought.get(intent_id)
            if one is not None and not at_the_end and one.is_too_young(info, self._roster.now()):
                continue
            del self._marked[intent_id]
            if one is not None:
                self._recognised(one, info)
            elif intent_id in self._strays and _is_nobodys(info, self._roster):
                self._triage.end_stray(self._strays.take(intent_id), info.id)

    def _recognised(self, one: Sought, info: TaskInfo) -> None:
        namesake = self._roster.named.get(info.id)
        if namesake is not None:
            if namesake.record.posted_at is None:
                self._let_go(one)
                return
            self.mistaken(namesake)
        self._roster.origins.trust(one.task)
        self._found(one, info.id, info.status)
        if info.terminal:
            self._watcher.get_soon(one.task)

    def _begin(self, horizon: float) -> Listing:
        return self._lister.read(
            aimless=MAX_AIMLESS, horizon=horizon, trust_total=True, pause=self._pause
        )

    async def _pause(self, seconds: float, *, least: float = 0.0) -> None:
        """Pause within a scan; somebody new is found sooner from the top."""
        await self._wait(seconds, least)
        if self._wanted.is_set():
            raise _Hurried("somebody else is to be looked for as well")

    def _found(self, one: Sought, task_id: str, status: str | None = None) -> None:
        self._stop_seeking(one)
        self._roster.apply(one.task, Happening.CREATED, remote_id=task_id, status=status)

    def _let_go(self, one: Sought) -> None:
        """Somebody here adopted it: there is another record of it, and that one counts."""
        self._stop_seeking(one)
        self._roster.apply(one.task, Happening.FORGET)

    def found(self, task: Entry, task_id: str) -> None:
        """Stop looking for a task that somebody else has found."""
        one = self._sought.get(task.record.intent_id)
        if one is not None:
            self._found(one, task_id)

    def expect_stray(self, record: Record) -> None:
        """End the task that carries the mark of a create that nobody waits for any more."""
        self._strays.expect(record)
        self._wanted.set()

    def _stop_seeking(self, one: Sought) -> None:
        self._sought.pop(one.task.record.intent_id, None)

    async def _not_seen(self, one: Sought) -> None:
        """Count a complete scan, past the time-out, that showed no task with the mark."""
        try:
            proposal = await self._candidates.of(one.task.record)
        except LedgerError as error:
            self._observer.observe(LedgerFailed(0, error))
            return
        if proposal is None or self._sought.get(one.task.record.intent_id) is not one:
            return
        if proposal.ids:
            self._propose(one, proposal)
            return
        one.scans += 1
        if one.scans >= SCANS_FOR_ABSENCE:
            self._stop_seeking(one)
            self._absent(one.task)

    def _absent(self, task: Entry) -> None:
        """Take in that a lost create had no effect: a task that was claimed is still wanted."""
        self.afterlife.begin(task.record)
        create = task.create
        wanted = create is not None and create.request is not None and task.reason is None
        if wanted and not self._ground.lifetime.closing:
            self._creator.begin_anew(task)
        else:
            self._roster.apply(task, Happening.ABSENT)

    def _propose(self, one: Sought, proposal: Proposal) -> None:
        """Report the tasks that the create may have made; end them where that is wanted.

        Those that only a wrong clock explains are reported, and never ended.
        """
        record, candidates = one.task.record, proposal.ids
        wanted = record.policy.on_lost == "cancel" and proposal.near
        self._observer.observe(CandidatesFound(record, candidates))
        if wanted and not record.to_be_released:
            self._found(one, candidates[0])
            for task_id in candidates[1:]:
                self._triage.end_stray(record, task_id)
        else:
            self._stop_seeking(one)
            one.task.wake()  # nobody here will learn more


def _age(info: TaskInfo) -> float:
    """Return what sorts tasks by their creation, those that do not tell it last."""
    at = seconds_of(info.created_at)
    return inf if at is None else at


def _is_nobodys(info: TaskInfo, roster: Roster) -> bool:
    return not info.terminal and info.id not in roster.named
