"""The sweep finds what it looks for: two ways to bind a task that people write, and that leak."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from anyio import CancelScope, sleep

from sigmic_guard.sigmic import CreateRequest
from tests.injection.injections import Injection
from tests.injection.stepper import Moment
from tests.injection.sweep import Case, sweep
from tests.injection.uses import PLAIN, Run, Stage, Use
from tests.injection.worlds import open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.injection.worlds import World


@asynccontextmanager
async def delete_in_finally(world: World) -> AsyncIterator[None]:
    """Send the DELETE in the caller's task: it is cancelled together with the caller."""
    task_id = await world.api().create(CreateRequest(message="work"), timeout=5)
    try:
        yield
    finally:
        await world.api().delete(task_id, timeout=5)


@asynccontextmanager
async def delete_under_a_shield(world: World) -> AsyncIterator[None]:
    """Shield both requests: that stops anyio's scopes, and no native cancellation."""
    with CancelScope(shield=True):
        task_id = await world.api().create(CreateRequest(message="work"), timeout=5)
    try:
        yield
    finally:
        with CancelScope(shield=True):
            await world.api().delete(task_id, timeout=5)


def caller_of(bind: Callable[[World], AbstractAsyncContextManager[None]]) -> Use:
    """Make a use of a wrong way; the supervisor has no part in it."""

    async def use(run: Run) -> None:
        run.enter(Stage.ENTERING)
        async with bind(run.world):
            run.enter(Stage.BODY)
            await sleep(0.001)
            run.finished = True
            run.enter(Stage.LEAVING)
        run.enter(Stage.BACK)

    return Use(bind.__name__, use)


def leaks(failures: list[str]) -> list[str]:
    return [failure for failure in failures if failure.endswith(": 1 live tasks")]


FINALLY, SHIELD = caller_of(delete_in_finally), caller_of(delete_under_a_shield)


@pytest.mark.parametrize(
    "use, injection, moment, stage",
    [
        # The scope is still cancelled when `finally` awaits.
        (FINALLY, Injection.SCOPE, "suspended", Stage.BODY),
        # One is enough where the task exists, and its id is on its way.
        (FINALLY, Injection.NATIVE, "resuming", Stage.ENTERING),
        (SHIELD, Injection.NATIVE, "resuming", Stage.ENTERING),
        # The first ends the body, the second the DELETE.
        (FINALLY, Injection.NATIVE_TWICE, "suspended", Stage.BODY),
        (SHIELD, Injection.NATIVE_TWICE, "suspended", Stage.BODY),
        # The clean-up itself is hit.
        (FINALLY, Injection.NATIVE, "suspended", Stage.LEAVING),
        (SHIELD, Injection.NATIVE, "suspended", Stage.LEAVING),
    ],
    ids=str,
)
@pytest.mark.parametrize("world_name", ["fake", "emulator"])
async def test_a_wrong_way_leaves_tasks(
    use: Use, injection: Injection, moment: Moment, stage: Stage, world_name: str
) -> None:
    """The sweep that our blocks pass reports live tasks here, and at which step."""
    async with open_world(world_name) as world:
        swept = await sweep(world, Case(use, injection, moment))
    assert any(f"({stage.name})" in leak for leak in leaks(swept.failures)), swept.failures


@pytest.mark.parametrize("use", [FINALLY, SHIELD], ids=str)
async def test_a_wrong_way_ends_its_task_when_nothing_happens(use: Use) -> None:
    """It is the injection that makes it leak: the last run of a sweep is hit by nothing."""
    async with open_world("fake") as world:
        swept = await sweep(world, Case(use, Injection.NATIVE))
    assert leaks(swept.failures)
    assert not any("nothing hit" in leak for leak in leaks(swept.failures))


@pytest.mark.parametrize("world_name", ["fake", "emulator"])
async def test_the_shield_helps_against_scopes(world_name: str) -> None:
    """That is why it looks right: anyio's own cancellations do not pass it."""
    async with open_world(world_name) as world:
        swept = await sweep(world, Case(SHIELD, Injection.SCOPE))
    assert leaks(swept.failures) == []


async def test_a_cancellation_that_is_swallowed_is_found() -> None:
    """The sweep also reports a block out of which the cancellation does not come."""

    async def swallows(run: Run) -> None:
        try:
            await PLAIN.body(run)
        except BaseException:
            run.enter(Stage.BACK)

    async with open_world("fake") as world:
        swept = await sweep(world, Case(Use("swallows", swallows), Injection.NATIVE))
    assert any("it was cancelled, and returned" in failure for failure in swept.failures)
    assert any("went on behind the block" in failure for failure in swept.failures)


async def test_a_wrong_reason_is_found() -> None:
    """The sweep also reports a first cause that was not the first."""

    async def asks_first(run: Run) -> None:
        run.enter(Stage.ENTERING)
        async with run.supervisor.task("work") as task:
            run.enter(Stage.BODY)
            task.request_cancel()
            await sleep(1)

    async with open_world("fake") as world:
        swept = await sweep(world, Case(Use("asks_first", asks_first), Injection.SHUTDOWN))
    assert any("reasons can be ['shutdown']" in failure for failure in swept.failures)
