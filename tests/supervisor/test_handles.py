"""Handles in other hands: many who wait, many who cancel, and what a finished handle still says."""

from __future__ import annotations

import pytest
from anyio import (
    CancelScope,
    create_task_group,
    move_on_after,
    sleep,
    sleep_forever,
    wait_all_tasks_blocked,
)

from sigmic_guard import (
    Cancellation,
    CancelResult,
    Outcome,
    State,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskResult,
    TaskTimedOut,
)
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def test_many_wait_for_one() -> None:
    """All who wait for a task are given the same result, each exactly once."""
    lab = Lab()
    results: list[TaskResult] = []
    async with lab.open() as supervisor:
        task = await supervisor.start("m")

        async def wait(number: int) -> None:
            results.append(await (task.result() if number % 2 else task.wait()))

        async with create_task_group() as group:
            for number in range(50):
                group.start_soon(wait, number)
            await wait_all_tasks_blocked()
            lab.fake.complete(task.id, "42")
    assert len(results) == 50
    assert {result.final_response for result in results} == {"42"}
    assert lab.fake.count("get") == 1, "one look for all of them"


async def test_many_cancel_one() -> None:
    """However many cancel a task, one DELETE goes out and all get its answer."""
    lab = Lab()
    answers: list[Cancellation] = []
    async with lab.open() as supervisor:
        task = await supervisor.start("m")

        async def cancel() -> None:
            answers.append(await task.cancel())

        async with create_task_group() as group:
            for _ in range(50):
                group.start_soon(cancel)
    assert len(answers) == 50
    assert {answer.result for answer in answers} == {CancelResult.ACKNOWLEDGED}
    assert lab.deletes() == 1


async def test_who_waits_may_leave() -> None:
    """Cancelling one who waits, or one who cancels, changes nothing for the task or the others."""
    lab = Lab(latency=0.05)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        async with create_task_group() as group:
            group.start_soon(task.wait)
            with CancelScope() as scope:
                scope.cancel()
                await task.wait()
            assert task.state is State.RUNNING
            with CancelScope() as scope:
                scope.cancel()
                await task.cancel()
            assert (task.state, task.reason) == ("cancelling", "user")
        assert task.outcome == "cancelled"
    assert lab.deletes() == 1


async def test_a_block_is_cancelled_from_many_sides() -> None:
    """Cancelling a block's task from other tasks ends the body once, with one DELETE."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        with pytest.raises(TaskCancelled):
            async with supervisor.task("m") as task:
                for _ in range(10):
                    group.start_soon(task.cancel)
                await sleep_forever()
    assert lab.deletes() == 1


@pytest.mark.parametrize("end", ["fail", "cancel", "remote", "deadline"])
async def test_result_raises_in_each_waiter(end: str) -> None:
    """result() raises the right error in every waiter, and again whenever it is asked."""
    lab = Lab()
    kinds: dict[str, type[TaskError]] = {
        "fail": TaskFailed,
        "cancel": TaskCancelled,
        "remote": TaskCancelled,
        "deadline": TaskTimedOut,
    }
    async with lab.open() as supervisor:
        task = await supervisor.start("m", timeout=0.5 if end == "deadline" else None)

        async def expect() -> None:
            with pytest.raises(kinds[end]) as caught:
                await task.result()
            assert caught.value.task_id == task.id

        async with create_task_group() as group:
            for _ in range(5):
                group.start_soon(expect)
            await wait_all_tasks_blocked()
            if end == "fail":
                lab.fake.fail(task.id)
            elif end == "cancel":
                task.request_cancel()
            elif end == "remote":
                lab.fake.cancel(task.id)
        await expect()
        assert (await task.wait()).outcome is task.outcome


async def test_cancelling_a_finished_task() -> None:
    """Cancelling a finished task sends nothing, and says that it had finished."""
    lab = Lab(duration=0.01)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await task.wait()
        cancellation = await task.cancel()
        assert (cancellation.result, cancellation.reason) == ("already_finished", None)
        assert (await task.result()).outcome is Outcome.COMPLETED
    task.request_cancel()
    assert lab.deletes() == 0
    assert lab.cancellations == {}


async def test_waiting_after_the_supervisor_closed() -> None:
    """A handle outlives its supervisor: wait() and cancel() answer at once."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
    assert (await task.wait()).reason == "shutdown"
    assert (await task.cancel()).result == "acknowledged"
    assert lab.deletes() == 1


async def test_a_handle_that_outlives_its_block() -> None:
    """After its block a handle tells of the end, and takes no message."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            pass
        with pytest.raises(TaskCancelled):
            await task.send("more")
        assert "cancelled" in repr(task)
        assert task.id in repr(task)
    assert lab.fake.count("send") == 0


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_those_who_wait_hold_nothing_up() -> None:
    """A waiter that never goes away does not delay the shutdown."""
    lab = Lab()
    async with create_task_group() as group, lab.open() as supervisor:
        task = await supervisor.start("m")
        group.start_soon(task.wait)
        await sleep(1)


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_an_old_handle_does_not_end_the_watching_of_a_new_one() -> None:
    """Reading the history through a finished handle leaves the adopted task watched."""
    lab = Lab()
    async with lab.open() as supervisor:
        old = await supervisor.start("one")
        lab.fake.complete(old.id)
        await old.wait()
        new = await supervisor.adopt(old.id)
        await new.send("two")
        async with old.events() as events:
            await anext(events)
        lab.fake.complete(new.id, "second")
        with move_on_after(60):
            await new.wait()
        assert new.state == "completed"
