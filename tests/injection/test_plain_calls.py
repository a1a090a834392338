"""Plain calls from a callback, a thread, a handler or the collector, at each step of a body."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from anyio import Event, fail_after
from anyio.lowlevel import checkpoint
from prometheus_client import CollectorRegistry

from sigmic_guard import TaskCancelled
from tests.injection.stepper import Stepper
from tests.injection.uses import Run
from tests.injection.worlds import open_world
from tests.observe.sums import add_up
from tests.supervisor.places import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard import RemoteTask
    from tests.injection.stepper import Moment
    from tests.injection.worlds import World


async def reads(task: RemoteTask) -> None:
    async for event in task.events():
        if event.text.endswith("world"):
            break
    await checkpoint()


async def hit(world: World, place: Callable[[Any], None], at: int, moment: Moment) -> bool:
    """Cancel from this place at one step of a body; ``False`` if it has no such step."""
    world.begin()
    registry = CollectorRegistry()
    reasons = set[str]()
    supervisor = world.supervisor(registry, 30.0)
    with fail_after(20):
        async with supervisor:
            with suppress(TaskCancelled):
                async with supervisor.task("work") as task:
                    fire = partial(place, task.request_cancel)
                    stepper = Stepper(reads(task), fire, at=at, moment=moment)
                    await stepper
            reasons.add(str(task.reason))
            assert world.live == 0, f"at step {at} it runs on behind its block"
    add_up(registry)
    # At the last step the block may end before the call is carried out.
    assert reasons <= ({"user", "scope"} if stepper.fired else {"scope"})
    return bool(stepper.fired)


@pytest.mark.parametrize("moment", ["suspended", "resuming"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_a_plain_cancel_at_each_step(place: Callable[[Any], None], moment: Moment) -> None:
    """From wherever it is called, and whenever: the task ends, and nothing raises."""
    async with open_world("fake") as world:
        at = 1
        while await hit(world, place, at, moment):
            at += 1
    assert at > 3


def let_go(kept: list[Any], place: Callable[[Any], None]) -> None:
    """Leave an iterator to whoever clears the list that holds it."""
    place(kept.clear)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_an_iterator_that_is_collected_anywhere(place: Callable[[Any], None]) -> None:
    """Wherever it dies, the task's end is still learnt, and told."""
    async with open_world("fake") as world:
        for at in range(1, 4):
            world.begin()
            run = Run(world, world.supervisor(CollectorRegistry(), 30.0), Event())
            with fail_after(20):
                async with run.supervisor:
                    task = await run.supervisor.start("work")
                    kept = [task.events()]
                    for _ in range(at):
                        await anext(kept[0])
                    let_go(kept, place)
                    world.complete()
                    assert (await task.wait()).outcome == "completed"
