"""The ways to use a task that are swept: scoped, in the background, and in one call.

Each tells the run where it is, so that what comes of an injection can be held against where it hit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sigmic_guard import RemoteTask, Supervisor
    from tests.injection.worlds import World


class Stage(IntEnum):
    """Where the caller's code is, in the order in which it gets there."""

    OUTSIDE = 0  # before the supervisor is open
    OPEN = 1  # inside the supervisor's block, before the task's
    ENTERING = 2  # the task is being created
    BODY = 3
    LEAVING = 4  # inside TaskBlock.__aexit__
    BACK = 5  # the task's block was left
    CLOSING = 6  # inside Supervisor.__aexit__
    DONE = 7


@dataclass
class Run:
    """One run of a use, and how far it came."""

    world: World
    supervisor: Supervisor
    #: Set when the caller is about to wait for the task's end.
    waiting: anyio.Event
    stage: Stage = Stage.OUTSIDE
    visited: set[Stage] = field(default_factory=set)
    #: The stage at the first injection.
    hit: Stage | None = None
    #: The body came to its end, or the handle said how the task ended.
    finished: bool = False
    #: Tasks that ran when the task's block had just been left.
    live_after_block: int = 0

    def enter(self, stage: Stage) -> None:
        """Get to the next stage."""
        self.stage = stage
        self.visited.add(stage)

    def push(self) -> None:
        """Let the remote tasks complete, unless what is under test has begun.

        From then on nothing but a DELETE may end them: a leak must not end by luck.
        """
        # A supervisor that is not open yet is not shut down by asking for it.
        if self.hit in {None, Stage.OUTSIDE}:
            self.world.complete()


@dataclass(frozen=True)
class Use:
    """A way to use a task.

    :ivar push_on: the remote task completes once its stream is open, or once the caller is about to
        wait for its end; ``None``: by hand, or not at all.
    """

    name: str
    body: Callable[[Run], Awaitable[None]]
    scoped: bool = True
    push_on: Literal["stream", "wait"] | None = None

    def __str__(self) -> str:
        return self.name


def _scoped(
    name: str,
    body: Callable[[RemoteTask, Run], Awaitable[object]],
    *,
    push_on: Literal["stream", "wait"] | None = None,
    **options: Any,
) -> Use:
    async def use(run: Run) -> None:
        run.enter(Stage.ENTERING)
        try:
            async with run.supervisor.task("work", **options) as task:
                run.enter(Stage.BODY)
                try:
                    await body(task, run)
                    run.finished = True
                    run.waiting.set()
                finally:
                    run.enter(Stage.LEAVING)
        finally:
            run.live_after_block = run.world.live
        run.enter(Stage.BACK)

    return Use(name, use, push_on=push_on)


async def _read_until(task: RemoteTask, run: Run, end: str) -> None:
    """Read events; when the agent has said it all, the task completes."""
    text = ""
    async for event in task.events():
        text += event.text
        if text.endswith(end):
            run.push()


async def _reads_events(task: RemoteTask, run: Run) -> None:
    await _read_until(task, run, "Hello world")


async def _awaits_the_result(task: RemoteTask, run: Run) -> None:
    await task.result()


async def _awaits_something_else(task: RemoteTask, run: Run) -> None:
    await checkpoint()
    async with anyio.create_task_group():
        await checkpoint()
    await anyio.sleep(0.001)


async def _awaits_no_clock(task: RemoteTask, run: Run) -> None:
    await checkpoint()


async def _asks_again(task: RemoteTask, run: Run) -> None:
    await _read_until(task, run, "Hello world")
    await task.send("more")
    await _read_until(task, run, "Done.")


async def _in_background_then_wait(run: Run) -> None:
    run.enter(Stage.ENTERING)
    task = await run.supervisor.start("work")
    run.enter(Stage.BODY)
    run.waiting.set()
    result = await task.wait()
    run.finished = result.outcome == "completed"
    run.enter(Stage.BACK)


async def _in_background_then_cancel(run: Run) -> None:
    run.enter(Stage.ENTERING)
    task = await run.supervisor.start("work")
    run.enter(Stage.BODY)
    await checkpoint()
    run.enter(Stage.LEAVING)
    await task.cancel()
    run.enter(Stage.BACK)


async def _in_one_call(run: Run) -> None:
    run.enter(Stage.ENTERING)
    try:
        result = await run.supervisor.run("work")
        run.finished = result.outcome == "completed"
    finally:
        run.live_after_block = run.world.live
    run.enter(Stage.BACK)


EVENTS = _scoped("events", _reads_events)
RESULT = _scoped("result", _awaits_the_result, push_on="stream")
PLAIN = _scoped("plain", _awaits_something_else)
FOLLOW_UP = _scoped("follow_up", _asks_again)
ON_EXIT_WAIT = _scoped("on_exit_wait", _awaits_something_else, push_on="wait", on_exit="wait")
WAIT = Use("start_wait", _in_background_then_wait, scoped=False, push_on="wait")
CANCEL = Use("start_cancel", _in_background_then_cancel, scoped=False)
RUN = Use("run", _in_one_call, push_on="stream")

#: For sweeps in which a time-out might be over too soon.
TIMED = _scoped("timed", _awaits_something_else, timeout=60)

#: For sweeps that count the turns of the loop.
BRIEF = _scoped("brief", _awaits_no_clock)

ALL = (EVENTS, RESULT, PLAIN, FOLLOW_UP, ON_EXIT_WAIT, WAIT, CANCEL, RUN)


async def alone(use: Use, run: Run) -> None:
    """Do it within a supervisor that somebody else has entered."""
    await use.body(run)
    run.enter(Stage.DONE)


async def with_the_supervisor(use: Use, run: Run) -> None:
    """Do it as the whole program: the supervisor's block is part of what is swept."""
    async with run.supervisor:
        run.enter(Stage.OPEN)
        try:
            await use.body(run)
        finally:
            run.enter(Stage.CLOSING)
    run.enter(Stage.DONE)
