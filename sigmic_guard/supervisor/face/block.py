"""``async with supervisor.task(…)``: a cancel scope around the caller's body, bound to a task.

What happens at the end is decided first and without a checkpoint, from what is recorded, and only
then waited for. A cancellation that comes from outside always goes on; ours becomes the error that
says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import get_cancelled_exc_class
from anyio.lowlevel import checkpoint_if_cancelled

from sigmic_guard.errors import ConfigurationError, TaskError
from sigmic_guard.lifecycle import CancelReason, Event, Outcome, State
from sigmic_guard.observe import BlockAbandoned, enter_task, leave_task
from sigmic_guard.sigmic import check_files
from sigmic_guard.supervisor.face.host import Host, HostedScope
from sigmic_guard.supervisor.face.task import handle_of
from sigmic_guard.supervisor.ground.from_entry import error_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Any

    from sigmic_guard.errors import SigmicGuardError
    from sigmic_guard.supervisor.face.core import Core
    from sigmic_guard.supervisor.face.intake import Order
    from sigmic_guard.supervisor.face.task import RemoteTask
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.results import TaskResult


class TaskBlock:
    """The block that owns a task; made by ``supervisor.task()`` and entered once.

    Where it is left behind, at the ``yield`` of a generator that nobody iterates over any more, its
    task is ended all the same, as soon as Python finds out: nothing here keeps the block alive.
    """

    def __init__(self, core: Core, order: Order) -> None:
        self._core = core
        #: Until the task is begun: it holds a message, and secrets.
        self._order: Order | None = order
        self._scope = core.lifetime.make_scope()
        self._host: Host
        self._hosted: HostedScope
        self._left = False
        self._task: Entry | None = None
        self._log_context: Mapping[str, Token[Any]] | None = None

    async def __aenter__(self) -> RemoteTask:
        """Create the task; the body may begin when its id is known.

        :raises SigmicGuardError: there is no task, or it is being ended. Nothing is left to do.
        """
        if self._order is None:
            raise RuntimeError("a block is entered once: call supervisor.task() again")
        self._core.ground.check_here()
        entered_at = self._core.lifetime.moment()
        if self._order.request.files:
            await check_files(self._order.request.files)
        task = self._task = self._core.intake.begin(self._order, entered_at=entered_at, block=self)
        self._order = None
        self._host = Host()
        self._scope.__enter__()
        self._hosted = HostedScope(self._scope)
        try:
            await self._core.intake.until_created(task)
        except BaseException as error:
            await self._leave(error)
            raise
        self._log_context = enter_task(task.id)
        return handle_of(self._core, task)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the task, if it has not ended; see the table in the README for what is raised.

        :raises ConfigurationError: this is another asyncio task, or another event loop, than the
            one that entered the block. The remote task is ended as ever.
        """
        if self._log_context is not None:
            leave_task(self._log_context)
            self._log_context = None
        await self._leave(exc)

    def interrupt(self) -> None:
        """Cancel the body."""
        self._scope.cancel()

    @property
    def is_hosted_here(self) -> bool:
        """Whether the running asyncio or trio task is the one that entered it."""
        return self._host.is_current

    def leave_behind(self, error: BaseException | None) -> bool:
        """Leave the scope of a block that stands in a generator which was left behind.

        To be called by the task that entered it, which has come back without leaving it. Returns
        whether ``error``, which came out with it, is nothing but the scope's own cancellation.
        """
        if self._log_context is not None:
            leave_task(self._log_context)
            self._log_context = None
        return bool(self._leave_scope(error)) and error is not None

    def __del__(self) -> None:
        if self._task is not None and not self._left:
            self._core.ground.inbox.leave(self._core.decider.abandon, self._task)

    async def _leave(self, error: BaseException | None) -> None:
        task = self._task
        assert task is not None
        self._left = True
        if isinstance(error, GeneratorExit):
            self._close(task, error)
            return
        try:
            self._core.ground.check_here()
        except ConfigurationError:
            self._core.ground.inbox.leave(self._core.decider.abandon, task)
            raise
        if error is not None or task.record.policy.on_exit != "wait":
            await self._end(task, error, body_finished=error is None)
            return
        try:
            await task.until_settled()
        except BaseException as interruption:
            if not await self._end(task, interruption, body_finished=True):
                raise
        else:
            await self._end(task, None, body_finished=True)

    def _close(self, task: Entry, error: GeneratorExit) -> None:
        """End the task of a coroutine or a generator that is being closed: nobody may wait in it.

        The collector may do that, in whatever thread and task it happens to run.
        """
        core = self._core
        here = self._leave_scope(error) is not None
        core.ground.inbox.leave(core.decider.release if here else core.decider.abandon, task)

    def _leave_scope(self, error: BaseException | None) -> bool | None:
        """Return whether ``error`` was our own cancellation; ``None`` where this cannot be left."""
        self._hosted.left()
        try:
            return self._scope.__exit__(
                None if error is None else type(error),
                error,
                None if error is None else error.__traceback__,
            )
        except RuntimeError:  # so say anyio and trio where this is not the task, or not the time
            return None

    async def _end(self, task: Entry, error: BaseException | None, *, body_finished: bool) -> bool:
        """End the task, and raise what shall be raised instead of ``error``, if anything shall.

        ``True`` if ``error`` was our own cancellation: it is over, and must not go on.
        """
        assert task.block is not None
        task.block.body_over()
        self._decide(task, error)
        try:
            ours = self._leave_scope(error)
            if task.pursued and not _is_left_to_a_group(task):
                await self._core.exits.until_settled([task], task.record.policy.cancel_wait)
        finally:
            self._core.decider.leave(task)
        misplaced = None
        if ours is None:
            misplaced = self._host.explain(
                f"the block of {task.record.remote_id or 'a task'} was left, and the task is "
                f"{task.record.state}",
                instead="or use supervisor.start() and await task.cancel()",
            )
            if error is not None:  # which goes on
                self._core.ground.observer.observe(BlockAbandoned(task.record))
        if error is None or ours:
            await checkpoint_if_cancelled()  # a cancellation from outside comes first
            if verdict := self._verdict(task, body_finished=body_finished):
                raise verdict from misplaced
            if misplaced is not None:
                raise misplaced
        return bool(ours)

    def _decide(self, task: Entry, error: BaseException | None) -> None:
        """Record why the task is to end, if it is to: the first cause stays."""
        core, policy = self._core, task.record.policy
        if _is_left_to_a_group(task) and not core.lifetime.closing:
            return
        if error is None:
            if policy.on_exit == "detach" and task.record.reason is None:
                core.roster.apply(task, Event.DETACH)
            else:
                core.decider.cancel(task, CancelReason.SCOPE)
        elif not _is_cancellation(error):
            core.decider.cancel(task, CancelReason.ERROR)
        elif not (core.lifetime.forced or task.interruption is CancelReason.SHUTDOWN):
            core.decider.cancel(task, CancelReason.SCOPE)
        elif task.record.on_shutdown == "cancel":
            # The body may be cancelled before the drain gets to its task.
            core.decider.cancel(task, CancelReason.SHUTDOWN)
        # else the drain lets it go, as soon as its id is known

    def _verdict(self, task: Entry, *, body_finished: bool) -> SigmicGuardError | None:
        """Say what the block raises, when the body did not raise by itself."""
        shut = task.interruption is CancelReason.SHUTDOWN
        ended_well = task.record.state is State.COMPLETED or task.reason in _ENDS_NORMALLY
        if body_finished and ended_well and not shut:
            return None
        return error_of(task, interrupted_by=task.interruption or task.reason)


async def run_block(block: TaskBlock) -> TaskResult:
    """Enter the block, and return its task's result: what ``run()`` does.

    :raises SigmicGuardError: what the block raises, unless its task completed before that.
    """
    try:
        async with block as task:
            return await task.result()
    except TaskError as error:
        if error.result is not None and error.result.outcome is Outcome.COMPLETED:
            won: TaskResult = error.result  # it completed before the DELETE reached it
            return won
        raise


#: None: it ended by itself. The others: the body ended before it.
_ENDS_NORMALLY = frozenset({None, CancelReason.SCOPE, CancelReason.ERROR})


def _is_left_to_a_group(task: Entry) -> bool:
    """Whether the block is not its last owner, and nobody has asked for its end."""
    return task.claimed and task.reason is None


def _is_cancellation(error: BaseException) -> bool:
    """Whether there is nothing but cancellations in it."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancellation, error.exceptions))
    return isinstance(error, get_cancelled_exc_class())
