"""What ``on_exit``, ``on_shutdown``, ``confirm`` and ``cancel_wait`` make of a block's end."""

from __future__ import annotations

import pytest
from anyio import (
    CancelScope,
    create_task_group,
    current_time,
    sleep,
    sleep_forever,
    wait_all_tasks_blocked,
)

from sigmic_guard import (
    CancelReason,
    CancelResult,
    Outcome,
    State,
    SupervisorShutdown,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskPolicy,
    TaskTimedOut,
)
from sigmic_guard.supervisor.work.canceller import MAX_LOOKS
from sigmic_guard.testing import HANG, LIE
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


# --- on_exit ------------------------------------------------------------------------------------


async def test_wait_waits_for_completion() -> None:
    """With on_exit="wait" the block ends normally when its task has completed."""
    lab = Lab(duration=0.02)
    async with lab.open() as supervisor:
        async with supervisor.task("m", on_exit="wait") as task:
            pass
        assert task.outcome is Outcome.COMPLETED
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 1}


@virtual
async def test_wait_does_not_wait_for_a_body_that_raised() -> None:
    """With on_exit="wait" a body that raises still ends its task."""
    lab = Lab(duration=3600)
    async with lab.open() as supervisor:
        with pytest.raises(ZeroDivisionError):
            async with supervisor.task("m", on_exit="wait"):
                raise ZeroDivisionError
        assert current_time() < 1
    assert lab.finished == {("cancelled", "error"): 1}


@virtual
async def test_wait_is_bounded_by_the_deadline() -> None:
    """With on_exit="wait" the deadline ends the wait with TaskTimedOut."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut):
            async with supervisor.task("m", on_exit="wait", timeout=60):
                pass
        assert 60 <= current_time() < 61
    assert lab.deletes() == 1
    assert lab.finished == {("timed_out", "deadline"): 1}


async def test_wait_can_be_cancelled() -> None:
    """With on_exit="wait" a cancellation from outside ends the wait, and the task."""
    lab = Lab()
    async with lab.open() as supervisor:
        with CancelScope() as scope:
            async with supervisor.task("m", on_exit="wait"):
                scope.cancel()
        assert scope.cancelled_caught
        assert not lab.fake.live
    assert lab.finished == {("cancelled", "scope"): 1}


@virtual
async def test_wait_ends_with_a_user_s_cancel_and_a_shutdown() -> None:
    """With on_exit="wait" cancel() and shutdown() end the wait with their errors."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:

        async def wait(kind: type[Exception], *, cancel: bool) -> None:
            with pytest.raises(kind):
                async with supervisor.task("m", on_exit="wait") as task:
                    if cancel:
                        group.start_soon(task.cancel)

        async with create_task_group() as both:
            both.start_soon(lambda: wait(TaskCancelled, cancel=True))
            both.start_soon(lambda: wait(SupervisorShutdown, cancel=False))
            await sleep(1)
            await supervisor.shutdown()
    assert lab.finished == {("cancelled", "user"): 1, ("cancelled", "shutdown"): 1}


@virtual
async def test_wait_for_a_task_that_fails() -> None:
    """With on_exit="wait" a task that fails is no error of the block's."""
    lab = Lab()
    lab.fake.script("m", duration=1, fail="no")
    async with lab.open() as supervisor:
        async with supervisor.task("m", on_exit="wait") as task:
            pass
        with pytest.raises(TaskFailed):
            await task.result()
    assert lab.finished == {("failed", "none"): 1}


async def test_detach_lets_the_task_run() -> None:
    """With on_exit="detach" the task runs on, and its handle says that nobody will know its end."""
    lab = Lab()
    async with lab.open(left=1) as supervisor:
        async with supervisor.task("m", on_exit="detach") as task:
            pass
        assert task.state == State.DETACHED
        assert not supervisor.tasks
        with pytest.raises(TaskError, match="nobody here will learn its end"):
            await task.result()
    assert lab.deletes() == 0
    assert lab.finished == {("detached", "none"): 1}


async def test_detach_is_for_bodies_that_finish() -> None:
    """With on_exit="detach" a body that raises, or is cancelled, still ends its task."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ZeroDivisionError):
            async with supervisor.task("m", on_exit="detach"):
                raise ZeroDivisionError
        with CancelScope() as scope:
            async with supervisor.task("m", on_exit="detach"):
                scope.cancel()
                await sleep_forever()
        with pytest.raises(TaskCancelled):
            async with supervisor.task("m", on_exit="detach") as task:
                task.request_cancel()
    assert lab.deletes() == 3
    assert lab.finished == {("cancelled", f"{why}"): 1 for why in ("error", "scope", "user")}


# --- on_shutdown --------------------------------------------------------------------------------


async def test_a_shutdown_lets_go_of_who_asked_for_it() -> None:
    """With on_shutdown="detach" the body is cancelled and the task runs on."""
    lab = Lab()
    async with lab.open(left=2, policy=TaskPolicy(on_shutdown="detach")) as supervisor:
        background = await supervisor.start("m")
        with pytest.raises(SupervisorShutdown):
            async with supervisor.task("m") as task:
                supervisor.request_shutdown()
                await sleep_forever()
        report = await supervisor.shutdown()
    assert (report.detached, report.cancelled, report.clean) == (2, 0, True)
    assert task.outcome is background.outcome is Outcome.DETACHED
    assert lab.deletes() == 0
    assert lab.finished == {("detached", "none"): 2}


async def test_who_waits_for_what_a_shutdown_lets_go_of() -> None:
    """With on_shutdown="detach" run() and result() raise SupervisorShutdown, in a block or not."""
    lab = Lab()
    async with lab.open(left=2, policy=TaskPolicy(on_shutdown="detach")) as supervisor:
        background = await supervisor.start("m")

        async def result() -> None:
            with pytest.raises(SupervisorShutdown, match="is detached"):
                await background.result()

        async def run() -> None:
            with pytest.raises(SupervisorShutdown, match="is detached"):
                await supervisor.run("m")

        async with create_task_group() as group:
            group.start_soon(result)
            group.start_soon(run)
            await lab.fake.until(lambda: len(lab.fake.live) == 2)
            await wait_all_tasks_blocked()
            await supervisor.shutdown()
    assert lab.finished == {("detached", "none"): 2}


async def test_a_create_under_way_is_let_go_of_too() -> None:
    """With on_shutdown="detach" a create that comes through during the drain is detached."""
    lab = Lab()
    async with lab.open(left=1) as supervisor, create_task_group() as group:
        gate = lab.fake.gate("create")

        async def start() -> None:
            with pytest.raises(SupervisorShutdown):
                async with supervisor.task("m", on_shutdown="detach"):
                    raise AssertionError

        group.start_soon(start)
        await gate.entered.wait()
        supervisor.request_shutdown()
        group.start_soon(supervisor.shutdown)
        gate.open()
    assert lab.deletes() == 0
    assert lab.finished == {("detached", "none"): 1}


# --- confirm ------------------------------------------------------------------------------------


async def test_terminal_looks_before_it_believes() -> None:
    """With confirm="terminal" a GET follows the DELETE, and the result is "confirmed"."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", confirm="terminal")
        cancellation = await task.cancel()
    assert cancellation.result is CancelResult.CONFIRMED
    assert (lab.deletes(), lab.fake.count("get")) == (1, 1)
    assert lab.cancellations == {"confirmed": 1}


@virtual
async def test_a_lie_is_noticed_and_asked_again() -> None:
    """With confirm="terminal" a DELETE that lied is sent again until the task has ended."""
    lab = Lab()
    lab.fake.on("delete", LIE, LIE)
    async with lab.open(grace=60) as supervisor:
        async with supervisor.task("m", confirm="terminal", cancel_wait=60) as task:
            pass
        assert task.state == State.CANCELLED
        assert task.reason is CancelReason.SCOPE
    assert (lab.deletes(), lab.fake.count("get")) == (3, MAX_LOOKS + MAX_LOOKS + 1)
    assert lab.cancellations == {"confirmed": 1}


@virtual
async def test_a_lie_that_never_ends() -> None:
    """A task that no DELETE stops is UNCONFIRMED in the end, named, and counted as live."""
    lab = Lab()
    lab.fake.always("delete", LIE)
    async with lab.open(left=1, grace=30) as supervisor:
        async with supervisor.task("m", confirm="terminal", cancel_wait=2) as task:
            pass
        assert task.state == "cancelling"
        report = await supervisor.shutdown()
    assert task.state == "unconfirmed"
    assert [row.id for row in report.unconfirmed] == [task.id]
    assert lab.deletes() >= 2
    assert lab.live == {"unconfirmed": 1}
    assert lab.cancellations == {"unconfirmed": 1}


async def test_a_lie_is_believed_by_those_who_do_not_look() -> None:
    """Negative control: with confirm="accepted" the lie goes through."""
    lab = Lab()
    lab.fake.always("delete", LIE)
    async with lab.open(left=1) as supervisor:
        async with supervisor.task("m") as task:
            pass
        assert task.state == State.CANCELLED
    assert (lab.deletes(), lab.fake.count("get")) == (1, 0)


async def test_an_undocumented_answer_is_looked_into() -> None:
    """A 2xx that is not the documented answer is followed by a GET, also with "accepted"."""
    lab = Lab(delete_finished="ok")
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.fake.complete(task.id, "first")
        cancellation = await task.cancel()
        assert cancellation.result is CancelResult.ALREADY_FINISHED
        assert (await task.result()).final_response == "first"
    assert lab.finished == {("completed", "user"): 1}


# --- cancel_wait --------------------------------------------------------------------------------


@virtual
async def test_the_block_ends_and_the_supervisor_goes_on() -> None:
    """After cancel_wait the block ends; the DELETE goes on behind it, and succeeds."""
    lab = Lab()
    lab.fake.on("delete", HANG, HANG)
    async with lab.open() as supervisor:
        async with supervisor.task("m", cancel_wait=2) as task:
            pass
        assert current_time() == pytest.approx(2, abs=0.1)
        assert (task.state, set(lab.fake.live)) == ("cancelling", {task.id})
        assert supervisor.tasks == {task.id: task}
        assert (await task.wait()).outcome is Outcome.CANCELLED
        assert 10 < current_time() < 11, "two attempts of five seconds"
    assert lab.deletes() == 3
    assert lab.cancellations == {"acknowledged": 1}


@virtual
async def test_cancel_wait_is_zero() -> None:
    """cancel_wait=0 does not wait at all, and the DELETE is sent all the same."""
    lab = Lab(latency=1)
    async with lab.open() as supervisor:
        began = current_time()
        async with supervisor.task("m", cancel_wait=0) as task:
            began = current_time()
        assert current_time() == began
        assert task.state == "cancelling"
        await task.wait()
        assert not lab.fake.live


@virtual
async def test_cancel_says_what_it_does_not_know_yet() -> None:
    """cancel() answers "unconfirmed" after cancel_wait, and again says how it went later."""
    lab = Lab()
    lab.fake.on("delete", HANG)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=1)
        first = await task.cancel()
        assert (first.result, first.state) == ("unconfirmed", "cancelling")
        await task.wait()
        again = await task.cancel()
        assert (again.result, again.state) == ("acknowledged", "cancelled")
    assert lab.deletes() == 2
