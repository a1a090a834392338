"""Background tasks, watched by the list: how their ends are learnt, and at what cost."""

from __future__ import annotations

import pytest
from anyio import create_task_group, current_time, sleep

from sigmic_guard import Outcome, State, TaskFailed, TaskNotFound
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAUTHORISED, UNAVAILABLE, Lab

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
GONE = TaskNotFound("no such task", code="NOT_FOUND", status=404)


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_it_completes() -> None:
    """A background task's completion, and its answer, are learnt from the list and one GET."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert (task.state, task.outcome) == (State.RUNNING, None)
        assert supervisor.tasks == {task.id: task}
        lab.fake.complete(task.id, "42")
        result = await task.result()
        assert (result.outcome, result.final_response) == ("completed", "42")
        assert not supervisor.tasks
    assert lab.fake.count("get") == 1
    assert lab.fake.count("stream") == lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 1}


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_it_fails() -> None:
    """A background task's failure is learnt, with the API's error."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.fake.fail(task.id, "no luck")
        with pytest.raises(TaskFailed, match="no luck"):
            await task.result()
    assert lab.finished == {("failed", "none"): 1}


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_it_is_cancelled_remotely() -> None:
    """A background task that somebody else cancelled is known as such."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.fake.cancel(task.id)
        result = await task.wait()
    assert (result.outcome, result.reason) == ("cancelled", "remote")
    assert lab.deletes() == 0
    assert lab.finished == {("cancelled", "remote"): 1}


async def test_it_is_learnt_soon() -> None:
    """Whenever it ends, within hours of silence too, it is known within seconds."""
    lab = Lab(duration=2 * 3600)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await task.wait()
        assert 7200 <= current_time() < 7203


async def test_it_disappears() -> None:
    """A task that GET does not find any more is deleted, lest it costs money unseen."""
    lab = Lab()
    async with lab.open(left=1) as supervisor:
        task = await supervisor.start("m")
        lab.fake.always("get", GONE)
        lab.fake.always("delete", GONE)
        lab.hide(task.id)
        result = await task.wait()
        assert 60 < current_time() < 70, "unseen for a minute"
    assert (result.outcome, result.reason) == ("cancelled", "remote")
    assert result.cancellation is not None
    assert result.cancellation.result == "not_found"
    assert lab.deletes() == 1


async def test_unseen_for_long() -> None:
    """A task that no list shows is looked at with GET within the minute, and again after it."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.hide(task.id)
        await sleep(600)
        assert 8 <= lab.fake.count("get", task.id) <= 10
        lab.fake.complete(task.id, "unseen")
        lab.hide(task.id)
        assert (await task.result()).final_response == "unseen"
        assert current_time() < 670


@pytest.mark.parametrize("fault", [UNAVAILABLE, UNAUTHORISED, HANG], ids=["503", "401", "hang"])
async def test_the_list_fails_for_a_while(fault: Exception) -> None:
    """While the list fails tasks go on; what ended meanwhile is learnt afterwards."""
    lab = Lab()
    async with lab.open() as supervisor:
        task, other = await supervisor.start("m"), await supervisor.start("m")
        lab.fake.always("list", fault)
        lab.fake.complete(task.id, "42")
        await sleep(20)
        assert task.state is State.RUNNING
        assert lab.fake.count("list") <= 20, "with backoff"
        lab.fake.always("list", None)
        assert (await task.result()).final_response == "42"
        assert current_time() < 45
        assert other.state is State.RUNNING


async def test_the_look_fails_for_a_while() -> None:
    """A completion seen in the list is looked at until the GET succeeds."""
    lab = Lab()
    lab.fake.on("get", UNAVAILABLE, HANG, UNAUTHORISED)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.fake.complete(task.id, "42")
        assert (await task.result()).final_response == "42"


@pytest.mark.parametrize("number", [0, 1, 500])
async def test_the_cost_of_idling(number: int) -> None:
    """An hour with nothing to tell costs a list call in two seconds, whatever the number."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with create_task_group() as group:
            for _ in range(number):
                group.start_soon(supervisor.start, "m")
        await sleep(60)
        lists = lab.fake.count("list")
        await sleep(600)
        assert lab.fake.count("list") - lists <= (330 if number else 0)
        if number == 1:
            assert lab.fake.count("get") == 0


async def test_nothing_to_watch_costs_nothing() -> None:
    """When the last background task has ended nothing is asked any more."""
    lab = Lab(duration=10)
    async with lab.open() as supervisor:
        await (await supervisor.start("m")).wait()
        calls = len(lab.fake.requests)
        await sleep(3600)
        assert len(lab.fake.requests) - calls <= 1


async def test_many_change_on_many_pages() -> None:
    """Changes further down than the first page are found."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        tasks = []

        async def start() -> None:
            tasks.append(await supervisor.start("m"))

        for _ in range(350):
            group.start_soon(start)
        await lab.fake.until(lambda: len(lab.fake.live) == 350)
        await sleep(10)
        for task in tasks:
            lab.fake.complete(task.id)
        began = current_time()
        for task in tasks:
            assert (await task.wait()).outcome is Outcome.COMPLETED
        assert current_time() - began < 5
    assert lab.fake.count("get") == 350
    assert lab.finished == {("completed", "none"): 350}


async def test_other_people_s_tasks_are_left_alone() -> None:
    """Tasks that the list shows and that are not ours are neither looked at nor ended."""
    lab = Lab()
    theirs = lab.fake.add()
    async with lab.open(left=1) as supervisor:
        task = await supervisor.start("m")
        await sleep(10)
        lab.fake.complete(task.id)
        await task.wait()
    assert lab.fake.live == {theirs}
    assert {call.task_id for call in lab.fake.requests} == {None, task.id}


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_refresh() -> None:
    """refresh() reads the task, takes in what it says, and returns it."""
    lab = Lab()
    lab.fake.always("list", HANG)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert (await task.refresh()).status == "running"
        lab.fake.complete(task.id, "42")
        info = await task.refresh()
        assert (info.status, info.output and info.output.content) == ("completed", "42")
        assert (await task.result()).final_response == "42"
        assert (await task.refresh()).status == "completed"
    assert lab.finished == {("completed", "none"): 1}


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
@pytest.mark.parametrize("fault", [GONE, UNAVAILABLE, UNAUTHORISED], ids=["404", "503", "401"])
async def test_refresh_fails(fault: Exception) -> None:
    """A refresh that fails raises, and changes nothing."""
    lab = Lab()
    lab.fake.on("get", fault)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        before = task._entry.record
        with pytest.raises(type(fault)):
            await task.refresh()
        assert task._entry.record is before
