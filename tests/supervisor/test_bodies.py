"""Bodies that end in unusual ways, and blocks within blocks."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from anyio import CancelScope, create_task_group, current_time, fail_after, sleep, sleep_forever

from sigmic_guard import (
    CancelReason,
    Outcome,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskCancelled,
    TaskTimedOut,
)
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL)


async def test_an_exception_group_goes_on_unchanged() -> None:
    """A group that a body raises goes on as it is; the task is ended for the error in it."""
    lab = Lab()
    group = ExceptionGroup("two", [ValueError("one"), KeyError("two")])
    async with lab.open() as supervisor:
        with pytest.raises(ExceptionGroup) as caught:
            async with supervisor.task("m") as task:
                raise group
        assert caught.value is group
    assert task.reason is CancelReason.ERROR


async def test_an_error_in_a_group_of_the_body() -> None:
    """A body whose child task fails ends its task for the error, and raises the child's group."""
    lab = Lab()

    async def fail() -> None:
        raise ZeroDivisionError

    async with lab.open() as supervisor:
        with pytest.raises(ExceptionGroup) as caught:
            async with supervisor.task("m") as task, create_task_group() as group:
                group.start_soon(sleep_forever)
                group.start_soon(fail)
                await sleep_forever()
        assert caught.group_contains(ZeroDivisionError)
    assert task.reason is CancelReason.ERROR
    assert lab.deletes() == 1


async def test_a_deadline_with_a_group_in_the_body() -> None:
    """A deadline raises TaskTimedOut, in no group, also through a task group in the body."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut):
            async with (
                supervisor.task("m", timeout=0.5),
                create_task_group() as group,
            ):
                group.start_soon(sleep_forever)
                await sleep_forever()
    assert lab.finished == {("timed_out", "deadline"): 1}


async def test_an_error_during_the_cancellation_goes_on() -> None:
    """A body that raises while it is being cancelled lets that error out; the reason stays."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ZeroDivisionError):
            async with supervisor.task("m") as task:
                task.request_cancel()
                try:
                    await sleep_forever()
                finally:
                    raise ZeroDivisionError
    assert task.reason is CancelReason.USER
    assert lab.deletes() == 1


async def test_a_body_that_swallows_its_cancellation() -> None:
    """A body that finishes after it was interrupted is told of it all the same."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskCancelled):
            async with supervisor.task("m") as task:
                task.request_cancel()
        with pytest.raises(TaskTimedOut):
            async with supervisor.task("m", timeout=0.5) as task:
                with CancelScope(shield=True):
                    await task.wait()


async def test_a_generator_that_is_closed() -> None:
    """A block in an async generator that is closed ends its task, and raises nothing."""
    lab = Lab()
    async with lab.open() as supervisor:

        async def generate() -> AsyncGenerator[str, None]:
            async with supervisor.task("m") as task:
                yield task.id

        generator = generate()
        task_id = await anext(generator)
        task = supervisor.tasks[task_id]
        await generator.aclose()
        assert (await task.wait()).outcome is Outcome.CANCELLED
    assert lab.deletes(task_id) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_the_end_of_the_program(kind: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit in a body go on unchanged, after the DELETE."""
    lab = Lab()
    end = kind()
    async with lab.open() as supervisor:
        with pytest.raises(kind) as caught:
            async with supervisor.task("m") as task:
                raise end
        assert caught.value is end
        assert not lab.fake.live
    assert task.reason is CancelReason.ERROR


async def test_the_end_of_the_program_through_the_supervisor() -> None:
    """A KeyboardInterrupt that leaves the supervisor's block comes out as it is."""
    lab = Lab()
    with pytest.raises(KeyboardInterrupt):
        async with lab.open() as supervisor:
            await supervisor.start("m")
            raise KeyboardInterrupt
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_an_error_through_the_supervisor() -> None:
    """An exception that leaves the supervisor's block comes out as it is, in no group."""
    lab = Lab()
    boom = ZeroDivisionError("boom")
    with pytest.raises(ZeroDivisionError) as caught:
        async with lab.open() as supervisor:
            await supervisor.start("m")
            raise boom
    assert caught.value is boom
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_blocks_within_blocks() -> None:
    """Nested blocks end from the inside out, each task with its own reason."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut) as caught:
            async with supervisor.task("outer", timeout=1) as outer:
                with pytest.raises(TaskCancelled):
                    async with supervisor.task("cancelled") as cancelled:
                        cancelled.request_cancel()
                        await sleep_forever()
                async with supervisor.task("inner") as inner:
                    await sleep_forever()
        assert caught.value.task_id == outer.id
    assert (outer.reason, inner.reason, cancelled.reason) == ("deadline", "scope", "user")
    order = [call.task_id for call in lab.fake.requests if call.method == "delete"]
    assert (len(order), set(order)) == (3, set(lab.fake.created))


async def test_the_inner_deadline_leaves_the_outer_block_alone() -> None:
    """An inner block's deadline is an error in the outer body, which can go on after it."""
    lab = Lab()
    async with lab.open() as supervisor, supervisor.task("outer") as outer:
        with pytest.raises(TaskTimedOut):
            async with supervisor.task("inner", timeout=0.5):
                await sleep_forever()
        assert outer.state is State.RUNNING
        lab.fake.complete(outer.id)
        assert (await outer.result()).outcome is Outcome.COMPLETED


async def test_supervisors_within_supervisors() -> None:
    """An inner supervisor's shutdown ends its own tasks and no other."""
    lab = Lab()
    async with lab.open() as outer:
        async with outer.task("outer") as mine:
            async with lab.make() as inner:
                theirs = await inner.start("inner")
            assert theirs.outcome is Outcome.CANCELLED
            assert mine.state is State.RUNNING
        assert lab.finished == {("cancelled", "shutdown"): 1, ("cancelled", "scope"): 1}


async def test_a_cancelled_scope_around_the_supervisor() -> None:
    """A cancellation around the supervisor ends all tasks and comes out."""
    lab = Lab()
    with CancelScope() as scope:
        async with lab.open() as supervisor:
            background = await supervisor.start("background")
            async with supervisor.task("m") as task:
                scope.cancel()
                await sleep_forever()
    assert scope.cancelled_caught
    assert (task.reason, background.reason) == ("scope", "shutdown")
    assert lab.deletes() == 2


async def test_a_time_limit_around_the_supervisor() -> None:
    """anyio's own time limits work through blocks: the TimeoutError is theirs."""
    lab = Lab()
    with pytest.raises(TimeoutError) as caught:
        with fail_after(60) as limit:
            async with lab.open() as supervisor, supervisor.task("m") as task:
                limit.deadline = current_time()
                await sleep_forever()
    assert not isinstance(caught.value, TaskTimedOut)
    assert task.reason is CancelReason.SCOPE


async def test_a_shutdown_from_within_a_block() -> None:
    """shutdown() awaited inside a block cancels that body too, and drains."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(SupervisorShutdown):
            async with supervisor.task("m"):
                await supervisor.shutdown()
                await sleep_forever()
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_the_error_of_a_shutdown_does_not_leave_the_supervisor() -> None:
    """SupervisorShutdown leaving the supervisor's block comes out: the body did not finish."""
    lab = Lab()

    async def use(supervisor: Supervisor) -> None:
        async with supervisor.task("m"):
            supervisor.request_shutdown()
            await sleep(3600)

    with pytest.raises(SupervisorShutdown):
        async with lab.open() as supervisor:
            await use(supervisor)
