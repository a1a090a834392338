"""The table "How blocks end", row by row: the error, the result, the reason, DELETEs, metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from anyio import CancelScope, create_task_group, sleep_forever
from anyio.abc import TaskGroup

from sigmic_guard import (
    CancelReason,
    CancelResult,
    Outcome,
    RemoteTask,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskCancelled,
    TaskFailed,
    TaskResult,
    TaskTimedOut,
)
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL)


async def told(task: RemoteTask) -> TaskResult:
    """The same result from ``wait`` and, if there is one, from ``result``."""
    result = await task.wait()
    if result.outcome is Outcome.COMPLETED:
        assert await task.result() == result
    return result


async def test_finished_and_completed() -> None:
    """A body that finishes after its task completed ends normally, and nothing is deleted."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            lab.fake.complete(task.id, "42")
            inside = await task.result()
        after = await told(task)
    assert (after.outcome, after.final_response) == (inside.outcome, inside.final_response)
    assert (inside.outcome, inside.reason, inside.status) == ("completed", None, "completed")
    assert (inside.final_response, inside.error, inside.cancellation) == ("42", None, None)
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 1}
    assert lab.cancellations == {}


async def test_finished_and_failed() -> None:
    """A body that outlives its failed task ends normally; result() tells of the failure."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            lab.fake.fail(task.id, "out of luck")
            with pytest.raises(TaskFailed, match="out of luck") as caught:
                await task.result()
        result = await told(task)
    assert caught.value.error == "out of luck"
    assert caught.value.task_id == task.id
    assert caught.value.result == result
    assert (result.outcome, result.reason, result.error) == ("failed", None, "out of luck")
    assert lab.deletes() == 0
    assert lab.finished == {("failed", "none"): 1}


async def test_finished_while_the_task_runs() -> None:
    """A body that finishes first ends normally, and its task is deleted once."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            assert task.state is State.RUNNING
        assert not lab.fake.live, "the block waits for the acknowledgement"
        result = await told(task)
        with pytest.raises(TaskCancelled) as caught:
            await task.result()
    assert caught.value.reason is CancelReason.SCOPE
    assert (result.outcome, result.reason) == ("cancelled", "scope")
    assert result.cancellation is not None
    assert result.cancellation.result is CancelResult.ACKNOWLEDGED
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "scope"): 1}
    assert lab.cancellations == {"acknowledged": 1}


async def test_a_body_that_raised() -> None:
    """What a body raises goes on unchanged, after its task was deleted for it."""
    lab = Lab()
    boom = ZeroDivisionError("boom")
    async with lab.open() as supervisor:
        with pytest.raises(ZeroDivisionError) as caught:
            async with supervisor.task("m") as task:
                raise boom
        assert caught.value is boom
        assert (boom.__cause__, boom.__context__) == (None, None)
        assert not lab.fake.live
        result = await told(task)
    assert (result.outcome, result.reason) == ("cancelled", "error")
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "error"): 1}


async def test_cancelled_from_outside() -> None:
    """A cancellation from outside goes on unchanged, after the task was deleted for it."""
    lab = Lab()
    async with lab.open() as supervisor:
        with CancelScope() as scope:
            async with supervisor.task("m") as task:
                scope.cancel()
                await sleep_forever()
        assert scope.cancelled_caught
        assert not lab.fake.live
        result = await told(task)
    assert (result.outcome, result.reason) == ("cancelled", "scope")
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "scope"): 1}


async def test_its_own_deadline() -> None:
    """At its deadline the body is cancelled, the task deleted, and TaskTimedOut raised."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TimeoutError) as caught:
            async with supervisor.task("m", timeout=0.5) as task:
                await sleep_forever()
        assert isinstance(caught.value, TaskTimedOut)
        assert caught.value.task_id == task.id
        assert caught.value.__cause__ is None
        assert not lab.fake.live
        result = await told(task)
        assert caught.value.result.outcome is Outcome.TIMED_OUT
    assert (result.outcome, result.reason) == ("timed_out", "deadline")
    assert lab.deletes() == 1
    assert lab.finished == {("timed_out", "deadline"): 1}


async def test_cancelled_by_its_handle() -> None:
    """cancel() from elsewhere cancels the body, deletes the task, and raises TaskCancelled."""
    lab = Lab()
    handles: list[RemoteTask] = []

    async def press() -> None:
        cancellation = await handles[0].cancel()
        assert cancellation.result is CancelResult.ACKNOWLEDGED
        assert (cancellation.state, cancellation.reason) == ("cancelled", "user")

    async with lab.open() as supervisor, create_task_group() as group:
        with pytest.raises(TaskCancelled) as caught:
            async with supervisor.task("m") as task:
                handles.append(task)
                group.start_soon(press)
                await sleep_forever()
        assert (caught.value.reason, caught.value.task_id) == (CancelReason.USER, task.id)
        assert not lab.fake.live
        result = await told(task)
    assert (result.outcome, result.reason) == ("cancelled", "user")
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "user"): 1}


async def test_cancelled_by_its_own_body() -> None:
    """request_cancel() within the body cancels it at its next checkpoint."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskCancelled):
            async with supervisor.task("m") as task:
                task.request_cancel()
                await sleep_forever()
    assert lab.finished == {("cancelled", "user"): 1}


def _call(supervisor: Supervisor, _: TaskGroup) -> None:
    supervisor.request_shutdown()


def _await(supervisor: Supervisor, group: TaskGroup) -> None:
    group.start_soon(supervisor.shutdown)


@pytest.mark.parametrize("shut", [_call, _await])
async def test_shutdown(shut: Callable[[Supervisor, TaskGroup], None]) -> None:
    """A shutdown cancels the body, deletes the task, and raises SupervisorShutdown."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        with pytest.raises(SupervisorShutdown):
            async with supervisor.task("m") as task:
                shut(supervisor, group)
                await sleep_forever()
        result = await told(task)
    assert (result.outcome, result.reason) == ("cancelled", "shutdown")
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_cancelled_by_someone_else() -> None:
    """A task cancelled at the API cancels the body that reads it, and nothing is deleted."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskCancelled) as caught:
            async with supervisor.task("m") as task:
                lab.fake.cancel(task.id)
                await sleep_forever()
        assert caught.value.reason is CancelReason.REMOTE
        result = await told(task)
    assert (result.outcome, result.reason, result.status) == ("cancelled", "remote", "cancelled")
    assert lab.deletes() == 0
    assert lab.finished == {("cancelled", "remote"): 1}
