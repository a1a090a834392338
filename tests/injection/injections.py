"""The ways to end a caller from outside, each fired at one step of its coroutine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from tests.injection.stepper import Stepper, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from collections.abc import Set as AbstractSet
    from typing import Any

    from tests.injection.stepper import Moment
    from tests.injection.uses import Run


class Injection(StrEnum):
    """What is done to the caller."""

    SCOPE = "anyio_scope"
    NATIVE = "native"
    #: The second one hits what the first one set off.
    NATIVE_TWICE = "native_twice"
    NATIVE_BOTH_AT_ONCE = "native_both_at_once"
    SHUTDOWN = "shutdown"
    #: ``for task in asyncio.all_tasks(): task.cancel()``, the supervisor's own workers included.
    EVERY_TASK = "every_task"


#: Those that come as a cancellation of the caller; of them, those that only asyncio has.
NATIVE = frozenset(
    {
        Injection.NATIVE,
        Injection.NATIVE_TWICE,
        Injection.NATIVE_BOTH_AT_ONCE,
        Injection.EVERY_TASK,
    }
)
CANCELLATIONS = NATIVE | {Injection.SCOPE}


@dataclass(frozen=True)
class Ending:
    """How the caller ended."""

    #: How often the injection was fired; 0 if the caller has fewer steps.
    fired: int
    cancelled: bool = False
    error: BaseException | None = None

    @property
    def returned(self) -> bool:
        """Whether the caller went on as if nothing had happened."""
        return not self.cancelled and self.error is None

    def __str__(self) -> str:
        if self.returned:
            return "returned"
        return "was cancelled" if self.cancelled else f"raised {self.error!r}"


async def drive(
    coroutine: Coroutine[Any, Any, None],
    run: Run,
    injection: Injection,
    *,
    at: int,
    moment: Moment | Literal["turn"],
    spared: AbstractSet[object],
) -> Ending:
    """Run the caller to its end, with the injection at one of its steps, or of the loop's turns.

    :param spared: the tasks that are not the program's, for :attr:`Injection.EVERY_TASK`.
    """
    fire: Callable[[], object]

    def hit() -> None:
        if run.hit is None:
            run.hit = run.stage
        fire()

    times = 2 if injection is Injection.NATIVE_TWICE else 1
    if moment == "turn":
        stepper = Stepper(coroutine, hit, at=-1)
    else:
        stepper = Stepper(coroutine, hit, at=at, moment=moment, times=times)

    async def caller() -> None:
        await stepper

    if injection in NATIVE:
        task = asyncio.create_task(caller())
        turns = Turns(hit, at=at) if moment == "turn" else None
        match injection:
            case Injection.EVERY_TASK:
                fire = lambda: cancel_every_task(spared)  # noqa: E731
            case Injection.NATIVE_BOTH_AT_ONCE:
                fire = lambda: (task.cancel(), task.cancel())  # noqa: E731
            case _:
                fire = task.cancel
        with CancelScope(shield=True):  # the supervisor may cancel us, who are around it
            await asyncio.wait([task])
        fired = stepper.fired
        if turns is not None:
            turns.stop()
            fired = turns.fired
        if task.cancelled():
            return Ending(fired, cancelled=True)
        return Ending(fired, error=task.exception())

    error: Exception | None = None
    with CancelScope() as scope:
        fire = scope.cancel if injection is Injection.SCOPE else run.supervisor.request_shutdown
        try:
            await caller()
        except Exception as caught:
            error = caught
        await checkpoint()  # a scope that was cancelled too late for the caller's last one
    return Ending(stepper.fired, cancelled=scope.cancelled_caught, error=error)


#: By which coroutines it serves a connection, and asyncio accepts one for it.
_THE_EMULATORS = ("RequestHandler.", "BaseSelectorEventLoop._accept_connection")


def cancel_every_task(spared: AbstractSet[object]) -> None:
    """Cancel all tasks of the program: the emulator in the same loop is a remote system."""
    for task in asyncio.all_tasks():
        name = getattr(task.get_coro(), "__qualname__", "")
        if task not in spared and not name.startswith(_THE_EMULATORS):
            task.cancel()
