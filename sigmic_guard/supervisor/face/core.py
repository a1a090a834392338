"""The rooms of one supervisor, wired together: what users' calls come down to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from anyio import current_time

from sigmic_guard.lifecycle import CancelReason, State
from sigmic_guard.sigmic import check_id, check_outcome
from sigmic_guard.supervisor.face.exits import Exits
from sigmic_guard.supervisor.face.intake import Intake
from sigmic_guard.supervisor.ground.affinity import Affinity
from sigmic_guard.supervisor.ground.entries import Entries
from sigmic_guard.supervisor.ground.from_entry import error_of
from sigmic_guard.supervisor.ground.ground import Ground
from sigmic_guard.supervisor.ground.lifetime import Lifetime
from sigmic_guard.supervisor.ground.outbox import Outbox
from sigmic_guard.supervisor.ground.readings import Readings
from sigmic_guard.supervisor.ground.roster import Roster
from sigmic_guard.supervisor.ground.timer import Timer
from sigmic_guard.supervisor.recovery.claims import Claims
from sigmic_guard.supervisor.recovery.mistakes import Mistakes
from sigmic_guard.supervisor.recovery.reaper import Reaper
from sigmic_guard.supervisor.recovery.reconciler import Reconciler
from sigmic_guard.supervisor.recovery.triage import Triage
from sigmic_guard.supervisor.work.access import Access
from sigmic_guard.supervisor.work.caller_requests import CallerRequests
from sigmic_guard.supervisor.work.canceller import Canceller
from sigmic_guard.supervisor.work.creating import Creator
from sigmic_guard.supervisor.work.deciding import Decider
from sigmic_guard.supervisor.work.events import TaskEvents
from sigmic_guard.supervisor.work.listing import Lister
from sigmic_guard.supervisor.work.looking import Looker
from sigmic_guard.supervisor.work.sparing import Sparer
from sigmic_guard.supervisor.work.watcher import Watcher
from sigmic_guard.supervisor.work.wish import make_follow_up

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.observe import Observers
    from sigmic_guard.sigmic.api import ApprovalOutcome, TaskApi
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.inbox import Inbox
    from sigmic_guard.supervisor.ground.settings import Settings
    from sigmic_guard.supervisor.ground.workers import Workers
    from sigmic_guard.supervisor.work.wish import Wish


class Core:
    """Everything that lives from a supervisor's start to its end."""

    def __init__(
        self,
        settings: Settings,
        workers: Workers,
        api: TaskApi,
        ledger: Ledger,
        observer: Observers,
        inbox: Inbox,
    ) -> None:
        lifetime = Lifetime()
        timer = Timer(workers.report)
        outbox = Outbox(ledger, observer, lifetime, timer)
        roster = Roster(outbox, observer, lifetime)
        self.ground = ground = Ground(
            api=api,
            ledger=ledger,
            observer=observer,
            settings=settings,
            lifetime=lifetime,
            owner_id=uuid4().hex,
            timer=timer,
            workers=workers,
            outbox=outbox,
            roster=roster,
            readings=Readings(roster, observer, request_timeout=settings.create_timeout),
            inbox=inbox,
            affinity=Affinity(),
        )
        self.lifetime, self.outbox, self.roster = lifetime, outbox, ground.roster

        lister = Lister(api)
        self.looker = Looker(api, lister)
        self.access = Access(observer, lifetime.moment)
        self.sparer = Sparer(ground)
        self.canceller = Canceller(ground, self.looker, self.access, self.sparer)
        self.watcher = Watcher(ground, self.looker, lister, self.access)
        self.roster.finished.append(self.access.forget)
        self.decider = Decider(ground, self.canceller)
        entries = Entries(ground, self.decider.deadline_reached)
        self.creator = Creator(ground, entries)
        self.caller_requests = CallerRequests(ground, self.canceller, self.watcher)

        self.triage = Triage(ground, self.looker, self.canceller, entries, self.sparer)
        self.reconciler = Reconciler(ground, self.watcher, lister, self.creator, self.triage)
        self.mistakes = Mistakes(self.roster, self.reconciler, self.watcher)
        self.reaper = Reaper(ground, self.reconciler, self.triage, entries, self.sparer)
        self.creator.claims = self.claims = Claims(ground, self.reaper)

        self.exits = Exits(lifetime)
        self.intake = Intake(ground, entries, self.creator, self.caller_requests, self.decider)
        self.roster.reactions = {
            State.RUNNING: self._runs,
            State.TAKEN_OVER: self.triage.decide,
            State.UNKNOWN: self._lost,
            State.CANCELLING: self._must_end,
            State.UNCONFIRMED: self._refused,
            State.COMPLETED: self.watcher.leave,
            State.CANCELLED: self._not_heard_from,
            State.DETACHED: self._not_heard_from,
            State.HANDED_OVER: self._not_heard_from,
        }

    def hire(self) -> None:
        """Start the workers that are always there."""
        workers = self.ground.workers
        workers.start("timer", self.ground.timer.ring)
        workers.start("ledger", self.outbox.write_rows)
        workers.start("watch", self.watcher.watch_list)
        workers.start("reconcile", self.reconciler.scan)
        workers.start("reap", self.reaper.reap_in_rounds)

    # --- reactions ----------------------------------------------------------------------------

    def _runs(self, task: Entry) -> None:
        self.watcher.join(task)
        if task.inheritance is not None:
            self.watcher.get_soon(task)  # it may have ended while nobody watched it

    def _lost(self, task: Entry) -> None:
        self.canceller.start_over(task)
        self.ground.readings.start_over(task)
        self.reconciler.look_for(task)

    def _must_end(self, task: Entry) -> None:
        self._not_heard_from(task)
        self.canceller.send_delete(task)

    def _refused(self, task: Entry) -> None:
        task.hang_up()
        if not self.lifetime.closing:
            self.watcher.join(task)  # it may end by itself

    def _not_heard_from(self, task: Entry) -> None:
        self.watcher.leave(task)
        task.hang_up()

    # --- what users ask for ---------------------------------------------------------------------

    def events(self, task: Entry) -> TaskEvents:
        """Make an iterator over the task's events."""
        return TaskEvents(task, self.ground, self.looker, self.watcher, self.access)

    async def send(self, task: Entry, wish: Wish) -> None:
        """Send a follow-up message."""
        follow_up = make_follow_up(wish)
        self.ground.check_open()
        if task.deadline is not None and current_time() >= task.deadline:
            raise error_of(task, interrupted_by=CancelReason.DEADLINE)
        await self.caller_requests.send(task, follow_up)

    async def approve(self, task: Entry, call_id: str, outcome: ApprovalOutcome) -> bool:
        """Decide on a tool call."""
        call_id, outcome = check_id("call_id", call_id), check_outcome(outcome)
        self.ground.check_open()
        return await self.caller_requests.approve(task, call_id, outcome)

    async def refresh(self, task: Entry) -> TaskInfo:
        """Read the task, and note what it says."""
        self.ground.check_running()
        generation = task.generation
        info = await self.caller_requests.read(task.id)
        self.ground.readings.observe(task, info, generation)
        return info
