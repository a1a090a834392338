"""``max_tasks``: never more remote tasks alive than allowed, and places are always given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest
from anyio import (
    CancelScope,
    create_task_group,
    current_time,
    move_on_after,
    sleep,
    wait_all_tasks_blocked,
)
from anyio.abc import TaskGroup

from sigmic_guard import (
    ConnectionFailed,
    RemoteTask,
    SigmicGuardError,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskTimedOut,
)
from sigmic_guard.testing import LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, UNAVAILABLE, Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


@virtual
async def test_never_more_alive() -> None:
    """A hundred runs over three places: never more than three live, and all complete."""
    lab = Lab(duration=10)
    most = 0

    async with lab.open(max_tasks=3) as supervisor, create_task_group() as group:

        async def run() -> None:
            nonlocal most
            async with supervisor.task("m") as task:
                most = max(most, len(lab.fake.live))
                await task.result()

        for _ in range(100):
            group.start_soon(run)
    assert most == 3
    assert lab.fake.count("create") == 100
    assert lab.finished == {("completed", "none"): 100}


@virtual
async def test_places_are_used_at_once() -> None:
    """A place that becomes free is taken without delay."""
    lab = Lab(duration=10)
    async with lab.open(max_tasks=2) as supervisor, create_task_group() as group:
        for _ in range(20):
            group.start_soon(supervisor.run, "m")
    assert 100 <= current_time() < 101


async def test_first_come_first_served() -> None:
    """Those who wait are served in their order."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        first = await supervisor.start("0")
        for number in range(1, 6):
            group.start_soon(supervisor.start, str(number))
            await wait_all_tasks_blocked()
        await first.cancel()
        for number in range(1, 6):
            while len(lab.fake.created) <= number:
                await lab.fake.until(lambda: lab.fake.live)
                await sleep(0)
            await wait_all_tasks_blocked()
            (task,) = supervisor.tasks.values()
            await task.cancel()
    assert [task.message for task in lab.fake.tasks.values()] == list("012345")


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    """Who is cancelled while it waits takes no place, and sends nothing."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        first = await supervisor.start("first")
        scopes = [CancelScope() for _ in range(3)]

        async def wait(scope: CancelScope) -> None:
            with scope:
                await supervisor.start("cancelled")

        for scope in scopes:
            group.start_soon(wait, scope)
        await wait_all_tasks_blocked()
        group.start_soon(supervisor.start, "last")
        await wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        await wait_all_tasks_blocked()
        assert lab.live == {"running": 1, "intent": 1}
        await first.cancel()
        await lab.fake.until(lambda: len(lab.fake.created) == 2)
    assert [task.message for task in lab.fake.tasks.values()] == ["first", "last"]


async def _cancel(task: RemoteTask, lab: Lab) -> None:
    await task.cancel()


async def _complete(task: RemoteTask, lab: Lab) -> None:
    lab.fake.complete(task.id)


async def _fail(task: RemoteTask, lab: Lab) -> None:
    lab.fake.fail(task.id)


async def _remote(task: RemoteTask, lab: Lab) -> None:
    lab.fake.cancel(task.id)


@pytest.mark.parametrize("end", [_cancel, _complete, _fail, _remote])
async def test_freed_by_every_end(end: Callable[[RemoteTask, Lab], Awaitable[None]]) -> None:
    """However a background task ends, its place is free."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor:
        await end(await supervisor.start("first"), lab)
        second = await supervisor.start("second")
        assert second.state is State.RUNNING


@pytest.mark.parametrize("on_exit", ["cancel", "detach"])
async def test_freed_by_a_block(on_exit: Literal["cancel", "detach"]) -> None:
    """However a block ends, its place is free; a detached task is not counted any more."""
    lab = Lab()
    async with lab.open(max_tasks=1, left=on_exit == "detach") as supervisor:
        async with supervisor.task("m", on_exit=on_exit):
            pass
        async with supervisor.task("m"):
            assert len(lab.fake.live) == (2 if on_exit == "detach" else 1)


async def test_freed_by_a_create_that_failed() -> None:
    """A refused create gives its place back."""
    lab = Lab()
    lab.fake.on("create", UNAUTHORISED, ConnectionFailed("refused", sent=False), FORBIDDEN)
    async with lab.open(max_tasks=1) as supervisor:
        for _ in range(3):
            with pytest.raises(SigmicGuardError):
                await supervisor.start("m")
        assert (await supervisor.start("m")).state is State.RUNNING


@virtual
async def test_a_doubtful_create_keeps_its_place() -> None:
    """A create whose answer was lost keeps its place until it is known not to exist."""
    lab = Lab()
    lab.fake.on("create", ConnectionFailed("reset", sent=True))
    async with lab.open(max_tasks=1, create_timeout=10) as supervisor:
        async with create_task_group() as group:

            async def start() -> None:
                with pytest.raises(ConnectionFailed):
                    await supervisor.start("lost")

            group.start_soon(start)
            await sleep(1)
            group.start_soon(supervisor.start, "second")
            await sleep(8)
            assert lab.fake.count("create") == 1
        assert lab.fake.count("create") == 2
        assert current_time() > 10


@virtual
async def test_an_unconfirmed_task_keeps_its_place() -> None:
    """A task that may still run counts; once it is proven to have ended, it does not."""
    lab = Lab()
    lab.fake.always("delete", FORBIDDEN)
    async with lab.open(max_tasks=1) as supervisor:
        first = await supervisor.start("m")
        assert (await first.cancel()).result == "unconfirmed"
        with pytest.raises(TaskTimedOut):
            await supervisor.start("m", timeout=5)
        assert lab.fake.count("create") == 1
        lab.fake.always("delete", None)
        first.request_cancel()
        second = await supervisor.start("m", timeout=5)
        assert second.state is State.RUNNING


@virtual
async def test_the_deadline_counts_while_it_waits() -> None:
    """A task that gets no place before its deadline times out, and nothing is sent."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor:
        await supervisor.start("first")
        with pytest.raises(TaskTimedOut) as caught:
            async with supervisor.task("second", timeout=60):
                raise AssertionError
        assert 60 <= current_time() < 60.1
        assert caught.value.task_id is None
        assert lab.finished == {("timed_out", "deadline"): 1}
    assert lab.fake.count("create") == 1


async def test_a_shutdown_ends_the_waiting() -> None:
    """Those who wait for a place when the shutdown comes are told so, and send nothing."""
    lab = Lab()

    async def wait(supervisor: Supervisor) -> None:
        with pytest.raises(SupervisorShutdown):
            async with supervisor.task("m"):
                raise AssertionError

    async def fill(supervisor: Supervisor, group: TaskGroup) -> None:
        await supervisor.start("first")
        for _ in range(5):
            group.start_soon(wait, supervisor)
        await wait_all_tasks_blocked()

    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        await fill(supervisor, group)
        report = await supervisor.shutdown()
    assert (report.cancelled, report.never_created) == (1, 5)
    assert lab.fake.count("create") == 1


async def test_an_adopted_task_takes_a_place() -> None:
    """An adopted task is taken on where there is no place, and others wait for it."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        first = await supervisor.start("first")
        adopted = await supervisor.adopt(lab.fake.add())
        group.start_soon(supervisor.start, "third")
        await first.cancel()
        await wait_all_tasks_blocked()
        assert lab.fake.count("create") == 1
        await adopted.cancel()
        await lab.fake.until(lambda: lab.fake.count("create") == 2)


@virtual
async def test_a_lost_answer_and_a_list_that_fails_for_a_while() -> None:
    """A found task gives its place back when it ends."""
    lab = Lab(duration=30)
    lab.fake.on("create", LOST)
    lab.fake.on("list", UNAVAILABLE, UNAVAILABLE)
    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        group.start_soon(supervisor.run, "first")
        group.start_soon(supervisor.run, "second")
    assert len(lab.fake.created) == 2
    assert lab.finished == {("completed", "none"): 2}


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_those_who_gave_up_waiting_for_a_place_are_forgotten() -> None:
    """A queue for places does not grow by those who were cancelled in it."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor:
        await supervisor.start("one")
        for _ in range(20):
            with move_on_after(1):
                await supervisor.start("two")
        assert supervisor._core is not None
        assert not supervisor._core.creator._capacity._waiting
