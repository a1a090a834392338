"""The program that is killed at each of its steps: a task in each way that a task can go, at once.

The remote tasks run until somebody ends them. What completes is pushed by the program itself, as
long as it lives: afterwards nothing but a DELETE ends a task, and a leak cannot end by luck.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

import anyio

from sigmic_guard import SigmicGuardError
from tests.supervisor.places import PLACES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sigmic_guard import Supervisor
    from tests.crash.life import Life

#: One way that a task can go.
Way: TypeAlias = "Callable[[Program, Supervisor], Awaitable[None]]"

#: The message of the create whose answer is lost although nobody died, and of one that is refused.
LOST, REFUSED = "lost", "refused"
#: The keys of the tasks that a later process may ask for: after a crash, and after a deploy.
KEY = "the report"
DEPLOYED = "the long report"


class Remote(Protocol):
    """What the program pushes."""

    def complete(self, task_id: str) -> object:
        """Let a task complete now."""

    def fail(self, task_id: str) -> object:
        """Let it fail."""


class Program:
    """One run of it.

    :param stranger: a task that something else created, and that this program adopts.
    :param unit: seconds of a moment.
    :param ways: the ways that its tasks go; default: all that need no place of their own.
    """

    def __init__(
        self,
        remote: Remote,
        life: Life,
        stranger: str,
        *,
        unit: float,
        ways: Sequence[Way] | None = None,
    ) -> None:
        self._remote = remote
        self._life = life
        self._unit = unit
        self._ways = ALL if ways is None else ways
        self.stranger = stranger
        #: Whether all that was wanted is done, and the drain may begin.
        self.done = False

    async def run(self, supervisor: Supervisor) -> None:
        async with supervisor:
            async with anyio.create_task_group() as group:
                for way in self._ways:
                    group.start_soon(self._try, way, supervisor)
            self.done = True

    async def _try(
        self, way: Callable[[Program, Supervisor], Awaitable[None]], supervisor: Supervisor
    ) -> None:
        with suppress(SigmicGuardError):
            await way(self, supervisor)

    async def moment(self) -> None:
        await anyio.sleep(self._unit)

    def complete(self, task_id: str | None) -> None:
        assert task_id is not None
        if self._life.alive:
            self._remote.complete(task_id)

    def fail(self, task_id: str | None) -> None:
        assert task_id is not None
        if self._life.alive:
            self._remote.fail(task_id)

    @property
    def long(self) -> float:
        """Seconds in which everything is over that is going to be."""
        return 1000 * self._unit

    @property
    def soon(self) -> float:
        """Seconds of a short time-out."""
        return 3 * self._unit


async def scoped(program: Program, supervisor: Supervisor) -> None:
    async with supervisor.task("scoped"):
        await program.moment()


async def completed(program: Program, supervisor: Supervisor) -> None:
    async with supervisor.task("completed") as task:
        program.complete(task.id)
        await task.result()


async def failed(program: Program, supervisor: Supervisor) -> None:
    async with supervisor.task("failed") as task:
        program.fail(task.id)
        await task.result()


async def cancelled(program: Program, supervisor: Supervisor) -> None:
    task = await supervisor.start("cancelled")
    await program.moment()
    await task.cancel()


async def timed_out(program: Program, supervisor: Supervisor) -> None:
    task = await supervisor.start("timed out", timeout=program.soon)
    await task.wait()


async def asked_again(program: Program, supervisor: Supervisor) -> None:
    async with supervisor.task("asked again") as task:
        program.complete(task.id)
        await task.result()
        await program.moment()
        await task.send("more")
        await program.moment()


async def detached(program: Program, supervisor: Supervisor) -> None:
    async with supervisor.task("detached", on_exit="detach"):
        await program.moment()


async def abandoned(program: Program, supervisor: Supervisor) -> None:
    await supervisor.start("abandoned", on_crash="abandon")


async def reattached(program: Program, supervisor: Supervisor) -> None:
    await supervisor.start("reattached", key=KEY, on_crash="reattach", reattach_within=20)


async def handed_over(program: Program, supervisor: Supervisor) -> None:
    await supervisor.start("handed over", key=DEPLOYED, on_shutdown="reattach", reattach_within=20)


async def one_after_the_other(program: Program, supervisor: Supervisor) -> None:
    async with supervisor.task("first of a key", key="k"):
        await program.moment()
    async with supervisor.task("second of a key", key="k"):
        await program.moment()


async def lost(program: Program, supervisor: Supervisor) -> None:
    await supervisor.start(LOST)


async def refused(program: Program, supervisor: Supervisor) -> None:
    await supervisor.start(REFUSED)


async def adopted(program: Program, supervisor: Supervisor) -> None:
    await supervisor.adopt(program.stranger)


async def left(program: Program, supervisor: Supervisor) -> None:
    await supervisor.start("left to the drain")


ALL = (
    scoped,
    completed,
    failed,
    cancelled,
    timed_out,
    asked_again,
    detached,
    abandoned,
    reattached,
    handed_over,
    one_after_the_other,
    lost,
    refused,
    adopted,
    left,
)


def cancelled_from(place: Callable[[Callable[[], object]], None]) -> Way:
    """Make the way of a task that is cancelled by a plain call from there."""

    async def way(program: Program, supervisor: Supervisor) -> None:
        task = await supervisor.start(f"cancelled from {place.__name__}")
        await program.moment()
        place(task.request_cancel)
        with anyio.fail_after(program.long):
            await task.wait()

    return way


def read_and_left_to(place: Callable[[Callable[[], object]], None]) -> Way:
    """Make the way of a task whose iterator dies there."""

    async def way(program: Program, supervisor: Supervisor) -> None:
        task = await supervisor.start(f"read and left to {place.__name__}")
        kept = [task.events()]
        await anext(kept[0])
        place(kept.clear)
        program.complete(task.id)
        with anyio.fail_after(program.long):
            await task.wait()

    return way


PLAIN_CALLS = (*map(cancelled_from, PLACES), *map(read_and_left_to, PLACES))
