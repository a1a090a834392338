"""Awaiting a coroutine step by step, to let something happen at exactly one of its steps.

A step is what a coroutine does between two suspensions. Counting them instead of waiting for a time
makes "at each of its steps" a loop over 0, 1, 2, … that ends by itself: with the first number that
the coroutine does not have.

Between two steps of one coroutine others have theirs. :class:`Turns` counts the turns of the event
loop instead, and so gets in between any two steps of anybody.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")

#: Where in a suspension something happens. ``suspended``: as it begins, so that what the coroutine
#: waits for can still be taken from it. ``resuming``: as it ends, when what it waited for is there
#: and the event loop is about to call it: the closest that a cancellation and a success can come.
Moment = Literal["suspended", "resuming"]


class Stepper(Generic[T]):
    """Awaits ``coroutine`` in the task of whoever awaits this, and calls ``fire`` on the way.

    :param at: the suspension to fire at, from 1; 0 fires before the coroutine has begun.
    :param moment: where in that suspension.
    :param times: fire at so many suspensions in a row.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        fire: Callable[[], object],
        *,
        at: int,
        moment: Moment = "suspended",
        times: int = 1,
    ) -> None:
        self._coroutine = coroutine
        self._fire = fire
        self._targets = range(at, at + times)
        self._moment = moment
        #: How often the coroutine was suspended so far.
        self.steps = 0
        #: How often ``fire`` was called.
        self.fired = 0

    def __await__(self) -> Generator[Any, Any, T]:
        resume: Callable[[], Any] = partial(self._coroutine.send, None)
        if self.steps in self._targets:
            self._hit()
        while True:
            try:
                trap = resume()
            except StopIteration as end:
                result: T = end.value
                return result
            self.steps += 1
            hit = self.steps in self._targets
            if hit and self._moment == "suspended":
                self._hit()
            late = hit and self._moment == "resuming" and not self._before_wakeup(trap)
            try:
                value = yield trap
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:
                resume = partial(self._coroutine.throw, error)
            else:
                resume = partial(self._coroutine.send, value)
            if late:
                self._hit()

    def _hit(self) -> None:
        self.fired += 1
        self._fire()

    def _before_wakeup(self, trap: object) -> bool:
        """Fire just before the event loop resumes the task, if the loop lets us get in there."""
        if asyncio.isfuture(trap):
            # Callbacks are called in the order in which they came; the task's own comes later.
            trap.add_done_callback(lambda _: self._hit())
        elif trap is None:  # a bare yield of asyncio's
            asyncio.get_running_loop().call_soon(self._hit)
        else:
            return False  # trio's: it resumes a task at once, with nothing in between
        return True


class Turns:
    """Calls ``fire`` in the ``at``-th turn of the asyncio loop from now; until :meth:`stop`.

    It keeps the loop awake: for coroutines that wait for each other, and for no clock.
    """

    def __init__(self, fire: Callable[[], object], *, at: int) -> None:
        self._fire = fire
        self._left = at
        self.fired = 0
        self._next: asyncio.Handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        if self._left:
            self._left -= 1
            self._next = asyncio.get_running_loop().call_soon(self._turn)
        else:
            self.fired = 1
            self._fire()

    def stop(self) -> None:
        """Fire no more."""
        self._next.cancel()
