"""The stepper: it fires where it says, and changes nothing else."""

from __future__ import annotations

import asyncio
from itertools import count

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.injection.stepper import Moment, Stepper, Turns

EVERYWHERE = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL)


def nothing() -> None:
    """Fire without effect."""


async def three_steps(done: list[int]) -> str:
    for number in range(3):
        done.append(number)
        await checkpoint()
    return "result"


@EVERYWHERE
async def test_a_stepped_coroutine_returns_what_it_returns() -> None:
    """Stepping is invisible to the coroutine and to whoever awaits it."""
    done: list[int] = []
    stepper = Stepper(three_steps(done), nothing, at=99)
    assert await stepper == "result"
    assert done == [0, 1, 2]
    assert stepper.fired == 0
    assert stepper.steps >= 3


@EVERYWHERE
async def test_a_stepped_coroutine_raises_what_it_raises() -> None:
    """An exception comes out as it is, and can be caught inside."""

    async def fails() -> None:
        try:
            await checkpoint()
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None

    with pytest.raises(ValueError, match="outer"):
        await Stepper(fails(), nothing, at=99)


@EVERYWHERE
@pytest.mark.parametrize("moment", ["suspended", "resuming"])
async def test_it_fires_at_each_step_until_there_is_none_left(moment: Moment) -> None:
    """Each step is reached once, in order, and the first number that is not one ends the loop."""
    done = list[int]()
    seen = list[list[int]]()
    for at in count():
        done.clear()
        stepper = Stepper(three_steps(done), lambda: seen.append(done.copy()), at=at, moment=moment)
        await stepper
        if not stepper.fired:
            assert len(seen) == stepper.steps + 1
            break
    assert seen[0] == []
    assert seen[1] == [0]
    assert seen[-1] == [0, 1, 2]
    assert seen == sorted(seen)


@EVERYWHERE
async def test_it_fires_several_times_in_a_row() -> None:
    """``times`` fires at as many suspensions, one after the other."""
    seen = list[int]()
    done = list[int]()
    await Stepper(three_steps(done), lambda: seen.append(len(done)), at=1, times=2)
    assert len(seen) == 2


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_a_native_cancel_while_suspended_takes_the_wait_away() -> None:
    """What the coroutine waits for is cancelled, and the coroutine with it."""
    future = asyncio.get_running_loop().create_future()

    async def waits() -> None:
        await future

    async def main() -> None:
        await Stepper(waits(), lambda: task.cancel(), at=1)

    task = asyncio.create_task(main())
    await asyncio.wait([task])
    assert task.cancelled()
    assert future.cancelled()


@pytest.mark.backends(ASYNCIO, UVLOOP)
@pytest.mark.parametrize("bare", [False, True])
async def test_a_native_cancel_while_resuming_comes_after_the_success(bare: bool) -> None:
    """What the coroutine waited for has happened, and it is cancelled all the same."""
    future = asyncio.get_running_loop().create_future()
    went_on = False

    async def waits() -> None:
        nonlocal went_on
        await (asyncio.sleep(0) if bare else future)
        went_on = True

    async def main() -> None:
        await Stepper(waits(), lambda: task.cancel(), at=1, moment="resuming")

    task = asyncio.create_task(main())
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await asyncio.wait([task])
    assert task.cancelled()
    assert not future.cancelled()
    assert not went_on


@EVERYWHERE
@pytest.mark.parametrize("moment", ["suspended", "resuming"])
async def test_a_scope_that_is_cancelled_at_a_step_ends_the_coroutine(moment: Moment) -> None:
    """An anyio scope can be cancelled from within the stepper, on each loop."""
    with anyio.CancelScope() as scope:
        await Stepper(anyio.sleep(3600 if moment == "suspended" else 0), scope.cancel, at=1)
        await anyio.sleep(3600)
    assert scope.cancelled_caught


async def test_a_stepper_that_is_closed_closes_its_coroutine() -> None:
    """Nothing is left that was begun and never ended."""
    closed = False

    async def waits() -> None:
        nonlocal closed
        try:
            await anyio.sleep_forever()
        finally:
            closed = True

    steps = Stepper(waits(), nothing, at=99).__await__()
    next(steps)
    steps.close()
    assert closed


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_turns_are_those_of_the_loop() -> None:
    """One turn passes for each bare yield, whoever yields."""
    seen = list[int]()
    done = list[int]()
    for at in range(3):
        done.clear()
        turns = Turns(lambda: seen.append(len(done)), at=at)
        for number in range(4):
            done.append(number)
            await asyncio.sleep(0)
        assert turns.fired == 1
    assert seen == [1, 2, 3]


async def test_turns_that_are_stopped_fire_no_more() -> None:
    """Who is done needs none of it."""
    turns = Turns(nothing, at=1)
    await asyncio.sleep(0)
    turns.stop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns.fired == 0
