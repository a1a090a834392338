"""``supervisor.group()``: an owner of several tasks that end together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self, Unpack

from anyio import current_time

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.sigmic import check_files, check_id
from sigmic_guard.supervisor.face.block import TaskBlock, run_block
from sigmic_guard.supervisor.face.members import Members
from sigmic_guard.supervisor.face.task import entry_of, handle_of
from sigmic_guard.supervisor.work.wish import Wish

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sigmic_guard.supervisor.face.core import Core
    from sigmic_guard.supervisor.face.intake import Order
    from sigmic_guard.supervisor.face.options import TaskOptions, Watch
    from sigmic_guard.supervisor.face.task import RemoteTask
    from sigmic_guard.supervisor.ground.results import TaskResult
    from sigmic_guard.supervisor.ground.timer import Alarm


class RemoteTaskGroup:
    """Owns tasks that end together: ``async with supervisor.group() as group:``.

    What one request, one job or one session begins belongs in one group. When the group ends, each
    of its tasks that is still live is ended, those of ``start`` included, and the bodies of their
    blocks are cancelled; whatever became of the code that began them, and in whatever asyncio or
    trio task. A task that another block or group owns as well (:meth:`adopt`) goes on: the last
    of its owners ends it. A group lives in no cancel scope, so that it can be left elsewhere than
    where it was entered, and may be kept across a ``yield``. One that nobody holds any more ends
    as well, with a warning in the log: keep it as long as its tasks are to run.

    Leaving the block waits for the DELETEs to be acknowledged, at most the longest ``cancel_wait``
    of the tasks, and raises nothing of its own. Neither the failure of a task nor the shutdown
    cancels the block's body.
    """

    def __init__(
        self,
        core: Core,
        make_order: Callable[[Wish], Order],
        make_watch: Callable[[Wish], Order],
    ) -> None:
        self._core = core
        self._make_order = make_order
        self._make_watch = make_watch
        self._members = Members(core.decider, core.lifetime, core.ground.inbox)
        self._alarm: Alarm | None = None

    def __repr__(self) -> str:
        state = "ended" if self._members.ended else "open"
        return f"<RemoteTaskGroup, {state}, {self.live} tasks>"

    @property
    def live(self) -> int:
        """How many of its tasks are not over."""
        return len(self._members.live)

    def task(self, message: str, **options: Unpack[TaskOptions]) -> TaskBlock:
        """Return a block that owns a new task; see :meth:`Supervisor.task`.

        :raises ConfigurationError: an option makes no sense; on entering: the group has ended.
        """
        wish = Wish(message, options)
        del message, options
        return TaskBlock(self._core, self._order(wish))

    async def run(self, message: str, **options: Unpack[TaskOptions]) -> TaskResult:
        """Create a task, wait for its end, and return its result; see :meth:`Supervisor.run`.

        :raises TaskCancelled: the group ended meanwhile (reason ``scope``).
        :raises ConfigurationError: the group has ended.
        """
        wish = Wish(message, options)
        del message, options
        return await run_block(TaskBlock(self._core, self._order(wish)))

    async def start(self, message: str, **options: Unpack[TaskOptions]) -> RemoteTask:
        """Create a task that runs until the group ends; see :meth:`Supervisor.start`.

        :raises ConfigurationError: the group has ended.
        """
        wish = Wish(message, options)
        del message, options
        core = self._core
        core.ground.check_here()
        order = self._order(wish)
        if order.request.files:
            await check_files(order.request.files)
        return handle_of(core, await core.intake.start(order))

    async def adopt(self, task: RemoteTask | str, **options: Unpack[Watch]) -> RemoteTask:
        """Take on a task that exists already, and return its handle.

        :param task: a handle of this supervisor's, whoever began the task; or the remote id of a
            task that it does not know, as for :meth:`Supervisor.adopt`.
        :param options: of a task that is given by its id.
        :raises ConfigurationError: the group has ended; the handle is another supervisor's, or has
            options; the id is supervised already.
        :raises SupervisorShutdown: the supervisor is not open.
        :raises SigmicGuardError: the API refused to show the task, or gave no answer.
        """
        core, wish = self._core, Wish("", options)
        del options
        core.ground.check_here()
        core.ground.inbox.flush()
        core.ground.check_open()
        self._members.check_open()
        order = self._make_watch(wish)
        if isinstance(task, str):
            entry = await core.intake.adopt(
                check_id("task", task), replace(order, members=self._members)
            )
        elif wish.options:
            raise ConfigurationError("a handle's task has its options: give none")
        else:
            entry = entry_of(core, task)
            self._members.claim(entry)
        return handle_of(core, entry)

    def end(self, *, after: float = 0.0) -> None:
        """End all tasks of the group now, or in ``after`` seconds, and go on.

        A plain call: safe in a callback, a finalizer or another thread. Once they are ended the
        group takes no task any more. Whatever waits in the body of one of its blocks is cancelled
        there, and gets ``TaskCancelled`` (reason ``scope``) out of the block.
        """
        self._core.ground.inbox.leave(self._end_in, after)

    def close(self, error: BaseException | None = None) -> bool:
        """End all tasks of the group at once, and go on; for who runs code that holds its blocks.

        To be called by the asyncio or trio task that has come back from that code. A block that
        this task entered, and that is still open, was left behind, in a generator or a coroutine:
        its task is ended, and its scope is left. Where that was cancelled meanwhile, the
        cancellation came out as ``error``, past the code that it was meant for.

        Returns whether ``error`` was that, and nothing else: it is over, and must not go on.
        """
        self._core.ground.check_here()
        self._core.ground.timer.forget(self._alarm)
        return self._members.end_left_behind(error)

    def release(self) -> None:
        """Own the tasks no more: the supervisor does, of what :meth:`start` and :meth:`adopt` did.

        One that had completed when it was adopted, and was asked nothing since, is finished.
        """
        self._core.ground.timer.forget(self._alarm)
        self._members.leave_alone()

    async def __aenter__(self) -> Self:
        """Do nothing: the group is open as soon as it is made."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what is left, and wait for it as the class says; an exception goes on unchanged.

        :raises ConfigurationError: this is another event loop, or a forked child. The tasks are
            ended as ever.
        """
        try:
            self._core.ground.check_here()
        except ConfigurationError:
            self.end()
            raise
        left = self._members.live
        self.close()
        left = [task for task in left if task.record.reason is not None]
        if left and not isinstance(exc, GeneratorExit):  # nobody may wait in what is being closed
            longest = max(task.record.policy.cancel_wait for task in left)
            await self._core.exits.until_settled(left, longest)

    def _order(self, wish: Wish) -> Order:
        self._core.ground.inbox.flush()
        self._core.ground.check_open()
        return replace(self._make_order(wish), members=self._members)

    def _end_in(self, seconds: float) -> None:
        timer = self._core.ground.timer
        timer.forget(self._alarm)
        if seconds > 0 and not self._members.ended:
            self._alarm = timer.at(current_time() + seconds, self._members.end)
        else:
            self._members.end()
