"""SIGSTOP for the tasks of a virtual process: none of them takes a step until SIGCONT.

The clock goes on meanwhile, and what they wait for comes, as it does for a stopped process: they
find it when they go on. Trio only: an instrument wraps the coroutine of every task that is spawned
in the context of a process.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from trio.abc import Instrument
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

if TYPE_CHECKING:
    from collections.abc import Callable


class Freezer:
    """One virtual process, as far as it can be stopped."""

    def __init__(self) -> None:
        self.frozen = False
        #: By how many seconds its wall clock is ahead.
        self.ahead = 0.0
        self._parked: list[Task] = []

    def freeze(self) -> None:
        """Let none of its tasks take a step."""
        self.frozen = True

    def thaw(self) -> None:
        """Let them go on."""
        self.frozen = False
        parked, self._parked = self._parked, []
        for task in parked:
            reschedule(task)

    def park(self) -> Generator[Any, Any, None]:
        """Wait until it is thawed; no cancellation ends that."""
        while self.frozen:
            self._parked.append(current_task())
            yield from wait_task_rescheduled(lambda _: Abort.FAILED).__await__()


#: Whose task this is; ``None`` is the world outside.
PROCESS: Final[ContextVar[Freezer | None]] = ContextVar("PROCESS", default=None)


class Steps:
    """Awaits a coroutine, each step of it only while its process is not frozen."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], process: Freezer) -> None:
        self._coroutine = coroutine
        self._process = process

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            if self._process.frozen:
                yield from self._process.park()
            try:
                trap = resume()
            except StopIteration as end:
                return end.value
            try:
                value = yield trap
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:
                resume = partial(self._coroutine.throw, error)
            else:
                resume = partial(self._coroutine.send, value)


async def _stepwise(coroutine: Coroutine[Any, Any, Any], process: Freezer) -> Any:
    return await Steps(coroutine, process)


class Freezing(Instrument):
    """Makes every task stoppable that belongs to a process."""

    def task_spawned(self, task: Task) -> None:
        process = task.context.get(PROCESS)
        if process is not None:
            stepwise: Any = _stepwise(task.coro, process)
            task.coro = stepwise
