"""The rooms of one supervisor, wired together: what users' calls come down to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

from anyio import current_time

from sigmic_guard.errors import SupervisorShutdown
from sigmic_guard.lifecycle import CancelReason, Event, State
from sigmic_guard.lifecycle.states import SETTLED, TO_BE_ENDED
from sigmic_guard.sigmic import check_id, check_outcome
from sigmic_guard.supervisor.access import Access
from sigmic_guard.supervisor.affinity import Affinity
from sigmic_guard.supervisor.canceller import Canceller
from sigmic_guard.supervisor.claims import Claims
from sigmic_guard.supervisor.clock import WallClock
from sigmic_guard.supervisor.courier import Courier
from sigmic_guard.supervisor.creating import Creator
from sigmic_guard.supervisor.events import TaskEvents
from sigmic_guard.supervisor.examiner import Examiner
from sigmic_guard.supervisor.intake import Intake
from sigmic_guard.supervisor.listing import Lister
from sigmic_guard.supervisor.looking import Looker
from sigmic_guard.supervisor.mistakes import Mistakes
from sigmic_guard.supervisor.outbox import Outbox
from sigmic_guard.supervisor.reaper import Reaper
from sigmic_guard.supervisor.reconciler import Reconciler
from sigmic_guard.supervisor.roster import Roster
from sigmic_guard.supervisor.telling import error_of
from sigmic_guard.supervisor.timer import Timer
from sigmic_guard.supervisor.watcher import Watcher
from sigmic_guard.supervisor.wish import make_follow_up

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.observe import Observer
    from sigmic_guard.sigmic.api import ApprovalOutcome, TaskApi
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.entry import Entry
    from sigmic_guard.supervisor.inbox import Inbox
    from sigmic_guard.supervisor.settings import Settings
    from sigmic_guard.supervisor.wish import Wish
    from sigmic_guard.supervisor.workers import Workers


#: Reasons that somebody gives at that moment; the others follow from what has been decided.
_ASKED_FOR: Final = frozenset({CancelReason.USER, CancelReason.SHUTDOWN})


class Core:
    """Everything that lives from a supervisor's start to its end."""

    def __init__(
        self,
        settings: Settings,
        workers: Workers,
        api: TaskApi,
        ledger: Ledger,
        observer: Observer,
        inbox: Inbox,
    ) -> None:
        self.settings = settings
        self.workers = workers
        self.api = api
        self.ledger = ledger
        self.observer = observer
        self.inbox = inbox
        self.affinity = Affinity()
        self.owner_id = uuid4().hex
        #: No task is taken on any more.
        self.closing = False
        #: And that is so because of a signal or a bug, by which the bodies are cancelled as well.
        self.forced = False
        #: Nothing will change any more.
        self.closed = False
        #: The seconds since the epoch, by the wall clock of this moment.
        self.now = WallClock()

        self.intake = Intake(self)
        self.timer = Timer(workers.report)
        self.outbox = Outbox(ledger, observer)
        self.roster = Roster(
            self.outbox, observer, self.now, request_timeout=settings.create_timeout
        )
        lister = Lister(api)
        self.looker = Looker(api, lister)
        self.canceller = Canceller(
            workers,
            self.roster,
            self.timer,
            api,
            self.looker,
            observer,
            max_cancels=settings.max_cancels,
        )
        self.access = Access(observer, current_time)
        self.watcher = Watcher(workers, self.roster, self.timer, self.looker, lister, self.access)
        self.roster.finished.append(self.access.forget)
        self.reconciler = Reconciler(
            self.roster,
            self.watcher,
            lister,
            ledger,
            observer,
            create_timeout=settings.create_timeout,
            absent=self._absent,
            found_stray=self.intake.end_stray,
        )
        self.mistakes = Mistakes(self.roster, self.reconciler, self.watcher, self.canceller)
        self.examiner = Examiner(
            workers,
            self.roster,
            self.timer,
            api,
            self.looker,
            ledger,
            observer,
            self.outbox,
            self.canceller,
            owner_id=self.owner_id,
        )
        self.reaper = Reaper(
            self.roster,
            api,
            ledger,
            observer,
            self.reconciler,
            self.examiner,
            owner_id=self.owner_id,
            namespace=settings.namespace,
            entry_of=self.intake.entry_of,
        )
        self.claims = Claims(
            workers,
            self.roster,
            self.outbox,
            self.timer,
            ledger,
            self.reaper,
            owner_id=self.owner_id,
            namespace=settings.namespace,
            create_timeout=settings.create_timeout,
        )
        self.creator = Creator(
            workers,
            self.roster,
            self.outbox,
            api,
            self.claims,
            timeout=settings.create_timeout,
            max_tasks=settings.max_tasks,
        )
        self.courier = Courier(
            workers,
            self.roster,
            self.canceller,
            self.watcher,
            self.outbox,
            api,
            timeout=settings.create_timeout,
        )
        self.roster.reactions = {
            State.RUNNING: self._runs,
            State.UNKNOWN: self._lost,
            State.CANCELLING: self._must_end,
            State.UNCONFIRMED: self._refused,
            State.COMPLETED: self.watcher.leave,
            State.CANCELLED: self._not_heard_from,
            State.DETACHED: self._not_heard_from,
            State.HANDED_OVER: self._not_heard_from,
        }
        self.roster.finished.append(self._finished)

    def hire(self) -> None:
        """Start the workers that are always there."""
        self.workers.run("timer", self.timer.run)
        self.workers.run("ledger", self.outbox.run)
        self.workers.run("watch", self.watcher.run)
        self.workers.run("reconcile", self.reconciler.run)
        self.workers.run("reap", self.reaper.run)

    # --- reactions ----------------------------------------------------------------------------

    def _runs(self, task: Entry) -> None:
        task.request = None
        self.creator.join(task)
        if task.orphan is None:
            self.watcher.join(task)
            if task.inheritance is not None:
                self.watcher.look(task)  # it may have ended while nobody watched it
        else:
            self.examiner.examine(task)

    def _lost(self, task: Entry) -> None:
        self.reconciler.take(task)
        if not task.marked:
            self.creator.leave(task)  # perhaps nobody will ever know: it must not block a place
        elif task.orphan is None:
            self.creator.join(task)

    def _must_end(self, task: Entry) -> None:
        self._not_heard_from(task)
        if task.orphan is None:
            self.canceller.take(task)
        elif not task.inherit().examined:
            self.examiner.examine(task)
        # else the reaper sends it on, when its row says so

    def _refused(self, task: Entry) -> None:
        task.hang_up()
        if not self.closing:
            self.watcher.join(task)  # it may end by itself

    def _not_heard_from(self, task: Entry) -> None:
        self.watcher.leave(task)
        task.hang_up()

    def _finished(self, task: Entry) -> None:
        self.timer.forget(task.deadline_alarm)
        task.deadline_alarm = None

    def _absent(self, task: Entry) -> None:
        """Take in that a lost create had no effect: a task that was claimed is still wanted."""
        if task.request is not None and task.reason is None and not self.closing:
            self.intake.create_anew(task)
        else:
            self.roster.apply(task, Event.ABSENT)

    # --- what users ask for ---------------------------------------------------------------------

    def check_here(self) -> None:
        """Refuse to be awaited elsewhere, and let what was asked for before count as before.

        :raises ConfigurationError: this is another event loop, or a forked child.
        """
        self.affinity.check()
        self.inbox.flush()

    def check_open(self) -> None:
        """Refuse what comes too late.

        :raises SupervisorShutdown: the supervisor is closing, or closed.
        """
        if self.closing:
            raise SupervisorShutdown("the supervisor is shutting down and takes no task")

    def check_running(self) -> None:
        """Refuse what comes after the end.

        :raises SupervisorShutdown: the supervisor is closed.
        """
        if self.closed:
            raise SupervisorShutdown("the supervisor is closed")

    def deadline_reached(self, task: Entry) -> None:
        """End a task that is late."""
        self.inbox.flush()
        if task.record.state is State.COMPLETED:
            self.roster.apply(task, Event.CLOSE)  # nothing is asked of it after its deadline
        else:
            self.cancel(task, CancelReason.DEADLINE)

    def cancel(self, task: Entry, reason: CancelReason) -> None:
        """Want the task ended; who wants it once more is not kept waiting for the next attempt."""
        self.inbox.flush()
        again = task.record.state in TO_BE_ENDED and reason in _ASKED_FOR
        self.roster.cancel(task, reason)
        if again:
            self.canceller.hurry(task)

    def abandon(self, task: Entry) -> None:
        """End a task whose block was left behind: nobody can leave that any more."""
        task.block = None
        if task.record.state not in SETTLED and task.record.reason is None:
            self.observer.block_abandoned(task.record)
        self.release(task)

    def release(self, task: Entry) -> None:
        """End a task whose block is over, and take no follow-up any more."""
        self.cancel(task, CancelReason.SCOPE)
        task.held = False
        if task.record.state is State.COMPLETED:
            self.roster.apply(task, Event.CLOSE)

    def events(self, task: Entry) -> TaskEvents:
        """Make an iterator over the task's events."""
        return TaskEvents(task, self.api, self.looker, self.roster, self.watcher)

    async def send(self, task: Entry, wish: Wish) -> None:
        """Send a follow-up message."""
        follow_up = make_follow_up(wish)
        self.check_open()
        if task.deadline is not None and current_time() >= task.deadline:
            raise error_of(task, interrupted_by=CancelReason.DEADLINE)
        await self.courier.send(task, follow_up)

    async def approve(self, task: Entry, call_id: str, outcome: ApprovalOutcome) -> bool:
        """Decide on a tool call."""
        call_id, outcome = check_id("call_id", call_id), check_outcome(outcome)
        self.check_open()
        return await self.courier.approve(task, call_id, outcome)

    async def refresh(self, task: Entry) -> TaskInfo:
        """Read the task, and take in what it says."""
        self.check_running()
        turn = task.turn
        info = await self.courier.read(task.id)
        self.roster.observe(task, info, turn)
        return info
