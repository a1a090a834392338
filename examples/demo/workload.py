"""What the tasks of the demo are, and what becomes of them.

Most of them are stories that end by themselves, each in its own way. The last ones never end: they
are what the SIGTERM meets.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from anyio import Semaphore, create_task_group, move_on_after, sleep

from sigmic_guard import SigmicGuardError, TaskPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sigmic_guard import Supervisor
    from sigmic_guard.lifecycle.policy import Confirm

    Play = Callable[["Supervisor", "Ask"], Awaitable[None]]

#: The emulator reads here how a task shall go.
SCRIPT: Final = "EMULATOR_SCRIPT"


@dataclass(frozen=True, slots=True)
class Size:
    """How many tasks there are of each kind."""

    tasks: int

    @property
    def seats(self) -> int:
        """``max_tasks``, and so how many are live when the SIGTERM comes."""
        return self.tasks // 4

    @property
    def endless(self) -> int:
        """Tasks that never end by themselves: more than there are places."""
        return self.seats + self.tasks // 20

    @property
    def stories(self) -> int:
        """The others."""
        return self.tasks - self.endless

    @property
    def at_once(self) -> int:
        """Stories under way at once: they need not wait for a place."""
        return max(self.seats * 4 // 5, 1)


@dataclass(frozen=True, slots=True)
class Ask:
    """One task that is wanted."""

    message: str
    #: How it goes, in the emulator's words.
    script: dict[str, Any]
    #: Seconds after which something happens to it, in stories where something does.
    after: float

    @property
    def env(self) -> dict[str, str]:
        """What tells the emulator."""
        return {SCRIPT: json.dumps(self.script)}


# --- the stories --------------------------------------------------------------------------------


async def _ask(supervisor: Supervisor, ask: Ask) -> None:
    """One call, and an answer."""
    await supervisor.run(ask.message, env=ask.env)


async def _read(supervisor: Supervisor, ask: Ask) -> None:
    """A block that reads the events until the end."""
    async with supervisor.task(ask.message, env=ask.env) as task:
        async for _ in task.events():
            pass
        await task.result()


async def _wait(supervisor: Supervisor, ask: Ask) -> None:
    """A background task that somebody waits for."""
    task = await supervisor.start(ask.message, env=ask.env)
    await task.wait()


async def _approve(supervisor: Supervisor, ask: Ask) -> None:
    """The agent asks whether it may use a tool, and may."""
    async with supervisor.task(ask.message, env=ask.env) as task:
        async for event in task.events():
            if event.type == "tool_call" and event.data["status"] == "awaiting_approval":
                await task.approve(event.data["callId"])
        await task.result()


async def _ask_again(supervisor: Supervisor, ask: Ask) -> None:
    """A second question to the same task."""
    async with supervisor.task(ask.message, env=ask.env) as task:
        await task.result()
        await task.send("And in one sentence?")
        await task.result()


async def _miss_the_deadline(supervisor: Supervisor, ask: Ask) -> None:
    """The task takes longer than it may."""
    await supervisor.run(ask.message, env=ask.env, timeout=ask.after)


async def _press_cancel(supervisor: Supervisor, ask: Ask) -> None:
    """A user presses a button; the task may be about to complete at that very moment."""
    task = await supervisor.start(ask.message, env=ask.env)
    await sleep(ask.after)
    await task.cancel()
    await task.wait()


async def _raise(supervisor: Supervisor, ask: Ask) -> None:
    """The block has a bug."""
    async with supervisor.task(ask.message, env=ask.env):
        await sleep(ask.after)
        raise LookupError(ask.message)


async def _leave(supervisor: Supervisor, ask: Ask) -> None:
    """Whoever asked does not wait for the answer."""
    with move_on_after(ask.after):
        await supervisor.run(ask.message, env=ask.env)


_SAYS: Final = {"chunks": ["Here ", "is ", "what ", "I ", "found."], "tool_calls": ["search"]}
_HOLDS: Final = {**_SAYS, "hold": True}

#: A name, how the task goes, and what is done with it; the more often, the more of them there are.
_STORIES: Final[tuple[tuple[str, dict[str, Any], Play], ...]] = (
    ("Summarise chapter", _SAYS, _ask),
    ("Summarise paper", _SAYS, _read),
    ("Reconcile ledger", _SAYS, _wait),
    ("Parse a broken file", {"fail": "the file is damaged"}, _ask),
    ("Translate novel", _HOLDS, _miss_the_deadline),
    ("Draft letter", _HOLDS, _press_cancel),
    ("Book a flight", {**_SAYS, "approval": "pay"}, _approve),
    ("Compare offers", _SAYS, _ask),
    ("Sort mailbox", _HOLDS, _raise),
    ("Plan journey", _HOLDS, _leave),
    ("Check invoice", _SAYS, _read),
    ("Explain contract", _SAYS, _ask_again),
    ("Find a damaged page", {"fail": "the page is damaged"}, _wait),
    ("Index archive", _HOLDS, _miss_the_deadline),
    ("Proof-read page", _SAYS, _press_cancel),  # completes, or is cancelled: a race
    ("Describe picture", _SAYS, _wait),
)

#: Tasks that never end, held in each of the three ways.
_ENDLESS: Final[tuple[Play, ...]] = (_ask, _read, _wait)


# --- the play -----------------------------------------------------------------------------------


class Workload:
    """All of it; :attr:`stories_left` counts down."""

    def __init__(self, size: Size, confirm: Confirm = "terminal") -> None:
        self._size = size
        #: ``terminal``: a cancelled task is one that GET showed to be, so that the books can agree
        #: to the task, also on those that completed as their DELETE came.
        self.policy = TaskPolicy(confirm=confirm)
        self.stories_left = size.stories

    async def play(self, supervisor: Supervisor) -> None:
        """Run the stories and then the endless tasks; does not end by itself."""
        places = Semaphore(self._size.at_once)
        async with create_task_group() as group:
            for number, (name, script, play) in zip(
                range(self._size.stories), cycle(_STORIES), strict=False
            ):
                # From 0.8 to 2.3 seconds, spread; whatever happens to a task happens about then.
                seconds = 0.8 + number * 37 % 100 * 0.015
                ask = Ask(f"{name} {number}", {**script, "duration": seconds}, after=seconds)
                await places.acquire()
                group.start_soon(self._tell_story, supervisor, play, ask, places)
            for number, play in zip(range(self._size.endless), cycle(_ENDLESS), strict=False):
                ask = Ask(f"Watch the news {number}", {**_HOLDS, "duration": 2.0}, after=0)
                group.start_soon(self._go_on, supervisor, play, ask)

    async def _tell_story(
        self, supervisor: Supervisor, play: Play, ask: Ask, places: Semaphore
    ) -> None:
        try:
            await self._go_on(supervisor, play, ask)
        finally:
            places.release()
        self.stories_left -= 1

    async def _go_on(self, supervisor: Supervisor, play: Play, ask: Ask) -> None:
        # How it ended is what the metrics tell; here it is all as it was meant to be.
        with suppress(SigmicGuardError, LookupError):
            await play(supervisor, ask)
