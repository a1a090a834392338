"""Cancelled before the id is known: nothing is sent, or the DELETE follows the id, once."""

from __future__ import annotations

import pytest
from anyio import CancelScope, Event, create_task_group, current_time, wait_all_tasks_blocked

from sigmic_guard import State, SupervisorShutdown
from sigmic_guard.testing import HANG, LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


async def test_cancelled_while_it_waits_for_a_place() -> None:
    """A block cancelled while it waits for a place sends nothing at all."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor:
        first = await supervisor.start("first")
        async with create_task_group() as group:
            scope = CancelScope()

            async def second() -> None:
                with scope:
                    async with supervisor.task("second"):
                        raise AssertionError

            group.start_soon(second)
            await wait_all_tasks_blocked()
            assert lab.live == {"running": 1, "intent": 1}
            scope.cancel()
        assert lab.fake.count("create") == 1
        assert lab.finished == {("cancelled", "scope"): 1}
        await first.cancel()
        assert (await supervisor.start("third")).state is State.RUNNING
    assert lab.deletes() == 2


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_cancelled_while_it_is_created(how: str, *, answer: bool) -> None:
    """A caller cancelled during the create leaves; the DELETE follows the id, once."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("create", answer=answer)
        left = Event()
        scope = CancelScope()

        async def use() -> None:
            with scope:
                match how:
                    case "task":
                        async with supervisor.task("m", cancel_wait=0):
                            raise AssertionError
                    case "start":
                        await supervisor.start("m")
                    case _:
                        await supervisor.run("m", cancel_wait=0)
            assert scope.cancelled_caught
            left.set()

        group.start_soon(use)
        await gate.entered.wait()
        scope.cancel()
        await left.wait()
        assert lab.deletes() == 0
        gate.open()
        await lab.fake.until(lambda: lab.deletes() == 1 and not lab.fake.live)
    assert lab.fake.count("create") == 1
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "scope"): 1}


@virtual
async def test_cancelled_while_its_id_is_sought() -> None:
    """A caller cancelled while a lost create is sought leaves; once found, it is deleted."""
    lab = Lab()
    lab.fake.on("create", LOST)
    lab.fake.on("list", *[HANG] * 3)
    async with lab.open() as supervisor:
        with CancelScope(deadline=current_time() + 5):
            async with supervisor.task("m", cancel_wait=1):
                raise AssertionError
        assert len(lab.fake.live) == 1
        await lab.fake.until(lambda: not lab.fake.live)
    assert (lab.fake.count("create"), lab.deletes()) == (1, 1)
    assert lab.finished == {("cancelled", "scope"): 1}


async def test_shutdown_against_a_create() -> None:
    """A shutdown during the create waits for the id, and deletes the task, once."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("create")

        async def use() -> None:
            with pytest.raises(SupervisorShutdown):
                async with supervisor.task("m"):
                    raise AssertionError

        group.start_soon(use)
        await gate.entered.wait()
        group.start_soon(supervisor.shutdown)
        await wait_all_tasks_blocked()
        gate.open()
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "shutdown"): 1}


@pytest.mark.backends(ASYNCIO)
async def test_a_caller_that_is_closed_ends_its_task() -> None:
    """A coroutine that is closed while it starts a task leaves none behind."""
    lab = Lab()
    async with lab.open() as supervisor:
        gate = lab.fake.gate("create", answer=True)
        caller = supervisor.start("one")
        caller.send(None)
        await gate.entered.wait()
        caller.close()
        gate.open()
        await lab.fake.until(lambda: not lab.fake.live)
