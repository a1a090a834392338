"""Adopting tasks that something else created, the view of live tasks, and the snapshot."""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping
from time import perf_counter
from typing import Any, cast

import pytest
from anyio import CancelScope, create_task_group, current_time, sleep

from sigmic_guard import (
    ConfigurationError,
    ConnectionFailed,
    Outcome,
    RemoteTask,
    State,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskRow,
)
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


@virtual
async def test_adopted() -> None:
    """An adopted task is supervised as if start() had made it."""
    lab = Lab()
    one, two, three = lab.fake.add(), lab.fake.add(), lab.fake.add()
    async with lab.open() as supervisor:
        timed = await supervisor.adopt(one, timeout=60)
        done = await supervisor.adopt(two)
        assert (timed.id, timed.state, timed.deadline) == (one, State.RUNNING, 60)
        lab.fake.complete(two, "two")
        assert (await done.result()).final_response == "two"
        await supervisor.adopt(three)
        assert (await timed.wait()).outcome is Outcome.TIMED_OUT
    assert lab.fake.count("create") == 0
    assert lab.deletes() == 2
    assert lab.finished == {
        ("completed", "none"): 1,
        ("timed_out", "deadline"): 1,
        ("cancelled", "shutdown"): 1,
    }


async def test_not_there() -> None:
    """A task that the API does not know is not adopted, nor counted."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskNotFound):
            await supervisor.adopt("nobody")
        for naughty in ("", ".", ".."):
            with pytest.raises(ConfigurationError):
                await supervisor.adopt(naughty)
        assert not supervisor.snapshot()
    assert lab.finished == {}


async def test_supervised_already() -> None:
    """A task that is supervised already is not adopted again, not even by two at once."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        task = await supervisor.start("m")
        with pytest.raises(ConfigurationError, match="supervised already"):
            await supervisor.adopt(task.id)
        theirs = lab.fake.add()
        gate = lab.fake.gate("get")
        adopted: list[RemoteTask] = []
        refused: list[ConfigurationError] = []

        async def adopt() -> None:
            try:
                adopted.append(await supervisor.adopt(theirs))
            except ConfigurationError as error:
                refused.append(error)

        group.start_soon(adopt)
        group.start_soon(adopt)
        await lab.fake.until(lambda: lab.fake.in_flight("get") == 2)
        gate.open()
        await lab.fake.until(lambda: not lab.fake.in_flight("get"))
        while len(adopted) + len(refused) < 2:
            await sleep(0)
        assert (len(adopted), len(refused)) == (1, 1)


async def test_ended_ones() -> None:
    """A task that had failed or been cancelled is adopted as what it is."""
    lab = Lab()
    failed, cancelled, completed = lab.fake.add(), lab.fake.add(), lab.fake.add()
    lab.fake.fail(failed, "no luck")
    lab.fake.cancel(cancelled)
    lab.fake.complete(completed, "42")
    async with lab.open() as supervisor:
        with pytest.raises(TaskFailed, match="no luck"):
            await (await supervisor.adopt(failed)).result()
        with pytest.raises(TaskCancelled):
            await (await supervisor.adopt(cancelled)).result()
        task = await supervisor.adopt(completed)
        assert (await task.result()).final_response == "42"
    assert lab.deletes() == 0
    assert lab.finished == {
        ("failed", "none"): 1,
        ("cancelled", "remote"): 1,
        ("completed", "none"): 1,
    }


async def test_asked_again() -> None:
    """A completed task is adopted, asked again, and supervised until it completes once more."""
    lab = Lab()
    task_id = lab.fake.add()
    lab.fake.complete(task_id, "one")
    async with lab.open() as supervisor:
        task = await supervisor.adopt(task_id)
        assert (await task.result()).final_response == "one"
        await task.send("again")
        assert task.state is State.RUNNING
        lab.fake.complete(task_id, "two")
        assert (await task.result()).final_response == "two"
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 1}


async def test_asked_again_and_left() -> None:
    """A follow-up of an adopted task that still runs at the end is deleted."""
    lab = Lab()
    task_id = lab.fake.add()
    lab.fake.complete(task_id)
    async with lab.open() as supervisor:
        await (await supervisor.adopt(task_id)).send("again")
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_a_caller_who_leaves() -> None:
    """Until adopt() returns the task is not ours: cancelling it leaves the task as it was."""
    lab = Lab()
    task_id = lab.fake.add()
    async with lab.open(left=1) as supervisor, create_task_group() as group:
        gate = lab.fake.gate("get")
        scope = CancelScope()

        async def adopt() -> None:
            with scope:
                await supervisor.adopt(task_id)

        group.start_soon(adopt)
        await gate.entered.wait()
        scope.cancel()
    assert lab.deletes() == 0


@virtual
async def test_no_answer() -> None:
    """Where the API does not answer, adopt() raises after its time-out."""
    lab = Lab()
    task_id = lab.fake.add()
    lab.fake.on("get", HANG)
    async with lab.open(left=1) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.adopt(task_id)
        assert current_time() <= 60


async def test_the_view_of_live_tasks() -> None:
    """``supervisor.tasks`` follows the tasks by id, and cannot be written to."""
    lab = Lab()
    supervisor = lab.make()
    assert dict(supervisor.tasks) == {}
    async with supervisor:
        view = supervisor.tasks
        async with supervisor.task("m") as task:
            assert view == {task.id: task}
            with pytest.raises(TypeError):
                cast("MutableMapping[str, RemoteTask]", view)["x"] = task
        assert view == {}
    assert view == {}


@virtual
async def test_the_snapshot_s_rows() -> None:
    """A snapshot has a row per live task: id, state, reason, age, deadline, attempts."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        task = await supervisor.start("m", timeout=60)
        group.start_soon(supervisor.start, "waits")
        await sleep(10)
        first, second = supervisor.snapshot()
        assert (first.id, first.state, first.reason) == (task.id, "running", None)
        assert (first.age, first.deadline, first.attempts) == pytest.approx((10, 50, 0))
        assert (second.id, second.state, second.deadline) == (None, "intent", None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            cast("Any", first).age = 0
        await task.cancel()


@virtual
async def test_a_task_is_found_before_it_has_an_id() -> None:
    """By the intent id of its row, as long as it lives; and it can be cancelled."""
    lab = Lab()
    supervisor = lab.make()
    assert supervisor.find("intent") is None
    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        task = await supervisor.start("m")

        async def waits() -> None:
            with pytest.raises(TaskCancelled):
                await supervisor.start("waits")

        group.start_soon(waits)
        await sleep(1)
        first, second = supervisor.snapshot()
        assert supervisor.find(first.intent_id) is task
        assert task.record.intent_id == first.intent_id
        waiting = supervisor.find(second.intent_id)
        assert waiting is not None
        await waiting.cancel()
        assert supervisor.find(second.intent_id) is None
        assert supervisor.find("none") is None
    assert lab.fake.count("create") == 1


async def test_the_snapshot_stays() -> None:
    """A snapshot is of its instant: what happens later does not change it."""
    lab = Lab()
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            before = supervisor.snapshot()
        assert len(supervisor.snapshot()) == 0
        assert [row.state for row in before] == list(before.states()) == ["running"]
        assert before[0].id == before[-1].id == before[:1][0].id == task.id
    assert len(supervisor.snapshot()) == 0


@virtual
@pytest.mark.slow
@pytest.mark.alone
async def test_a_snapshot_of_twenty_thousand() -> None:
    """20,000 tasks are in a snapshot, which is taken in a few milliseconds."""
    lab = Lab()
    lab.fake.always("list", HANG)
    async with lab.open() as supervisor:
        async with create_task_group() as group:
            for _ in range(20_000):
                group.start_soon(supervisor.start, "m")
        began = perf_counter()
        snapshot = supervisor.snapshot()
        assert perf_counter() - began < 0.05
        assert len(snapshot) == 20_000
        assert isinstance(snapshot[19_999], TaskRow)
        assert len({row.id for row in snapshot}) == 20_000
    assert lab.finished == {("cancelled", "shutdown"): 20_000}
