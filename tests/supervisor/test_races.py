"""Two causes at once: the first wins, one DELETE goes out, and who completed first keeps it."""

from __future__ import annotations

import pytest
from anyio import (
    CancelScope,
    create_task_group,
    current_time,
    sleep,
    sleep_forever,
    sleep_until,
    wait_all_tasks_blocked,
)

from sigmic_guard import (
    CancelReason,
    Outcome,
    RemoteTask,
    State,
    TaskCancelled,
    TaskTimedOut,
)
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


# --- deadline against completion ------------------------------------------------------------------


async def test_completed_before_the_delete() -> None:
    """A task that completes before its DELETE arrives keeps its result, also in the error."""
    lab = Lab()
    lab.fake.on("delete", lambda call: lab.fake.complete(call.task_id or "", "just so") and None)
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut) as caught:
            async with supervisor.task("m", timeout=0.5) as task:
                await sleep_forever()
        assert caught.value.result.outcome is Outcome.COMPLETED
        assert caught.value.result.final_response == "just so"
        assert (await task.result()).final_response == "just so"
    assert lab.deletes() == 1
    assert lab.finished == {("completed", "deadline"): 1}
    assert lab.cancellations == {"already_finished": 1}


async def test_run_returns_what_was_completed_first() -> None:
    """run() returns the result of a task that completed before its DELETE arrived."""
    lab = Lab()
    lab.fake.on("delete", lambda call: lab.fake.complete(call.task_id or "", "just so") and None)
    async with lab.open() as supervisor:
        result = await supervisor.run("m", timeout=0.5)
    assert (result.outcome, result.final_response) == ("completed", "just so")
    assert lab.deletes() == 1


@virtual
@pytest.mark.parametrize("duration", [59.9, 60.0, 60.1])
async def test_completion_at_the_deadline(duration: float) -> None:
    """Completing at, before or after the deadline gives one outcome, and books that agree."""
    lab = Lab(duration=duration)
    async with lab.open() as supervisor:
        try:
            outcome = (await supervisor.run("m", timeout=60)).outcome
        except TaskTimedOut as error:
            outcome = error.result.outcome
        assert outcome is (Outcome.TIMED_OUT if duration > 60 else Outcome.COMPLETED)
        assert lab.deletes() <= 1
    (remote,) = lab.fake.tasks.values()
    assert remote.status == ("cancelled" if duration > 60 else "completed")
    assert sum(lab.finished.values()) == 1


@virtual
async def test_completion_seen_after_the_deadline() -> None:
    """A background task whose completion nobody saw before its deadline is found completed."""
    lab = Lab()
    lab.fake.always("list", HANG)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", timeout=60)
        await sleep(59)
        lab.fake.complete(task.id, "in time")
        assert (await task.result()).final_response == "in time"
    assert lab.deletes() == 1
    assert lab.finished == {("completed", "deadline"): 1}


# --- user against deadline ------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("pressed_at, reason", [(59, "user"), (61, "deadline")])
async def test_user_against_deadline(pressed_at: int, reason: str) -> None:
    """Whichever comes while the other's DELETE is under way is not the reason, and sends none."""
    lab = Lab(latency=2.5)
    async with lab.open() as supervisor, create_task_group() as group:

        async def press(task: RemoteTask) -> None:
            await sleep_until(began + pressed_at)
            assert task.state == ("running" if reason == "user" else "cancelling")
            await task.cancel()

        began = current_time()
        with pytest.raises(TaskCancelled if reason == "user" else TaskTimedOut):
            async with supervisor.task("m", timeout=60) as task:
                group.start_soon(press, task)
                await sleep_forever()
        assert task.reason == reason
    assert lab.deletes() == 1


async def test_user_and_deadline_in_one_instant() -> None:
    """When both come without a checkpoint between them, the first call is the cause."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", timeout=60)
        task.request_cancel()
        task._core.decider.cancel(task._entry, CancelReason.DEADLINE)
        other = await supervisor.start("m", timeout=60)
        task._core.decider.cancel(other._entry, CancelReason.DEADLINE)
        other.request_cancel()
        assert (await task.wait()).outcome is Outcome.CANCELLED
        assert (await other.wait()).outcome is Outcome.TIMED_OUT
    assert lab.finished == {("cancelled", "user"): 1, ("timed_out", "deadline"): 1}
    assert lab.deletes() == 2


# --- outer cancellation against shutdown ----------------------------------------------------------


@pytest.mark.parametrize("scope_first", [True, False])
async def test_scope_against_shutdown(*, scope_first: bool) -> None:
    """An outer cancellation always comes out; one DELETE goes out, for the first cause."""
    lab = Lab()
    async with lab.open() as supervisor:
        with CancelScope() as scope:
            async with supervisor.task("m") as task:
                if scope_first:
                    scope.cancel()
                    supervisor.request_shutdown()
                    await sleep_forever()
                supervisor.request_shutdown()
                try:
                    await sleep_forever()
                finally:
                    scope.cancel()
        assert scope.cancelled_caught
        report = await supervisor.shutdown()
    assert report.clean
    assert task.reason == ("scope" if scope_first else "shutdown")
    assert lab.deletes() == 1


async def test_an_outer_cancellation_after_a_user_s() -> None:
    """A body cancelled by its handle and from outside lets the outer cancellation out."""
    lab = Lab()
    async with lab.open() as supervisor:
        with CancelScope() as scope:
            async with supervisor.task("m") as task:
                task.request_cancel()
                scope.cancel()
                await sleep_forever()
        assert scope.cancelled_caught
    assert task.reason is CancelReason.USER
    assert lab.deletes() == 1


async def test_an_outer_cancellation_while_the_delete_is_under_way() -> None:
    """A cancellation that comes while the block waits for its DELETE comes out afterwards."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("delete")
        scope = CancelScope()

        async def end() -> None:
            await gate.entered.wait()
            scope.cancel()
            await wait_all_tasks_blocked()
            gate.open()

        group.start_soon(end)
        with scope:
            async with supervisor.task("m") as task:
                pass
            raise AssertionError("the cancellation came out of the block")
        assert scope.cancelled_caught
        assert task.state is State.CANCELLED


async def test_shutdown_while_the_block_waits_for_its_delete() -> None:
    """A shutdown that comes after the body finished changes neither reason nor count."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("delete")

        async def end() -> None:
            await gate.entered.wait()
            supervisor.request_shutdown()
            await wait_all_tasks_blocked()
            gate.open()

        group.start_soon(end)
        async with supervisor.task("m") as task:
            pass
    assert task.reason is CancelReason.SCOPE
    assert lab.deletes() == 1


# --- two cancels ----------------------------------------------------------------------------------


async def test_two_cancellations_from_outside() -> None:
    """Two scopes cancelled in a row come out of the outer one, with one DELETE."""
    lab = Lab()
    async with lab.open() as supervisor:
        with CancelScope() as outer, CancelScope() as inner:
            async with supervisor.task("m") as task:
                inner.cancel()
                try:
                    await sleep_forever()
                finally:
                    outer.cancel()
        assert task.reason is CancelReason.SCOPE
    assert lab.deletes() == 1


async def test_two_cancels_in_a_row_while_the_first_is_under_way() -> None:
    """A second cancel() during the DELETE waits for the same answer."""
    lab = Lab()
    async with lab.open() as supervisor:
        gate = lab.fake.gate("delete")
        task = await supervisor.start("m")
        async with create_task_group() as group:
            group.start_soon(task.cancel)
            await gate.entered.wait()
            group.start_soon(task.cancel)
            await wait_all_tasks_blocked()
            gate.open()
    assert lab.deletes() == 1


async def test_someone_else_s_cancel_against_ours() -> None:
    """A task cancelled at the API while our DELETE is under way ends once, for our reason."""
    lab = Lab()
    lab.fake.on("delete", lambda call: lab.fake.cancel(call.task_id or "") and None)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        cancellation = await task.cancel()
    assert cancellation.result in {"already_finished", "confirmed"}
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "user"): 1}


async def test_the_deadline_strikes_a_finished_body_and_the_task_wins() -> None:
    """A block that waits for its task ends normally if the task completes before the DELETE."""
    lab = Lab()
    lab.fake.on("delete", lambda call: lab.fake.complete(call.task_id or "") and None)
    async with lab.open() as supervisor:
        async with supervisor.task("one", on_exit="wait", timeout=0.5) as task:
            pass
        await sleep(0)  # no cancellation is left over
        assert task.state == "completed"
