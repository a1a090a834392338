"""Deadlines: what they count from, what they can be given as, and when they come."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from anyio import create_task_group, current_time, sleep, sleep_forever

from sigmic_guard import ConfigurationError, Outcome, State, TaskPolicy, TaskTimedOut
from sigmic_guard.supervisor.ground import timer
from sigmic_guard.testing import HANG, LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)


async def test_it_counts_from_entering_the_block() -> None:
    """The create's time is part of the time-out; making the block is not."""
    lab = Lab()
    async with lab.open() as supervisor:
        block = supervisor.task("m", timeout=60)
        await sleep(100)
        began = current_time()
        lab.fake.on("create", 20.0)
        with pytest.raises(TaskTimedOut):
            async with block as task:
                assert current_time() == began + 20
                await sleep_forever()
        assert task.deadline == began + 60
        assert current_time() == pytest.approx(began + 60, abs=0.01)


async def test_start_counts_the_create_too() -> None:
    """A background task's time-out counts from the call of start."""
    lab = Lab()
    async with lab.open() as supervisor:
        began = current_time()
        lab.fake.on("create", 20.0)
        task = await supervisor.start("m", timeout=60)
        assert (await task.wait()).outcome is Outcome.TIMED_OUT
        assert current_time() == pytest.approx(began + 60, abs=0.01)
    assert lab.finished == {("timed_out", "deadline"): 1}


async def test_on_anyio_s_clock() -> None:
    """``deadline=`` takes a number on anyio's clock."""
    lab = Lab()
    async with lab.open() as supervisor:
        await sleep(5)
        task = await supervisor.start("m", deadline=current_time() + 60)
        await task.wait()
        assert current_time() == pytest.approx(65, abs=0.01)


async def test_an_aware_datetime() -> None:
    """``deadline=`` takes an aware datetime."""
    lab = Lab()
    async with lab.open() as supervisor:
        at = datetime.now(UTC) + timedelta(seconds=60)
        task = await supervisor.start("m", deadline=at)
        await task.wait()
        assert 58 < current_time() <= 60.1


@pytest.mark.parametrize("timeout, deadline", [(30, 60), (60, 30)])
async def test_the_earlier_counts(timeout: float, deadline: float) -> None:
    """Of a time-out and a deadline the earlier counts."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut):
            await supervisor.run("m", timeout=timeout, deadline=current_time() + deadline)
        assert current_time() == pytest.approx(30, abs=0.01)


async def test_the_policy_s_time_out_and_the_task_s() -> None:
    """A policy's time-out holds for every task, a task's own replaces it, None takes it away."""
    lab = Lab(duration=3600)
    async with lab.open(policy=TaskPolicy(timeout=10)) as supervisor:
        with pytest.raises(TaskTimedOut):
            await supervisor.run("m")
        assert current_time() == pytest.approx(10, abs=0.01)
        with pytest.raises(TaskTimedOut):
            await supervisor.run("m", timeout=20)
        assert current_time() == pytest.approx(30, abs=0.01)
        assert (await supervisor.run("m", timeout=None)).outcome is Outcome.COMPLETED


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
@pytest.mark.parametrize(
    "deadline",
    [datetime.now(UTC).replace(tzinfo=None), float("nan"), float("inf"), "soon", True],
    ids=["naive", "nan", "inf", "text", "bool"],
)
async def test_what_is_no_deadline(deadline: Any) -> None:
    """A naive datetime, and whatever else is no instant, is refused before anything is sent."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ConfigurationError, match="deadline"):
            supervisor.task("m", deadline=deadline)
        with pytest.raises(ConfigurationError, match="deadline"):
            await supervisor.adopt("some-id", deadline=deadline)
    assert not lab.fake.requests


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_a_deadline_on_the_wrong_clock() -> None:
    """The wall clock's now is years from now on anyio's; a datetime may be as far off."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ConfigurationError, match=r"datetime\.fromtimestamp"):
            await supervisor.run("m", deadline=time.time() + 60)
        with pytest.raises(ConfigurationError, match=r"anyio\.current_time\(\) \+ seconds"):
            await supervisor.adopt("some-id", deadline=time.time() + 60)
        assert not lab.fake.requests
        await supervisor.start("m", deadline=datetime.now(UTC) + timedelta(days=40 * 365))
        await supervisor.start("m", deadline=current_time() + 9 * 365 * 86_400)


@pytest.mark.parametrize("how", ["past", "now", "zero"])
async def test_a_deadline_that_has_passed(how: str) -> None:
    """A deadline that has passed times out at once, and leaves nothing behind."""
    lab = Lab()
    async with lab.open() as supervisor:
        await sleep(10)
        with pytest.raises(TaskTimedOut):
            match how:
                case "past":
                    await supervisor.run("m", deadline=current_time() - 5)
                case "now":
                    await supervisor.run("m", deadline=current_time())
                case _:
                    await supervisor.run("m", timeout=0)
        assert current_time() < 10.1
    assert lab.finished == {("timed_out", "deadline"): 1}


@pytest.mark.parametrize("answer", [False, True])
async def test_during_the_create(*, answer: bool) -> None:
    """A deadline during the create raises at once; the DELETE follows the id."""
    lab = Lab()
    async with lab.open() as supervisor:
        gate = lab.fake.gate("create", answer=answer)
        with pytest.raises(TaskTimedOut) as caught:
            async with supervisor.task("m", timeout=10, cancel_wait=1):
                raise AssertionError
        assert current_time() == pytest.approx(11, abs=0.01), "deadline, and cancel_wait"
        assert caught.value.task_id is None
        gate.open()
        await lab.fake.until(lambda: lab.deletes() == 1 and not lab.fake.live)
    assert lab.finished == {("timed_out", "deadline"): 1}


async def test_while_it_is_unknown() -> None:
    """A deadline while the id is sought raises; the task is deleted once it is found."""
    lab = Lab()
    lab.fake.on("create", LOST)
    lab.fake.on("list", HANG)
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut):
            await supervisor.start("m", timeout=5, cancel_wait=1)
        assert current_time() == pytest.approx(6, abs=0.01)
        await lab.fake.until(lambda: not lab.fake.live)
    assert lab.deletes() == 1
    assert lab.finished == {("timed_out", "deadline"): 1}


async def test_five_hundred_at_once() -> None:
    """Of 500 deadlines in one instant each is kept, with one DELETE each."""
    lab = Lab(latency=0.01)
    async with lab.open() as supervisor, create_task_group() as group:
        at = current_time() + 20

        async def use(number: int) -> None:
            with pytest.raises(TaskTimedOut):
                if number % 2:
                    await supervisor.run("m", deadline=at)
                else:
                    task = await supervisor.start("m", deadline=at)
                    await task.result()
            assert at <= current_time() < at + 1

        for number in range(500):
            group.start_soon(use, number)
    assert lab.deletes() == 500
    assert lab.fake.peak("delete") == 64
    assert lab.finished == {("timed_out", "deadline"): 500}


async def test_all_that_are_due_come_before_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many deadlines at once each is met before a DELETE is sent for any of their tasks."""
    monkeypatch.setattr(timer, "SLICE_SECONDS", 0.0)  # the others get a turn after each
    lab, states = Lab(), list[set[State]]()
    async with lab.open(max_cancels=3) as supervisor:
        deadline = current_time() + 1
        tasks = [await supervisor.start("m", deadline=deadline) for _ in range(20)]

        async def look() -> None:
            await lab.fake.until(lambda: lab.deletes())
            states.append({task.state for task in tasks})

        async with create_task_group() as group:
            group.start_soon(look)
            for task in tasks:
                assert (await task.wait()).reason == "deadline"
    assert State.RUNNING not in states[0]


async def test_a_body_that_catches_the_deadline_s_cancellation() -> None:
    """A body may clean up when its deadline comes, but not go on as if nothing was."""
    lab = Lab()
    cleaned = []
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut):
            async with supervisor.task("m", timeout=10):
                try:
                    await sleep_forever()
                finally:
                    cleaned.append(current_time())
    assert cleaned == [pytest.approx(10, abs=0.01)]


async def test_a_finished_task_s_deadline_is_forgotten() -> None:
    """When a task has finished, its deadline means nothing any more."""
    lab = Lab(duration=5)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", timeout=60)
        await task.result()
        await sleep(120)
        assert task.outcome is Outcome.COMPLETED
        async with supervisor.task("m", timeout=60) as held:
            await held.result()
            await sleep(120)
            assert held.state is State.COMPLETED
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 2}
