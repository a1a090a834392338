"""One task's trouble is its own; a bug in what serves all ends the supervisor after its DELETEs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from anyio import create_task_group, current_time, sleep, sleep_forever

from sigmic_guard import (
    ConnectionFailed,
    Outcome,
    SigmicGuardError,
    State,
    SupervisorShutdown,
    TaskFailed,
    TaskTimedOut,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.ground.timer import Timer
from sigmic_guard.supervisor.work.canceller import MAX_BUGS
from sigmic_guard.testing import HANG, FakeSigmic
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, Lab
from tests.supervisor.orphanage import left

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sigmic_guard.sigmic import CreateRequest

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


class Bug(RuntimeError):
    """What no client may raise."""


@virtual
async def test_the_failure_of_one() -> None:
    """Failing, timed-out, cancelled, refused and raising neighbours leave the others alone."""
    lab = Lab()
    lab.fake.script("fine", duration=100, answer="42")
    lab.fake.script("fails", duration=10, fail="no luck")
    async with lab.open() as supervisor, create_task_group() as group:

        async def fine() -> None:
            result = await supervisor.run("fine")
            assert (result.outcome, result.final_response) == ("completed", "42")

        async def fails() -> None:
            with pytest.raises(TaskFailed):
                await supervisor.run("fails")

        async def late() -> None:
            with pytest.raises(TaskTimedOut):
                await supervisor.run("m", timeout=20)

        async def refused() -> None:
            await sleep(30)
            lab.fake.on("create", UNAUTHORISED)
            with pytest.raises(SigmicGuardError):
                await supervisor.run("m")

        async def raises() -> None:
            with pytest.raises(ZeroDivisionError):
                async with supervisor.task("m"):
                    await sleep(40)
                    raise ZeroDivisionError

        async def unconfirmed() -> None:
            async with supervisor.task("m") as task:
                await sleep(50)
                lab.fake.on("delete", FORBIDDEN)
            assert task.state is State.UNCONFIRMED
            assert (await task.cancel()).result == "acknowledged"

        for use in (fine, fails, late, refused, raises, unconfirmed, fine, fine):
            group.start_soon(use)
    assert lab.finished == {
        ("completed", "none"): 3,
        ("failed", "none"): 2,
        ("timed_out", "deadline"): 1,
        ("cancelled", "error"): 1,
        ("cancelled", "scope"): 1,
    }


@virtual
@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize(
    "bug", [Bug("in the client"), TypeError("no such argument"), MemoryError()]
)
async def test_a_bug_in_a_create(
    bug: Exception, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its caller is told, with the bug as the cause; a create that may have been sent is sought."""
    lab = Lab()
    async with lab.open() as supervisor:
        others = [await supervisor.start("other") for _ in range(3)]
        lab.fake.on("create", *[bug] * times)
        for _ in range(times):
            with pytest.raises(ConnectionFailed, match=type(bug).__name__) as caught:
                await supervisor.run("m")
            assert caught.value.sent
            assert type(caught.value.__cause__) is type(bug)
        assert [task.state for task in others] == [State.RUNNING] * 3
        assert (await supervisor.start("m")).state is State.RUNNING
        await sleep(120)
        assert lab.live == {"running": 4}
    assert "worker.failed" in str([record.msg for record in caplog.records])


@virtual
async def test_a_bug_in_a_create_that_had_its_effect() -> None:
    """The task is found by its marker, and goes to who asked for it."""

    class Broken(FakeSigmic):
        async def create(self, request: CreateRequest, *, timeout: float) -> str:
            await super().create(request, timeout=timeout)
            raise Bug("in the decoder")

    lab = Lab()
    lab.fake = Broken()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert task.state is State.RUNNING
        assert lab.fake.count("create") == 1


@virtual
@pytest.mark.parametrize("times", [1, 2])
async def test_a_bug_in_a_delete(times: int) -> None:
    """It is asked again, a little later, and the others are asked as ever."""
    lab = Lab()
    async with lab.open() as supervisor:
        task, other = [await supervisor.start("m") for _ in range(2)]
        lab.fake.on("delete", *[Bug("in the client")] * times)
        task.request_cancel()
        assert (await task.wait()).outcome is Outcome.CANCELLED
        assert lab.deletes(task) == times + 1
        assert other.state is State.RUNNING
        assert (await other.cancel()).result == "acknowledged"


@virtual
async def test_a_bug_in_every_delete() -> None:
    """The task is unconfirmed, holds nobody up, and is asked for slowly, until that works."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=60)
        lab.fake.always("delete", Bug("in the client"))
        assert (await task.cancel()).result == "unconfirmed"
        assert lab.deletes(task) == MAX_BUGS
        await sleep(600)
        assert MAX_BUGS + 3 < lab.deletes(task) < MAX_BUGS + 60
        lab.fake.always("delete", None)
        await sleep(120)
        assert task.state is State.CANCELLED


@virtual
async def test_a_bug_in_every_delete_of_a_shutdown() -> None:
    """It ends within its budget, and names what it left."""
    lab = Lab()
    async with lab.open(left=2) as supervisor:
        for _ in range(2):
            await supervisor.start("m")
        lab.fake.always("delete", Bug("in the client"))
        report = await supervisor.shutdown(5)
    assert len(report.unconfirmed) == 2
    assert report.seconds < 5


@virtual
@pytest.mark.parametrize("times", [1, 5])
async def test_a_bug_in_a_look(times: int) -> None:
    """The task is looked at again, and its end is learnt."""
    lab = Lab()
    async with lab.open() as supervisor:
        task, other = [await supervisor.start("m") for _ in range(2)]
        lab.fake.on("get", *[Bug("in the client")] * times)
        lab.fake.complete(task.id)
        assert (await task.wait()).outcome is Outcome.COMPLETED
        assert lab.fake.count("get", task.id) == times + 1
        assert other.state is State.RUNNING


@virtual
@pytest.mark.parametrize("method", ["send", "approve", "get"])
async def test_a_bug_in_a_caller_request(method: str) -> None:
    """Whoever waits for it is told; the task is pursued as if the answer were lost."""
    lab = Lab()
    async with lab.open() as supervisor:
        task, other = [await supervisor.start("m") for _ in range(2)]
        lab.fake.on(method, Bug("in the client"))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "send": lambda: task.send("m"),
            "approve": lambda: task.approve("call"),
            "get": task.refresh,
        }
        with pytest.raises(ConnectionFailed, match="Bug") as caught:
            await calls[method]()
        assert isinstance(caught.value.__cause__, Bug)
        assert [task.state, other.state] == [State.RUNNING] * 2
        assert (await task.cancel()).result == "acknowledged"


@virtual
@pytest.mark.parametrize("times", [1, 5])
async def test_a_bug_in_an_examination(times: int) -> None:
    """A dead owner's task is looked at again, and ended."""
    lab, store = Lab(), MemoryStore()
    orphan = await left(lab, store)
    lab.fake.on("get", *[Bug("in the client")] * times)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        other = await supervisor.start("m")
        await supervisor.reap()
        assert orphan not in lab.fake.live
        assert other.state is State.RUNNING


@virtual
async def test_a_bug_in_an_alarm() -> None:
    """What is due for others is done, and the call that raised is made again."""
    reported, done = [], []
    timer = Timer(lambda name, bug: reported.append((name, bug)))
    bug = Bug("in an alarm")

    def raise_once() -> None:
        if not reported:
            raise bug
        done.append("again")

    async with create_task_group() as group:
        group.start_soon(timer.ring)
        timer.after(1, raise_once)
        timer.after(1, done.append, "other")
        await sleep(60)
        group.cancel_scope.cancel()
    assert reported == [("timer", bug)]
    assert done == ["other", "again"]


async def test_a_bug_in_a_loop_that_serves_all(caplog: pytest.LogCaptureFixture) -> None:
    """It comes out of the supervisor's block, after every DELETE was sent."""
    lab = Lab()
    with pytest.raises(Bug, match="in the client"):
        async with lab.open(grace=0.5) as supervisor:
            others = [await supervisor.start("other") for _ in range(3)]
            lab.fake.on("list", Bug("in the client"))
            await sleep_forever()
    for task in others:
        assert task.outcome is Outcome.CANCELLED
    assert "worker.failed" in str([record.msg for record in caplog.records])
    assert not lab.fake.live


async def test_blocks_are_told_of_a_bug() -> None:
    """The bodies of blocks are ended by a bug as by a shutdown, and their tasks deleted."""
    lab = Lab()
    told = []
    with pytest.raises(Bug):
        async with lab.open() as supervisor:
            background = await supervisor.start("m")
            try:
                async with supervisor.task("m") as task:
                    lab.fake.on("list", Bug("once"))
                    await sleep_forever()
            except SupervisorShutdown:
                told.append("shutdown")
                raise
    assert background.outcome is task.outcome is Outcome.CANCELLED
    assert lab.deletes() == 2


async def test_a_body_s_own_error_is_not_lost() -> None:
    """Where a body that a bug ends raises by itself, both exceptions are told."""
    lab = Lab()
    with pytest.raises((ZeroDivisionError, Bug)) as caught:
        async with lab.open() as supervisor:
            lab.fake.on("list", Bug("once"))
            await supervisor.start("m")
            try:
                await sleep_forever()
            finally:
                raise ZeroDivisionError
    assert {type(caught.value), type(caught.value.__context__)} == {ZeroDivisionError, Bug}


@virtual
async def test_a_bug_while_another_delete_hangs() -> None:
    """A bug does not make the exit longer than the grace and a second."""
    lab = Lab()
    with pytest.raises(Bug):
        async with lab.open(left=2, grace=2) as supervisor:
            await supervisor.start("m")
            await supervisor.start("m")
            lab.fake.always("delete", HANG)
            lab.fake.on("list", Bug("once"))
            began = current_time()
            await sleep_forever()
    assert current_time() - began <= 3.5


async def test_a_bug_is_a_shutdown_to_the_tasks_that_it_ends() -> None:
    """The bodies are cancelled because of the bug, and their blocks do not name their own cause."""
    lab = Lab()
    lab.fake.always("list", RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        async with lab.open() as supervisor, supervisor.task("m"):
            await sleep_forever()
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_a_body_s_own_error_hides_no_bug_however_long_the_exit_takes() -> None:
    """It is told in the context of the other, not only where the workers are still about to go."""

    class Slow(MemoryLedger):
        async def aclose(self) -> None:
            await sleep(0.05)
            await super().aclose()

    class Bug(Exception):
        pass

    lab = Lab()
    with pytest.raises(Bug) as caught:
        async with lab.make(ledger=Slow()) as supervisor:
            lab.fake.on("list", Bug("once"))
            await supervisor.start("m")
            try:
                await sleep_forever()
            finally:
                raise ZeroDivisionError
    assert isinstance(caught.value.__context__, ZeroDivisionError)
