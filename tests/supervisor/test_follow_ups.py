"""Follow-ups and approvals: a completed task that is asked again, and a tool that waits."""

from __future__ import annotations

import pytest
from anyio import CancelScope, Event, create_task_group, wait_all_tasks_blocked

from sigmic_guard import (
    ConfigurationError,
    ConnectionFailed,
    Outcome,
    RateLimited,
    State,
    SupervisorShutdown,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskTimedOut,
    ValidationError,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.testing import HANG, LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAUTHORISED, UNAVAILABLE, Lab, too_many

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def test_asked_again_within_its_block() -> None:
    """A completed task of a block is asked again, runs, completes, and is counted once."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("first") as task:
            lab.fake.complete(task.id, "one")
            assert (await task.result()).final_response == "one"
            assert task.state == "completed"
            assert lab.finished == {}
            await task.send("second")
            assert task.state == "running"
            lab.fake.complete(task.id, "two")
            assert (await task.result()).final_response == "two"
        assert (await task.result()).final_response == "two"
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 1}


async def test_left_while_the_follow_up_runs() -> None:
    """A block that is left while a follow-up runs ends the task."""
    lab = Lab()
    async with lab.open() as supervisor, supervisor.task("first") as task:
        lab.fake.complete(task.id)
        await task.result()
        await task.send("second")
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "scope"): 1}


async def test_sent_to_a_running_task() -> None:
    """A message to a running task is sent; the task runs on."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("first")
        await task.send("and also")
        assert lab.fake.tasks[task.id].messages == [("user", "first"), ("user", "and also")]
        assert task.state is State.RUNNING


@pytest.mark.parametrize("how", ["user", "remote", "deadline", "shutdown"])
async def test_sent_to_a_cancelled_task(how: str) -> None:
    """A message to a cancelled task raises TaskCancelled, or its kin, and sends nothing."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", timeout=0.5 if how == "deadline" else None)
        match how:
            case "user":
                task.request_cancel()
            case "remote":
                lab.fake.cancel(task.id)
                await task.wait()
            case "deadline":
                await task.wait()
            case _:
                await supervisor.shutdown()
        kind = TaskTimedOut if how == "deadline" else TaskCancelled
        with pytest.raises(kind):
            await task.send("more")
    assert lab.fake.count("send") == 0


async def test_sent_to_a_task_that_failed_or_finished() -> None:
    """A failed task takes no message, and a finished background task only when adopted."""
    lab = Lab()
    async with lab.open() as supervisor:
        failed, completed = await supervisor.start("m"), await supervisor.start("m")
        lab.fake.fail(failed.id)
        lab.fake.complete(completed.id)
        await failed.wait()
        await completed.wait()
        with pytest.raises(TaskFailed):
            await failed.send("more")
        with pytest.raises(ConfigurationError, match="adopt"):
            await completed.send("more")
    assert lab.fake.count("send") == 0


async def test_a_refused_message() -> None:
    """A refused message leaves a completed task completed, and a running one running."""
    lab = Lab()
    invalid = ValidationError("no", code="VALIDATION_ERROR", status=400)
    lab.fake.on("send", invalid, UNAUTHORISED, invalid)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        with pytest.raises(ValidationError):
            await task.send("more")
        assert task.state == "running"
        lab.fake.complete(task.id, "one")
        await task.result()
        with pytest.raises(type(UNAUTHORISED)):
            await task.send("more")
        assert task.state == "completed"
        with pytest.raises(ValidationError):
            await task.send("more")
        assert (await task.result()).final_response == "one"
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 1}


@pytest.mark.parametrize("fault", [LOST, UNAVAILABLE], ids=["lost", "503"])
async def test_a_message_without_an_answer(fault: Exception) -> None:
    """A message whose answer is lost may have been heard: the task counts as running, and ends."""
    lab = Lab()
    lab.fake.on("send", fault)
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            lab.fake.complete(task.id)
            await task.result()
            with pytest.raises((ConnectionFailed, type(UNAVAILABLE))):
                await task.send("more")
        assert not lab.fake.live
    assert sum(lab.finished.values()) == 1
    assert lab.fake.count("send") == 1


async def test_cancelled_while_a_message_is_under_way() -> None:
    """A cancel during a follow-up waits for its answer, lest the task starts again behind it."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        task = await supervisor.start("first")
        gate = lab.fake.gate("send")
        group.start_soon(task.send, "second")
        await gate.entered.wait()
        group.start_soon(task.cancel)
        await wait_all_tasks_blocked()
        assert (task.state, lab.deletes()) == ("cancelling", 0)
        lab.fake.complete(task.id, "one")
        gate.open()
        await lab.fake.until(lambda: lab.deletes() == 1 and not lab.fake.live)
        with pytest.raises(TaskCancelled):
            await task.result()
    assert lab.deletes() == 1
    assert lab.fake.tasks[task.id].messages[-1] == ("user", "second")


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_cancelled_while_a_message_is_never_answered() -> None:
    """A follow-up that hangs holds the DELETE up for seconds, and no longer."""
    lab = Lab()
    lab.fake.on("send", HANG)
    async with lab.open() as supervisor, create_task_group() as group:
        task = await supervisor.start("first", cancel_wait=60)

        async def send() -> None:
            with pytest.raises(ConnectionFailed):
                await task.send("second")

        group.start_soon(send)
        await lab.fake.until(lambda: lab.fake.count("send") == 1)
        cancellation = await task.cancel()
        assert cancellation.result == "acknowledged"
        assert lab.fake.count("send") == 1
    assert lab.finished == {("cancelled", "user"): 1}


async def test_the_sender_leaves() -> None:
    """Cancelling who sends does not tear the message apart; the block ends the task."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("send")
        scope = CancelScope()

        async def use() -> None:
            with scope:
                async with supervisor.task("first") as task:
                    lab.fake.complete(task.id)
                    await task.result()
                    await task.send("second")

        group.start_soon(use)
        await gate.entered.wait()
        scope.cancel()
        await wait_all_tasks_blocked()
        gate.open()
    assert scope.cancelled_caught
    assert (lab.fake.count("send"), lab.deletes()) == (1, 1)
    assert lab.finished == {("cancelled", "scope"): 1}


async def test_after_the_shutdown_began() -> None:
    """A message after the shutdown began is refused."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", on_shutdown="detach")
        supervisor.request_shutdown()
        with pytest.raises((SupervisorShutdown, ConfigurationError)):
            await task.send("more")
        lab.fake.complete(task.id)
    assert lab.fake.count("send") == 0


async def test_on_exit_wait_waits_for_the_follow_up() -> None:
    """With on_exit="wait" the block waits for the follow-up's end too."""
    lab = Lab()
    lab.fake.script("second", duration=0.05, answer="two")
    async with lab.open() as supervisor:
        async with supervisor.task("first", on_exit="wait") as task:
            lab.fake.complete(task.id, "one")
            await task.result()
            await task.send("second")
        assert (await task.result()).final_response == "two"
        assert task.outcome is Outcome.COMPLETED
    assert lab.deletes() == 0


async def test_approvals() -> None:
    """A tool call that waits is approved; the answer says whether it was."""
    lab = Lab()
    lab.fake.script("m", approval="shell", duration=0.02, answer="done")
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            info = await task.refresh()
            assert info.status == "awaiting_approval"
            assert info.pending_approvals is not None
            (pending,) = info.pending_approvals
            assert await task.approve(pending.call_id) is True
            assert (await task.result()).final_response == "done"
        with pytest.raises(TaskNotFound):
            await task.approve("call-1")
    assert lab.fake.tasks[task.id].approvals == ["proceed_once"]


async def test_an_approval_that_is_denied() -> None:
    """A call can be denied, and approve() says that it was not approved."""
    lab = Lab()
    lab.fake.script("m", approval="shell")
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert await task.approve("call-1", "cancel") is False
        with pytest.raises(TaskNotFound):
            await task.approve("nothing")


async def test_an_approval_under_way_at_the_shutdown() -> None:
    """Who waits for an approval's answer when all ends is told, and does not wait for ever."""
    lab = Lab()
    lab.fake.script("m", approval="shell")
    async with lab.open(grace=0.5) as supervisor, create_task_group() as group:
        task = await supervisor.start("m")
        lab.fake.always("approve", HANG)

        async def approve() -> None:
            with pytest.raises((ConnectionFailed, SupervisorShutdown)):
                await task.approve("call-1")

        group.start_soon(approve)
        await lab.fake.until(lambda: lab.fake.count("approve") == 1)
        await supervisor.shutdown()


async def test_whoever_comes_after_us_knows_of_a_message() -> None:
    """When a message goes out the ledger has it on record that the task was asked."""
    lab, store = Lab(), MemoryStore()
    async with (
        lab.open(ledger=MemoryLedger(store)) as supervisor,
        supervisor.task("m") as task,
        create_task_group() as group,
    ):
        lab.fake.complete(task.id)
        await task.result()
        gate = lab.fake.gate("send")
        group.start_soon(task.send, "and then?")
        await gate.entered.wait()
        [row] = store.rows.values()
        assert row.asked_at is not None
        gate.open()


@pytest.mark.parametrize("refused_first", [True, False])
async def test_one_of_two_follow_ups_is_refused(*, refused_first: bool) -> None:
    """A refused follow-up does not hide that another one runs: the block ends the task."""
    lab = Lab()
    first, second = Event(), Event()

    async def refuse(_: object) -> RateLimited:
        await first.wait()
        return too_many()

    async def accept(_: object) -> None:
        await second.wait()

    lab.fake.on("send", refuse, accept)
    async with lab.open() as supervisor, supervisor.task("one") as task:
        lab.fake.complete(task.id)
        await task.result()

        async def send_in_vain() -> None:
            with pytest.raises(RateLimited):
                await task.send("refused")

        async with create_task_group() as group:
            group.start_soon(send_in_vain)
            await lab.fake.until(lambda: lab.fake.count("send") == 1)
            group.start_soon(task.send, "accepted")
            await lab.fake.until(lambda: lab.fake.count("send") == 2)
            (first if refused_first else second).set()
            await lab.fake.until(lambda: lab.fake.in_flight("send") == 1)
            await wait_all_tasks_blocked()
            first.set()
            second.set()
        assert task.state == "running"
    assert lab.deletes() == 1


async def test_seen_completed_while_a_follow_up_is_under_way() -> None:
    """A task that is seen completed while a message is on its way to it is not let go of."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("one")
        lab.fake.complete(task.id)
        gate = lab.fake.gate("send")
        async with create_task_group() as group:
            group.start_soon(task.send, "two")
            await gate.entered.wait()
            await task.refresh()
            assert task.state == "running"
            gate.open()
        assert len(lab.fake.live) == 1
        assert task.id in supervisor.tasks
    assert lab.deletes() == 1


async def test_a_refused_follow_up_does_not_hide_the_end() -> None:
    """A completion that was seen while a message was under way is learned once it is refused."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("one")
        gate = lab.fake.gate("send")
        lab.fake.on("send", too_many())
        async with create_task_group() as group:

            async def send_in_vain() -> None:
                with pytest.raises(RateLimited):
                    await task.send("two")

            group.start_soon(send_in_vain)
            await gate.entered.wait()
            lab.fake.complete(task.id, "done")
            await task.refresh()
            gate.open()
        assert (await task.wait()).final_response == "done"
