"""How tasks come in, created or adopted, and what those wait for who asked for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyio import move_on_after
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import (
    ConfigurationError,
    ConnectionFailed,
    SigmicGuardError,
    fresh,
)
from sigmic_guard.lifecycle import CancelReason, Event, State
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.lifecycle.text import shown_id
from sigmic_guard.supervisor.ground.from_entry import error_of, key_taken
from sigmic_guard.supervisor.ground.phases import Block
from sigmic_guard.supervisor.recovery.claims import KEY_WAIT_SECONDS

if TYPE_CHECKING:
    from sigmic_guard.lifecycle import TaskPolicy
    from sigmic_guard.sigmic.models import CreateRequest
    from sigmic_guard.supervisor.face.members import Members
    from sigmic_guard.supervisor.ground.entries import Entries
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.ground.phases import Interruptible
    from sigmic_guard.supervisor.work.caller_requests import CallerRequests
    from sigmic_guard.supervisor.work.creating import Creator
    from sigmic_guard.supervisor.work.deciding import Decider


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task that somebody wants: checked, and not begun."""

    request: CreateRequest
    policy: TaskPolicy
    #: Absolute, on anyio's clock; beside the policy's relative ``timeout``.
    deadline: float | None
    key: str | None = field(repr=False)
    #: The group that it is to belong to.
    members: Members | None = None


class Intake:
    """Takes on what users ask for, and lets them wait for it."""

    def __init__(
        self,
        ground: Ground,
        entries: Entries,
        creator: Creator,
        caller_requests: CallerRequests,
        decider: Decider,
    ) -> None:
        self._ground = ground
        self._entries = entries
        self._creator = creator
        self._caller_requests = caller_requests
        self._decider = decider

    # --- created --------------------------------------------------------------------------------

    def begin(
        self, order: Order, *, entered_at: float, block: Interruptible | None = None
    ) -> Entry:
        """Take a task on, and see to its creation.

        :param entered_at: when its time-out began to count, on anyio's clock.
        :param block: what owns it: a follow-up can come after its completion.
        :raises SupervisorShutdown: too late.
        :raises DuplicateKey: a live task of this process holds the key.
        :raises ConfigurationError: its group has ended.
        """
        self._ground.check_open()
        if order.members is not None:
            order.members.check_open()
        self._check_key(order)
        deadline = _earlier(order, entered_at)
        task = self._creator.begin(
            order.request,
            order.policy,
            deadline,
            order.key,
            None if block is None else Block(block),
        )
        if order.members is not None and block is not None:
            order.members.add(task)
        elif order.members is not None:
            order.members.claim(task)
        return task

    async def start(self, order: Order) -> Entry:
        """Begin a background task and wait for its id."""
        task = self.begin(order, entered_at=self._ground.lifetime.moment())
        try:
            await self.until_created(task)
        except SigmicGuardError:
            raise
        except BaseException:  # a cancellation, or the caller's coroutine was closed
            self._decider.cancel(task, CancelReason.SCOPE)
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
            with move_on_after(self._search_seconds(task)):
                await task.until(lambda task: task.state is not State.UNKNOWN or not _coming(task))
            if _coming(task) and task.state is State.UNKNOWN:
                failure = task.failure or ConnectionFailed("the create got no answer", sent=True)
                self._decider.cancel(task, CancelReason.ERROR)
                raise fresh(failure)
        if task.interruption is not None:
            await checkpoint()  # raises: the block's scope is cancelled
        if task.reason is not None:
            with move_on_after(task.record.policy.cancel_wait):
                await task.until_settled()
            raise error_of(task, interrupted_by=task.reason)
        if task.record.remote_id is None:
            raise error_of(task)

    def _search_seconds(self, task: Entry) -> float:
        """Seconds to wait for a task whose create got no answer."""
        if not task.marked:
            return 0.0
        seconds = 2 * self._ground.settings.create_timeout
        # Who claimed it can do nothing with the key until it is found, or created.
        claimed = task.inheritance is not None
        return seconds + KEY_WAIT_SECONDS if claimed else seconds

    # --- adopted --------------------------------------------------------------------------------

    async def adopt(self, task_id: str, order: Order) -> Entry:
        """Take on a task that exists already; the order's request plays no part."""
        ground = self._ground
        ground.check_open()
        entered_at = self._ground.lifetime.moment()
        info = await self._caller_requests.read(task_id)
        ground.check_open()
        self._check_id(task_id)
        self._check_key(order)
        deadline = _earlier(order, entered_at)
        record = self._entries.intend(order.policy, deadline, order.key)
        task = self._entries.enlist(record, deadline)
        if order.key is None:
            ground.outbox.insert(task.record)
        else:
            await self._take_key(task, task_id)
        ground.readings.adopt(task, info)
        if order.members is not None:
            order.members.claim(task)
        await self._write_down(task)
        return task

    async def _write_down(self, task: Entry) -> None:
        """Wait until a crash does not lose it; a ledger that fails is not waited for."""
        try:
            with move_on_after(self._ground.settings.create_timeout):
                await self._ground.outbox.flush()
        except BaseException:
            if task.record.state is State.RUNNING:
                self._ground.roster.apply(task, Event.DETACH)  # it is as it was
            raise

    async def _take_key(self, task: Entry, task_id: str) -> None:
        """Have the ledger say that the key is ours, before the task is.

        :raises DuplicateKey: an unfinished task holds the key.
        :raises LedgerError: that could not be written.
        :raises SigmicGuardError: the task was withdrawn meanwhile, or is supervised by now.
        """
        ground = self._ground
        try:
            await ground.outbox.commit(task.record, timeout=ground.settings.create_timeout)
            self._check_id(task_id)
        except SigmicGuardError as error:
            if task.record.state is State.INTENT:
                ground.roster.apply(task, Event.WITHDRAW, error=str(error))
            raise
        except BaseException:
            self._decider.cancel(task, CancelReason.SCOPE)  # which withdraws it: it is as it was
            raise
        if task.record.state is not State.INTENT:
            raise error_of(task, interrupted_by=task.reason)

    # --- inside ---------------------------------------------------------------------------------

    def _check_id(self, task_id: str) -> None:
        if task_id in self._ground.roster.named:
            raise ConfigurationError(
                f"{shown_id(task_id)} is supervised already: supervisor.tasks has its handle"
            )

    def _check_key(self, order: Order) -> None:
        # Not a local: tools print those of a traceback, and the key is the user's.
        roster = self._ground.roster
        if order.key is not None and order.key in roster.keys:
            raise key_taken(
                "a live task of this process holds the key", roster.keys[order.key].record
            )


def _earlier(order: Order, entered_at: float) -> float | None:
    """Return the order's deadline, on anyio's clock."""
    if order.policy.timeout is None:
        return order.deadline
    relative = entered_at + order.policy.timeout
    return relative if order.deadline is None else min(order.deadline, relative)


def _coming(task: Entry) -> bool:
    """Whether the task may still get its id, and nobody has asked for its end."""
    return task.state in NAMELESS and task.reason is None and not task.unsupervised
