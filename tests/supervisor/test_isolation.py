"""One task's trouble is its own; a bug of ours takes the supervisor down, after its DELETEs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from anyio import create_task_group, current_time, sleep, sleep_forever

from sigmic_guard import (
    Outcome,
    SigmicGuardError,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskFailed,
    TaskTimedOut,
)
from sigmic_guard.testing import HANG, FakeSigmic
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, Lab

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


async def _create(supervisor: Supervisor) -> None:
    await supervisor.start("m")


async def _delete(supervisor: Supervisor) -> None:
    task = await supervisor.start("m")
    task.request_cancel()
    await sleep_forever()


async def _watch(supervisor: Supervisor) -> None:
    await supervisor.start("m")
    await sleep_forever()


async def _look(supervisor: Supervisor) -> None:
    task = await supervisor.start("m")
    cast("FakeSigmic", task._entry.core.api).complete(task.id)
    await sleep_forever()


WHERE: dict[str, Callable[[Supervisor], Awaitable[None]]] = {
    "create": _create,
    "delete": _delete,
    "list": _watch,
    "get": _look,
}


@pytest.mark.parametrize("method", WHERE)
async def test_a_bug_once(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a worker comes out of the supervisor's block, after every DELETE was sent."""
    lab = Lab()
    bug = Bug("in the client")
    with pytest.raises(Bug, match="in the client"):
        async with lab.open(grace=0.5) as supervisor:
            others = [await supervisor.start("other") for _ in range(3)]
            lab.fake.on(method, bug)
            await WHERE[method](supervisor)
            await sleep_forever()
    for task in others:
        assert task.outcome is Outcome.CANCELLED
    assert "worker.failed" in str([record.msg for record in caplog.records])
    assert not lab.fake.live


@virtual
@pytest.mark.parametrize("method", WHERE)
async def test_a_bug_always(method: str) -> None:
    """A bug at every call still comes out, within the budget, and what it left is named."""
    lab = Lab()
    used: list[Supervisor] = []
    left = {"delete": 4, "get": 1}.get(method, 0)
    with pytest.raises(Bug):
        async with lab.open(grace=2) as supervisor:
            for _ in range(3):
                await supervisor.start("other")
            lab.fake.always(method, Bug("always"))
            try:
                await WHERE[method](supervisor)
                await sleep_forever()
            finally:
                used.append(supervisor)
    report = await used[0].shutdown()
    assert len([row for row in report.unconfirmed if row.id]) == left


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
