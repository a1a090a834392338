"""The handle of one remote task, as users hold it.

A handle is small and does nothing by itself: there may be 100,000 of them. Its state is the
immutable record that the roster replaces; whoever waits for a change leaves an event here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from anyio import Event, move_on_after

from sigmic_guard.errors import (
    ConfigurationError,
    ProtocolError,
    SigmicGuardError,
    SupervisorShutdown,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskTimedOut,
)
from sigmic_guard.lifecycle import CancelReason, Outcome, State
from sigmic_guard.lifecycle.states import ENDED, NAMELESS, SETTLED
from sigmic_guard.observe import CancelResult
from sigmic_guard.supervisor.results import Cancellation, TaskResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from anyio import CancelScope

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.api import ApprovalOutcome
    from sigmic_guard.sigmic.models import CreateRequest, TaskInfo
    from sigmic_guard.supervisor.core import Core
    from sigmic_guard.supervisor.events import TaskEvents
    from sigmic_guard.supervisor.timer import Alarm


class RemoteTask:
    """A remote task that this supervisor watches over. Made by the supervisor, never by hand."""

    __slots__ = (
        "__weakref__",
        "_core",
        "_waiters",
        "acknowledged",
        "answer",
        "cancel_result",
        "deadline",
        "deadline_alarm",
        "failure",
        "held",
        "interruption",
        "looking",
        "marked",
        "readers",
        "record",
        "request",
        "retry_alarm",
        "scope",
        "seen_at",
        "sending",
        "turn",
    )

    def __init__(self, core: Core, record: Record, deadline: float | None) -> None:
        self._core = core
        self._waiters: list[Event] | None = None
        #: What the roster knows; replaced by it alone.
        self.record = record
        #: Absolute, on anyio's clock (``anyio.current_time()``); ``None`` for none.
        self.deadline = deadline
        # What follows belongs to the rooms of the supervisor, not to users.
        self.deadline_alarm: Alarm | None = None
        self.retry_alarm: Alarm | None = None
        self.request: CreateRequest | None = None  # let go once it is sent: it holds secrets
        self.scope: CancelScope | None = None  # around the body of a scoped block
        self.held = False  # a block may still send a follow-up
        self.interruption: CancelReason | None = None  # why we cancelled the body, if we did
        self.failure: Any = None  # the create's exception, or the API's error
        self.answer: str | None = None
        self.cancel_result: CancelResult | None = None
        self.acknowledged = 0  # how often GET was asked since a DELETE was acknowledged, plus one
        self.seen_at = 0.0
        self.readers: WeakSet[TaskEvents] | None = None
        self.marked = False  # the create carries the intent id, so the list can tell it
        self.sending = 0
        self.turn = 0  # grows with each follow-up: what was read before one says nothing after it
        self.looking = False

    # --- what it is -------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The remote id.

        :raises TaskError: it is not known; that is so only before a block is entered.
        """
        if self.record.remote_id is None:
            raise TaskError("the task has no id: it was not created, or not yet")
        return self.record.remote_id

    @property
    def state(self) -> State:
        """What is known of the remote task now."""
        return self.record.state

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; ``None`` while it has not."""
        return self.record.outcome

    @property
    def reason(self) -> CancelReason | None:
        """Why it is to end: the first cause of its cancellation, if there was one."""
        return self.record.reason

    @property
    def created_at(self) -> float:
        """Seconds since the epoch at which this library took the task on."""
        return self.record.created_at

    def __repr__(self) -> str:
        return f"<RemoteTask {self.record.remote_id or 'without id'} {self.record.state}>"

    # --- what can be asked of it ------------------------------------------------------------

    def events(self) -> TaskEvents:
        """Iterate over what the task does, live, as :class:`~sigmic_guard.TaskEvent`.

        The iterator reconnects when the stream drops or falls silent, and marks what it has
        delivered before as ``replayed``. It ends when the task ends or waits for a follow-up.
        Leave it early as you like; ``aclose()`` drops its connection at once.

        Iterating raises :class:`~sigmic_guard.errors.ApiError` where the API refuses it
        for good (401, 403), and ``ProtocolError`` for an event of more than 8 MiB. The task stays
        supervised after a raise.
        """
        return self._core.events(self)

    async def result(self) -> TaskResult:
        """Wait for the task's end and return its result.

        :raises TaskFailed: the agent failed.
        :raises TaskTimedOut: it was cancelled because of its deadline.
        :raises TaskCancelled: it was cancelled for any other reason.
        :raises TaskError: it was detached, so nobody here will learn its end.
        """
        if self.record.state is State.RUNNING and self.held and not self.streams:
            # A stream tells the end at once; the list would do so within a second or two.
            events = self.events()
            try:
                async for _ in events:
                    pass
            except ProtocolError:
                pass  # an event too large to be read is no reason to lose the result
            finally:
                await events.aclose()
        await self.until_settled()
        if self.record.state is State.COMPLETED:
            return self.tell()
        raise self.error()

    async def wait(self) -> TaskResult:
        """Wait for the task's end and tell how it ended; never raises for that."""
        await self.until_settled()
        return self.tell()

    def request_cancel(self) -> None:
        """Ask for the task's end and go on: a plain call, to be made in the event loop."""
        self._core.cancel(self, CancelReason.USER)

    async def cancel(self) -> Cancellation:
        """Ask for the task's end, and wait for the answer at most ``cancel_wait`` seconds.

        The body of the task's block, if it has one, is cancelled. Never raises for the task's or
        the API's sake: what could not be proven is ``unconfirmed``, and is pursued further.
        """
        asked_again = self.record.state is State.UNCONFIRMED
        version = self.record.version
        self.request_cancel()
        with move_on_after(self.record.policy.cancel_wait):
            if asked_again:
                await self.until_changed(version)
            await self.until_settled()
        return self.tell_cancellation()

    async def send(self, message: str, *, files: Iterable[str | Path] = ()) -> None:
        """Ask a running or completed task something more; its answer comes through :meth:`events`.

        :raises TaskCancelled: the task was cancelled, or is about to be. Nothing is sent.
        :raises TaskFailed: the task failed. Nothing is sent.
        :raises SupervisorShutdown: the supervisor is shutting down. Nothing is sent.
        :raises ConfigurationError: the handle is finished: adopt the task to ask it again.
        :raises SigmicGuardError: the API refused (the task is as it was), or gave no answer (the
            task counts as running).
        """
        if self.record.reason is not None or self.record.state is State.FAILED:
            # In a body that is being cancelled, what the block would raise.
            raise self.error(interrupted_by=self.interruption)
        if self.record.finished_at is not None or self.record.state in NAMELESS:
            raise ConfigurationError(
                f"a task that is {self.state} takes no message here; "
                "supervisor.adopt(task.id) makes a handle that does"
            )
        await self._core.send(self, message, files)

    async def approve(self, call_id: str, outcome: ApprovalOutcome = "proceed_once") -> bool:
        """Decide on a tool call that waits for it; ``True`` if the API calls it approved.

        :param outcome: ``"proceed_once"`` (default), ``"proceed_always"`` or ``"cancel"``.
        :raises TaskNotFound: no such tool call waits.
        :raises SigmicGuardError: the API refused, or gave no answer.
        """
        return await self._core.approve(self, call_id, outcome)

    async def refresh(self) -> TaskInfo:
        """Read the task from the API, take in what it says, and return it.

        :raises SigmicGuardError: the API refused, or gave no answer. The handle is as it was.
        """
        return await self._core.refresh(self)

    # --- for the rooms of the supervisor ------------------------------------------------------

    @property
    def unsupervised(self) -> bool:
        """Whether the supervisor has closed: nothing will change any more."""
        return self._core.closed

    @property
    def pursued(self) -> bool:
        """Whether somebody here works on bringing the task to an end, or on finding it."""
        state = self.record.state
        return state not in SETTLED and (state is not State.UNKNOWN or self.marked)

    def wake(self) -> None:
        """Let those who wait look again."""
        if self._waiters is not None:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                waiter.set()

    async def until(self, condition: Callable[[Self], bool]) -> None:
        """Wait until the condition holds; looked at after each change."""
        while not condition(self):
            waiter = Event()
            if self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)
            try:
                await waiter.wait()
            finally:
                if self._waiters is not None and waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def until_changed(self, version: int) -> None:
        """Wait until the record is a later one."""
        await self.until(lambda task: task.record.version > version or task.unsupervised)

    async def until_settled(self) -> None:
        """Wait until nobody here works on the task any more."""
        await self.until(lambda task: task.record.state in SETTLED or task.unsupervised)

    @property
    def streams(self) -> int:
        """How many iterators read the task's events."""
        return len(self.readers) if self.readers else 0

    def join_reader(self, reader: TaskEvents) -> None:
        """Count an iterator that reads the events."""
        if self.readers is None:
            self.readers = WeakSet()
        self.readers.add(reader)

    def leave_reader(self, reader: TaskEvents) -> None:
        """Count it no more."""
        if self.readers is not None:
            self.readers.discard(reader)

    def hang_up(self) -> None:
        """End the streams that are being read: nothing is to be heard from this task."""
        for reader in tuple(self.readers or ()):
            reader.hang_up()

    def interrupt(self, reason: CancelReason) -> None:
        """Cancel the body of the block; the first interruption stays."""
        if self.scope is not None and self.interruption is None:
            self.interruption = reason
            self.scope.cancel()

    def tell(self) -> TaskResult:
        """Say how the task ended, or what is believed if nobody can know."""
        record = self.record
        ended_at = record.finished_at or self._core.now()
        asked = record.reason is not None
        return TaskResult(
            id=record.remote_id,
            outcome=record.outcome or (Outcome.CANCELLED if asked else Outcome.FAILED),
            status=record.remote_status,
            final_response=self.answer,
            error=self.failure,
            reason=record.reason,
            created_at=record.created_at,
            duration=ended_at - record.created_at,
            cancellation=self.tell_cancellation() if asked else None,
        )

    def tell_cancellation(self) -> Cancellation:
        """Say what came of the cancellation so far."""
        record = self.record
        result = self.cancel_result
        if result is None:
            ended = record.state in ENDED
            result = CancelResult.ALREADY_FINISHED if ended else CancelResult.UNCONFIRMED
        return Cancellation(
            result=result,
            state=record.state,
            reason=record.reason,
            attempts=record.attempts,
            error=record.last_error,
        )

    def error(self, *, interrupted_by: CancelReason | None = None) -> SigmicGuardError:
        """Make the error that says why there is no result.

        :param interrupted_by: the block's body was cancelled for this, however the task ended.
        """
        result, record = self.tell(), self.record
        name = record.remote_id or "the task"
        why = interrupted_by or record.reason
        if isinstance(self.failure, SigmicGuardError) and record.state is State.NEVER_CREATED:
            return self.failure  # the create's own exception says it best
        if interrupted_by is CancelReason.SHUTDOWN:
            return SupervisorShutdown(f"the supervisor shut down; {name} is {record.state}")
        if why is CancelReason.DEADLINE:
            return TaskTimedOut(
                f"{name} reached its deadline; it is {record.state}",
                task_id=record.remote_id,
                result=result,
            )
        if record.state is State.FAILED:
            return TaskFailed(
                f"{name} failed: {self.failure}",
                task_id=record.remote_id,
                error=self.failure,
                result=result,
            )
        if why is not None:
            return TaskCancelled(
                f"{name} was cancelled (reason: {why}); it is {record.state}",
                task_id=record.remote_id,
                reason=why,
                result=result,
            )
        return TaskError(
            f"{name} is {record.state}: nobody here will learn its end",
            task_id=record.remote_id,
            result=result,
        )
