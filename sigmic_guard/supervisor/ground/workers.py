"""The handful of long-lived workers that do all I/O, so that callers only wait.

A worker outlives what would end an ordinary child of a task group:

* the cancellation of the scope around the supervisor: each worker runs in one shield, entered once
  (a shield for each piece of work would be quadratic: each exit makes a cancelled parent rescan
  all its children);
* a native ``Task.cancel()``, which pierces a shield. ``asyncio.run`` sends one to every task when
  it gives up, and so do services that end "all tasks". A worker that is hit leaves its place to a
  fresh one;
* a bug in a loop that serves all tasks: it is reported, takes the supervisor down, and the fresh
  worker helps to send the DELETEs.

A bug that a :class:`Pool` meets while it works on one task is that task's failure: it is reported,
the pool's owner decides what becomes of the task, and the others do not notice.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from anyio import CancelScope, Event, get_cancelled_exc_class

from sigmic_guard.supervisor.ground.native import event_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from anyio.abc import TaskGroup

T = TypeVar("T")

#: After so many bugs nobody is replaced any more: what is left is named in the report.
MAX_FAILURES: Final = 100


def _say_nothing(worker: str, error: Exception) -> None:
    pass


class Workers:
    """Runs loops until :meth:`stop`, whatever happens to them in between."""

    def __init__(
        self,
        group: TaskGroup,
        failed: Callable[[str, Exception], None],
        report: Callable[[str, Exception], None] = _say_nothing,
    ) -> None:
        self._group = group
        self._failed = failed
        #: Tells of a bug that ends nothing but the work on one task.
        self.report = report
        self._failures = 0
        self._scopes: dict[CancelScope, str] = {}
        self._stopping = False
        self._number = count()
        #: Spawned, and not begun: a native cancellation can strike a task before its first step.
        self._unborn: dict[int, tuple[str, Callable[[], Awaitable[None]]]] = {}
        #: Of the unborn, and of those given up for lost.
        self._coroutines: dict[int, Coroutine[Any, Any, None]] = {}
        self._gone = Event()
        #: The supervisor's: a worker serves all, and carries nobody else's variables.
        self._context = copy_context()

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Start a worker; ``loop`` is called again if the worker has to be replaced."""
        if not self._stopping:
            number = next(self._number)
            self._unborn[number] = name, loop
            coroutine = self._coroutines[number] = self._run(number)
            self._context.run(self._spawn, coroutine, name)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._group.start_soon(lambda: coroutine, name=f"sigmic_guard {name}")

    def revive(self) -> None:
        """Start those again that were struck before their first step; not in the step after it."""
        lost, self._unborn = self._unborn, {}
        for name, loop in lost.values():
            self.start(name, loop)

    def bury(self) -> None:
        """Let go of those that never began, without a word; after the end of the group."""
        for coroutine in self._coroutines.values():
            coroutine.close()  # Python warns of one that was never awaited
        self._coroutines.clear()

    async def _run(self, number: int) -> None:
        del self._coroutines[number]
        if number not in self._unborn:
            return  # given up for lost, and replaced; or too late
        name, loop = self._unborn.pop(number)
        scope = CancelScope(shield=True)
        self._scopes[scope] = name
        replace = True
        try:
            with scope:
                await loop()
            replace = False
        except GeneratorExit:
            replace = False  # it is collected: its event loop is gone
            raise
        except get_cancelled_exc_class():
            pass  # only a native one gets here: the shield swallows its own, and stops the others
        except Exception as error:  # noqa: BLE001 - the one place where bugs of workers end up
            self._failures += 1
            replace = self._failures < MAX_FAILURES
            self._failed(name, error)
        finally:  # also for a KeyboardInterrupt, which hits whatever runs, and goes on
            del self._scopes[scope]
            if replace:
                self.start(name, loop)
            self._gone.set()

    @property
    def stopping(self) -> bool:
        """Whether nobody is started any more."""
        return self._stopping

    def stop(self) -> None:
        """End every worker at its next checkpoint."""
        self._stopping = True
        self._unborn.clear()
        for scope in self._scopes:
            scope.cancel()

    def dismiss(self, name: str) -> None:
        """End the workers of that name at their next checkpoint."""
        for scope, its_name in self._scopes.items():
            if its_name == name:
                scope.cancel()

    async def gone(self, name: str | None = None) -> None:
        """Wait until every worker, or every one of that name, has left."""
        while self._scopes if name is None else name in self._scopes.values():
            self._gone = Event()
            await self._gone.wait()


class Pool(Generic[T]):
    """A queue, and up to ``size`` workers that take from it; they come as they are needed.

    ``handle`` owns its item: whatever ends it early, it has to leave the item where it is found
    again. What it raises is a bug, and the item's failure: ``failed`` gets both, and sees to it
    that the item is found again, or that whoever waits for it is told.
    """

    def __init__(
        self,
        workers: Workers,
        name: str,
        handle: Callable[[T], Awaitable[None]],
        size: int,
        *,
        failed: Callable[[T, Exception], None],
    ) -> None:
        self._workers = workers
        self._name = name
        self._handle = handle
        self._failed = failed
        self._size = size
        self._queue: deque[T] = deque()
        self._idle: list[Event] = []
        self._make_event = event_type()
        self._hired = 0
        self._held = False
        #: Around those who work on an item.
        self._busy: set[CancelScope] = set()

    @property
    def size(self) -> int:
        """How many items are worked on at once, at most."""
        return self._size

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._queue)

    def put(self, item: T) -> None:
        """Queue an item; never waits."""
        self._queue.append(item)
        if not self._held:
            self._call()

    def clear(self) -> list[T]:
        """Take back what waits."""
        waiting, self._queue = list(self._queue), deque()
        return waiting

    def hold(self) -> None:
        """Let items queue up without being taken."""
        self._held = True

    def release(self) -> None:
        """Let them be taken again."""
        self._held = False
        for _ in range(min(len(self._queue), self._size)):
            self._call()

    def _call(self) -> None:
        if self._idle:
            self._idle.pop().set()
        elif self._hired < self._size:
            self._hired += 1
            self._workers.start(self._name, self._work)

    def cut_off(self, when: float) -> None:
        """End early what is worked on now, and still is at ``when``, on anyio's clock."""
        for scope in self._busy:
            scope.deadline = min(scope.deadline, when)

    async def _work(self) -> None:
        while True:
            with CancelScope() as scope:  # for many items: each would cost a DELETE 3 % of its CPU
                await self._work_within(scope)

    async def _work_within(self, scope: CancelScope) -> None:
        while True:
            while self._queue and not self._held:
                item = self._queue.popleft()
                self._busy.add(scope)
                try:
                    await self._handle(item)
                except Exception as bug:  # noqa: BLE001 - whatever it is, it is this item's alone
                    self._workers.report(self._name, bug)
                    self._failed(item, bug)
                finally:
                    self._busy.discard(scope)
                if scope.deadline != inf:
                    scope.deadline = inf
                del item
            called = self._make_event()
            self._idle.append(called)
            try:
                await called.wait()
            finally:
                if called in self._idle:
                    self._idle.remove(called)
