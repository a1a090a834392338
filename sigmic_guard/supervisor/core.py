"""The rooms of one supervisor, wired together: what users' calls come down to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from anyio import current_time, move_on_after
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import (
    ConfigurationError,
    DuplicateKey,
    SigmicGuardError,
    SupervisorShutdown,
)
from sigmic_guard.lifecycle import CancelReason, Event, Record, State
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.supervisor.canceller import Canceller
from sigmic_guard.supervisor.courier import Courier
from sigmic_guard.supervisor.creating import Creator
from sigmic_guard.supervisor.entry import Entry
from sigmic_guard.supervisor.events import TaskEvents
from sigmic_guard.supervisor.outbox import Outbox
from sigmic_guard.supervisor.reconciler import MARKER, Reconciler
from sigmic_guard.supervisor.roster import Roster
from sigmic_guard.supervisor.telling import error_of
from sigmic_guard.supervisor.timer import Timer
from sigmic_guard.supervisor.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import TaskPolicy
    from sigmic_guard.observe import Observer
    from sigmic_guard.sigmic.api import ApprovalOutcome, TaskApi
    from sigmic_guard.sigmic.models import CreateRequest, TaskInfo
    from sigmic_guard.supervisor.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a supervisor was told once."""

    grace: float
    max_tasks: int | None
    max_cancels: int
    create_timeout: float
    namespace: str
    marker: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task that somebody wants: checked, and not begun."""

    request: CreateRequest
    policy: TaskPolicy
    #: Absolute, on anyio's clock; beside the policy's relative ``timeout``.
    deadline: float | None
    key: str | None


class Core:
    """Everything that lives from a supervisor's start to its end."""

    def __init__(
        self,
        settings: Settings,
        workers: Workers,
        api: TaskApi,
        ledger: Ledger,
        observer: Observer,
    ) -> None:
        self.settings = settings
        self.workers = workers
        self.api = api
        self.ledger = ledger
        self.observer = observer
        self.owner_id = uuid4().hex
        #: No task is taken on any more.
        self.closing = False
        #: And that is so because of a signal or a bug, by which the bodies are cancelled as well.
        self.forced = False
        #: Nothing will change any more.
        self.closed = False
        # One clock: wall time is anyio's clock plus what lay between them at the start, so that
        # virtual time is virtual everywhere, and no step of the wall clock moves a deadline. On
        # asyncio anyio's clock is the monotonic one, which costs a tenth when asked directly.
        monotonic = abs(current_time() - time.monotonic()) < 1.0
        self._clock = time.monotonic if monotonic else current_time
        self._epoch = time.time() - current_time()

        self.timer = Timer()
        self.outbox = Outbox(ledger, observer)
        self.roster = Roster(self.outbox, observer, self.now)
        self.canceller = Canceller(
            workers, self.roster, self.timer, api, observer, max_cancels=settings.max_cancels
        )
        self.creator = Creator(
            workers,
            self.roster,
            self.outbox,
            api,
            timeout=settings.create_timeout,
            max_tasks=settings.max_tasks,
        )
        self.watcher = Watcher(workers, self.roster, self.timer, api)
        self.reconciler = Reconciler(
            self.roster, self.watcher, api, create_timeout=settings.create_timeout
        )
        self.courier = Courier(
            workers,
            self.roster,
            self.canceller,
            self.watcher,
            api,
            timeout=settings.create_timeout,
        )
        self.roster.reactions = {
            State.RUNNING: self._runs,
            State.UNKNOWN: self._lost,
            State.CANCELLING: self._must_end,
            State.UNCONFIRMED: self._not_heard_from,
            State.COMPLETED: self.watcher.leave,
            State.CANCELLED: self._not_heard_from,
            State.DETACHED: self._not_heard_from,
        }
        self.roster.finished.append(self._finished)

    def hire(self) -> None:
        """Start the workers that are always there."""
        self.workers.run("timer", self.timer.run)
        self.workers.run("ledger", self.outbox.run)
        self.workers.run("watch", self.watcher.run)
        self.workers.run("reconcile", self.reconciler.run)

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return self._clock() + self._epoch

    # --- reactions ----------------------------------------------------------------------------

    def _runs(self, task: Entry) -> None:
        self.creator.join(task)
        self.watcher.join(task)

    def _lost(self, task: Entry) -> None:
        if task.marked:
            self.reconciler.take(task)
        else:
            self.creator.leave(task)  # nobody will ever know: it must not block a place

    def _must_end(self, task: Entry) -> None:
        self._not_heard_from(task)
        self.canceller.take(task)

    def _not_heard_from(self, task: Entry) -> None:
        self.watcher.leave(task)
        task.hang_up()

    def _finished(self, task: Entry) -> None:
        self.timer.forget(task.deadline_alarm)
        task.deadline_alarm = None

    # --- beginnings -----------------------------------------------------------------------------

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

    def begin(self, order: Order, *, entered_at: float, held: bool) -> Entry:
        """Take a task on, and see to its creation.

        :param entered_at: when its time-out began to count, on anyio's clock.
        :param held: a block holds it, so that a follow-up can come after its completion.
        :raises SupervisorShutdown: too late.
        :raises DuplicateKey: a live task of this process holds the key.
        """
        self.check_open()
        if order.key is not None and order.key in self.roster.keys:
            raise DuplicateKey(f"a live task holds the key {order.key!r}", key=order.key)
        task = self._enlist(order.policy, order.deadline, order.key, entered_at)
        task.held = held
        task.request = order.request
        if self.settings.marker and not order.request.files:
            task.marked = True
            task.request = order.request.with_env(MARKER, task.record.intent_id)
        self._set_deadline(task)
        self.creator.take(task)
        return task

    def _enlist(
        self, policy: TaskPolicy, deadline: float | None, key: str | None, entered_at: float
    ) -> Entry:
        if policy.timeout is not None:
            relative = entered_at + policy.timeout
            deadline = relative if deadline is None else min(deadline, relative)
        record = Record(
            intent_id=uuid4().hex,
            namespace=self.settings.namespace,
            base_url=self.api.base_url,
            credential_fingerprint=self.api.credential_fingerprint,
            owner_id=self.owner_id,
            policy=policy,
            created_at=self.now(),
            deadline_at=None if deadline is None else deadline + self._epoch,
            key=key,
        )
        task = Entry(self, record, deadline)
        self.roster.enter(task)
        return task

    def _set_deadline(self, task: Entry) -> None:
        if task.deadline is not None:
            task.deadline_alarm = self.timer.at(task.deadline, self._reached, task)

    def _reached(self, task: Entry) -> None:
        if task.record.state is State.COMPLETED:
            self.roster.apply(task, Event.CLOSE)  # nothing is asked of it after its deadline
        else:
            self.cancel(task, CancelReason.DEADLINE)

    async def until_created(self, task: Entry) -> None:
        """Wait until the task has an id.

        :raises SigmicGuardError: it gets none, or is to end before that. If it should turn out to
            exist after all, the supervisor ends it.
        """
        await task.until(lambda task: not _coming(task) or task.state is State.UNKNOWN)
        if _coming(task):
            # The answer was lost. Where the create was marked the list will tell.
            with move_on_after(2 * self.settings.create_timeout if task.marked else 0.0):
                await task.until(lambda task: not _coming(task))
        if _coming(task):
            self.cancel(task, CancelReason.ERROR)
            raise task.failure
        if task.interruption is not None:
            await checkpoint()  # raises: the block's scope is cancelled
        if task.reason is not None:
            with move_on_after(task.record.policy.cancel_wait):
                await task.until_settled()
            raise error_of(task, interrupted_by=task.reason)
        if task.record.remote_id is None:
            raise error_of(task)

    async def start(self, order: Order) -> Entry:
        """Begin a background task and wait for its id."""
        task = self.begin(order, entered_at=current_time(), held=False)
        try:
            await self.until_created(task)
        except SigmicGuardError:
            raise
        except BaseException:  # a cancellation, or the caller's coroutine was closed
            self.cancel(task, CancelReason.SCOPE)
            raise
        return task

    async def adopt(
        self, task_id: str, policy: TaskPolicy, deadline: float | None, key: str | None
    ) -> Entry:
        """Take on a task that exists already."""
        self.check_open()
        entered_at = current_time()
        info = await self.courier.read(task_id)
        self.check_open()
        if task_id in self.roster.named:
            raise ConfigurationError(
                f"{task_id!r} is supervised already: supervisor.tasks has its handle"
            )
        if key is not None and key in self.roster.keys:
            raise DuplicateKey(f"a live task holds the key {key!r}", key=key)
        task = self._enlist(policy, deadline, key, entered_at)
        # A completed task is adopted to be asked again, so it stays open until it has been.
        task.held = info.status == "completed"
        self.outbox.insert(task.record)
        self.roster.apply(task, Event.ADOPT, remote_id=task_id)
        self._set_deadline(task)
        if self.roster.observe(task, info, task.turn):
            self.creator.leave(task)  # it costs nothing; a follow-up takes the place again
        task.held = False
        return task

    # --- what handles ask for -------------------------------------------------------------------

    def cancel(self, task: Entry, reason: CancelReason) -> None:
        """Want the task ended."""
        again = task.record.state is State.UNCONFIRMED
        self.roster.cancel(task, reason)
        if again:
            self.canceller.take(task)  # somebody came back

    def events(self, task: Entry) -> TaskEvents:
        """Make an iterator over the task's events."""
        return TaskEvents(task, self.api, self.roster, self.watcher)

    async def send(self, task: Entry, message: str, files: Iterable[str | Path]) -> None:
        """Send a follow-up message."""
        self.check_open()
        if task.deadline is not None and current_time() >= task.deadline:
            raise error_of(task, interrupted_by=CancelReason.DEADLINE)
        await self.courier.send(task, message, tuple(Path(file) for file in files))

    async def approve(self, task: Entry, call_id: str, outcome: ApprovalOutcome) -> bool:
        """Decide on a tool call."""
        self.check_open()
        return await self.courier.approve(task, call_id, outcome)

    async def refresh(self, task: Entry) -> TaskInfo:
        """Read the task, and take in what it says."""
        self.check_running()
        turn = task.turn
        info = await self.courier.read(task.id)
        self.roster.observe(task, info, turn)
        return info


def _coming(task: Entry) -> bool:
    """Whether the task may still get its id, and nobody has asked for its end."""
    return task.state in NAMELESS and task.reason is None and not task.unsupervised
