"""How tasks come in: created, adopted, or found where nobody looked for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING

from anyio import current_time, move_on_after
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import (
    ConfigurationError,
    ConnectionFailed,
    DuplicateKey,
    SigmicGuardError,
    fresh,
)
from sigmic_guard.lifecycle import CancelReason, Event, Record, State, Verdict
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.lifecycle.text import shown_id
from sigmic_guard.supervisor.claims import PATIENCE
from sigmic_guard.supervisor.durations import begin_in_the_past
from sigmic_guard.supervisor.entry import Entry
from sigmic_guard.supervisor.marking import digest, mark, told_by
from sigmic_guard.supervisor.telling import error_of

if TYPE_CHECKING:
    from sigmic_guard.lifecycle import TaskPolicy
    from sigmic_guard.sigmic.models import CreateRequest
    from sigmic_guard.supervisor.core import Core


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task that somebody wants: checked, and not begun."""

    request: CreateRequest
    policy: TaskPolicy
    #: Absolute, on anyio's clock; beside the policy's relative ``timeout``.
    deadline: float | None
    key: str | None = field(repr=False)


def new_intent_id(now: float) -> str:
    """Return an id that nobody else has.

    It begins with the time, in milliseconds, so that rows of one time lie together in a ledger:
    random ids cost twice as much to write. Source: RFC 9562, section 6.11, which it follows in
    spirit.
    """
    return f"{int(now * 1000) & _TIME:012x}{token_hex(10)}"


_TIME = (1 << 48) - 1


class Intake:
    """Makes the entries of the roster."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # --- created --------------------------------------------------------------------------------

    def begin(self, order: Order, *, entered_at: float, held: bool) -> Entry:
        """Take a task on, and see to its creation.

        :param entered_at: when its time-out began to count, on anyio's clock.
        :param held: a block holds it, so that a follow-up can come after its completion.
        :raises SupervisorShutdown: too late.
        :raises DuplicateKey: a live task of this process holds the key.
        """
        core = self._core
        core.check_open()
        self._check_key(order)
        deadline = _earlier(order, entered_at)
        unmarked = None if self._can_be_marked(order.request) else digest(order.request.message)
        record = self._intend(order.policy, deadline, order.key, message_digest=unmarked)
        task = self._enlist(record, deadline)
        task.held = held
        self._ask_for(task, order.request)
        core.creator.take(task)
        return task

    def create_anew(self, task: Entry) -> None:
        """Create a task that was claimed by its key, and turned out not to exist."""
        request, old = task.request, task.record
        assert request is not None
        # Not what the dead owner's create was: this one may have files, and that one none.
        unmarked = None if self._can_be_marked(request) else digest(request.message)
        record = self._intend(old.policy, task.deadline, old.key, message_digest=unmarked)
        self._core.roster.renew(task, record)
        self._ask_for(task, request)
        self._core.creator.again(task)

    def _can_be_marked(self, request: CreateRequest) -> bool:
        return self._core.settings.marker and not request.files

    def _ask_for(self, task: Entry, request: CreateRequest) -> None:
        task.marked = self._can_be_marked(request)
        task.prompt = told_by(request.message)
        task.request = mark(request, task.record.intent_id) if task.marked else request

    async def start(self, order: Order) -> Entry:
        """Begin a background task and wait for its id."""
        task = self.begin(order, entered_at=current_time(), held=False)
        try:
            await self.until_created(task)
        except SigmicGuardError:
            raise
        except BaseException:  # a cancellation, or the caller's coroutine was closed
            self._core.cancel(task, CancelReason.SCOPE)
            raise
        return task

    async def until_created(self, task: Entry) -> None:
        """Wait until the task has an id.

        :raises SigmicGuardError: it gets none, or is to end before that. If it should turn out to
            exist after all, the supervisor ends it.
        """
        while _coming(task):
            await task.until(lambda task: not _coming(task) or task.state is State.UNKNOWN)
            if not _coming(task):
                break
            # The answer was lost. Where the create was marked the list will tell.
            with move_on_after(self._patience_with(task)):
                await task.until(lambda task: task.state is not State.UNKNOWN or not _coming(task))
            if _coming(task) and task.state is State.UNKNOWN:
                failure = task.failure or ConnectionFailed("the create got no answer", sent=True)
                self._core.cancel(task, CancelReason.ERROR)
                raise fresh(failure)
        if task.interruption is not None:
            await checkpoint()  # raises: the block's scope is cancelled
        if task.reason is not None:
            with move_on_after(task.record.policy.cancel_wait):
                await task.until_settled()
            raise error_of(task, interrupted_by=task.reason)
        if task.record.remote_id is None:
            raise error_of(task)

    def _patience_with(self, task: Entry) -> float:
        """Seconds to wait for a task whose create got no answer."""
        if not task.marked:
            return 0.0
        patience = 2 * self._core.settings.create_timeout
        # Who claimed it can do nothing with the key until it is found, or created.
        claimed = task.inheritance is not None and task.inheritance.claimed
        return patience + PATIENCE if claimed else patience

    # --- adopted --------------------------------------------------------------------------------

    async def adopt(self, task_id: str, order: Order) -> Entry:
        """Take on a task that exists already; the order's request plays no part."""
        core = self._core
        core.check_open()
        entered_at = current_time()
        info = await core.courier.read(task_id)
        core.check_open()
        self._check_id(task_id)
        self._check_key(order)
        deadline = _earlier(order, entered_at)
        task = self._enlist(self._intend(order.policy, deadline, order.key), deadline)
        if order.key is None:
            core.outbox.insert(task.record)
        else:
            await self._take_key(task, task_id)
        # A completed task is adopted to be asked again, so it stays open until it has been.
        task.held = info.status == "completed"
        core.roster.apply(task, Event.ADOPT, remote_id=task_id)
        if core.roster.observe(task, info, task.turn):
            core.creator.leave(task)  # it costs nothing; a follow-up takes the place again
        task.held = False
        await self._write_down(task)
        return task

    async def _write_down(self, task: Entry) -> None:
        """Wait until a crash does not lose it; a ledger that fails is not waited for."""
        try:
            with move_on_after(self._core.settings.create_timeout):
                await self._core.outbox.flush()
        except BaseException:
            if task.record.state is State.RUNNING:
                self._core.roster.apply(task, Event.DETACH)  # it is as it was
            raise

    async def _take_key(self, task: Entry, task_id: str) -> None:
        """Have the ledger say that the key is ours, before the task is.

        :raises DuplicateKey: an unfinished task holds the key.
        :raises LedgerError: that could not be written.
        :raises SigmicGuardError: the task was withdrawn meanwhile, or is supervised by now.
        """
        core = self._core
        try:
            await core.outbox.commit(task.record, timeout=core.settings.create_timeout)
            self._check_id(task_id)
        except SigmicGuardError as error:
            if task.record.state is State.INTENT:
                core.roster.apply(task, Event.WITHDRAW, error=str(error))
            raise
        except BaseException:
            core.cancel(task, CancelReason.SCOPE)  # which withdraws it: the task is as it was
            raise
        if task.record.state is not State.INTENT:
            raise error_of(task, interrupted_by=task.reason)

    # --- found ----------------------------------------------------------------------------------

    def entry_of(self, record: Record, verdict: Verdict) -> Entry:
        """Make the entry of a dead owner's row that is ours by now."""
        task = Entry(self._core, record, None)
        begin_in_the_past(task, record, self._core.now())
        task.inherit().verdict = verdict
        task.marked = record.message_digest is None
        return task

    def end_stray(self, absent: Record, task_id: str) -> None:
        """End a task that appeared although it had been proven not to exist."""
        record = self._intend(absent.policy, None, None, orphaned_at=absent.finished_at)
        task = self._enlist(record, None)
        task.inherit().verdict = Verdict.REAP
        self._core.examiner.join(task)
        self._core.outbox.insert(record)
        self._core.roster.apply(task, Event.ADOPT, remote_id=task_id)

    # --- inside ---------------------------------------------------------------------------------

    def _check_id(self, task_id: str) -> None:
        if task_id in self._core.roster.named:
            raise ConfigurationError(
                f"{shown_id(task_id)} is supervised already: supervisor.tasks has its handle"
            )

    def _check_key(self, order: Order) -> None:
        # Not a local: tools print those of a traceback, and the key is the user's.
        if order.key is not None and order.key in self._core.roster.keys:
            raise DuplicateKey("a live task of this process holds the key", key=order.key)

    def _intend(
        self,
        policy: TaskPolicy,
        deadline: float | None,
        key: str | None,
        *,
        message_digest: str | None = None,
        orphaned_at: float | None = None,
    ) -> Record:
        core, now = self._core, self._core.now()
        return Record(
            intent_id=new_intent_id(now),
            namespace=core.settings.namespace,
            base_url=core.api.base_url,
            credential_fingerprint=core.api.credential_fingerprint,
            owner_id=core.owner_id,
            policy=policy,
            created_at=now,
            deadline_at=None if deadline is None else now + deadline - current_time(),
            key=key,
            message_digest=message_digest,
            orphaned_at=orphaned_at,
        )

    def _enlist(self, record: Record, deadline: float | None) -> Entry:
        core = self._core
        task = Entry(core, record, deadline)
        core.roster.enter(task)
        if deadline is not None:
            task.deadline_alarm = core.timer.at(deadline, core.deadline_reached, task)
        return task


def _earlier(order: Order, entered_at: float) -> float | None:
    """Return the order's deadline, on anyio's clock."""
    if order.policy.timeout is None:
        return order.deadline
    relative = entered_at + order.policy.timeout
    return relative if order.deadline is None else min(order.deadline, relative)


def _coming(task: Entry) -> bool:
    """Whether the task may still get its id, and nobody has asked for its end."""
    return task.state in NAMELESS and task.reason is None and not task.unsupervised
