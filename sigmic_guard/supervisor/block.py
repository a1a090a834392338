"""``async with supervisor.task(…)``: a cancel scope around the caller's body, bound to a task.

What happens at the end is decided first and without a checkpoint, from what is recorded, and only
then waited for. A cancellation that comes from outside always goes on; ours becomes the error that
says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CancelScope, current_time, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint_if_cancelled

from sigmic_guard.lifecycle import CancelReason, Event, State
from sigmic_guard.observe import enter_task, leave_task
from sigmic_guard.sigmic import check_files
from sigmic_guard.supervisor.task import handle_of
from sigmic_guard.supervisor.telling import error_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Any

    from sigmic_guard.errors import SigmicGuardError
    from sigmic_guard.supervisor.core import Core
    from sigmic_guard.supervisor.entry import Entry
    from sigmic_guard.supervisor.intake import Order
    from sigmic_guard.supervisor.task import RemoteTask


class TaskBlock:
    """The block that owns a task; made by ``supervisor.task()`` and entered once."""

    def __init__(self, core: Core, order: Order) -> None:
        self._core = core
        self._order = order
        self._scope = CancelScope()
        self._task: Entry | None = None
        self._log_context: Mapping[str, Token[Any]] | None = None

    async def __aenter__(self) -> RemoteTask:
        """Create the task; the body may begin when its id is known.

        :raises SigmicGuardError: there is no task, or it is being ended. Nothing is left to do.
        """
        if self._task is not None:
            raise RuntimeError("a block is entered once: call supervisor.task() again")
        entered_at = current_time()
        if self._order.request.files:
            await check_files(self._order.request.files)
        task = self._task = self._core.intake.begin(self._order, entered_at=entered_at, held=True)
        task.scope = self._scope
        self._scope.__enter__()
        try:
            await self._core.intake.until_created(task)
        except BaseException as error:
            await self._leave(error)
            raise
        self._log_context = enter_task(task.id)
        return handle_of(task)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the task, if it has not ended; see the table in the README for what is raised."""
        if self._log_context is not None:
            leave_task(self._log_context)
        await self._leave(exc)

    async def _leave(self, error: BaseException | None) -> None:
        task = self._task
        assert task is not None
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

    async def _end(self, task: Entry, error: BaseException | None, *, body_finished: bool) -> bool:
        """End the task, and raise what shall be raised instead of ``error``, if anything shall.

        ``True`` if ``error`` was our own cancellation: it is over, and must not go on.
        """
        task.scope = None
        self._decide(task, error)
        try:
            ours = self._scope.__exit__(
                None if error is None else type(error),
                error,
                None if error is None else error.__traceback__,
            )
            # In a coroutine that is being closed nobody may wait.
            if task.pursued and not isinstance(error, GeneratorExit):
                with move_on_after(task.record.policy.cancel_wait, shield=True):
                    await task.until_settled()
        finally:
            task.held = False
            if task.record.state is State.COMPLETED:
                self._core.roster.apply(task, Event.CLOSE)
        if error is None or ours:
            await checkpoint_if_cancelled()  # a cancellation from outside comes first
            if verdict := self._verdict(task, body_finished=body_finished):
                raise verdict from None
        return ours

    def _decide(self, task: Entry, error: BaseException | None) -> None:
        """Record why the task is to end, if it is to: the first cause stays."""
        core, policy = self._core, task.record.policy
        if error is None:
            if policy.on_exit == "detach" and task.record.reason is None:
                core.roster.apply(task, Event.DETACH)
            else:
                core.cancel(task, CancelReason.SCOPE)
        elif not _is_cancellation(error):
            core.cancel(task, CancelReason.ERROR)
        elif not (core.forced or task.interruption is CancelReason.SHUTDOWN):
            core.cancel(task, CancelReason.SCOPE)
        elif policy.on_shutdown == "cancel":
            # The body may be cancelled before the drain gets to its task.
            core.cancel(task, CancelReason.SHUTDOWN)
        # else the drain lets it go, as soon as its id is known

    def _verdict(self, task: Entry, *, body_finished: bool) -> SigmicGuardError | None:
        """Say what the block raises, when the body did not raise by itself."""
        shut = task.interruption is CancelReason.SHUTDOWN
        ended_well = task.record.state is State.COMPLETED or task.reason in _ENDS_NORMALLY
        if body_finished and ended_well and not shut:
            return None
        return error_of(task, interrupted_by=task.interruption or task.reason)


#: None: it ended by itself. The others: the body ended before it.
_ENDS_NORMALLY = frozenset({None, CancelReason.SCOPE, CancelReason.ERROR})


def _is_cancellation(error: BaseException) -> bool:
    """Whether there is nothing but cancellations in it."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancellation, error.exceptions))
    return isinstance(error, get_cancelled_exc_class())
