"""After a crash a key leads back to the task that it stands for: nothing is paid for twice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import fail_after, sleep

from sigmic_guard import (
    CancelReason,
    Outcome,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskCancelled,
    TaskFailed,
    TaskTimedOut,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process, left_by_the_dead, reaped
from tests.supervisor.lab import Lab
from tests.supervisor.streams import WHOLE, read, scripted, text

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

MINE: Any = {"key": "k", "on_crash": "reattach"}


@asynccontextmanager
async def reborn(
    lab: Lab, store: MemoryStore, *, left: int = 0, posts: int = 1, **options: Any
) -> AsyncIterator[Supervisor]:
    """The process that comes after the dead one; in all, ``posts`` creates were sent."""
    with fail_after(5000):  # virtual seconds; real ones are pytest-timeout's
        async with lab.open(left=left, ledger=MemoryLedger(store), **options) as supervisor:
            yield supervisor
    assert lab.fake.count("create") == posts


# --- it still runs --------------------------------------------------------------------------------


async def test_a_background_task() -> None:
    """``start`` returns the handle of the task that runs already, and ``wait`` its result."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    async with reborn(lab, store) as supervisor:
        task = await supervisor.start("m", **MINE)
        assert (task.id, task.state) == (task_id, State.RUNNING)
        assert supervisor.tasks[task_id] is task
        lab.fake.complete(task_id, "42")
        result = await task.wait()
        assert (result.outcome, result.final_response) == (Outcome.COMPLETED, "42")
    assert reaped(lab) == {"reattached": 1}
    assert lab.finished == {("completed", "none"): 1}
    assert not store.rows
    assert not store.keys


async def test_one_call() -> None:
    """``run`` returns the result of the task that runs already."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    lab.fake.on("stream", lambda _: lab.fake.complete(task_id, "42") and None)
    async with reborn(lab, store) as supervisor:
        result = await supervisor.run("m", **MINE)
    assert (result.id, result.final_response) == (task_id, "42")
    assert not store.keys


@virtual
async def test_its_events() -> None:
    """A block replays the whole history, what was said before the crash included, and goes on."""
    lab, store = scripted(80), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    await sleep(35)
    said = lab.fake.tasks[task_id].content
    assert said
    assert said != WHOLE
    async with reborn(lab, store) as supervisor:
        async with supervisor.task("m", **MINE) as task:
            events = await read(task)
            result = await task.result()
        assert (task.id, result.final_response) == (task_id, WHOLE)
        assert text(events) == WHOLE
        assert [event.type for event in events][:2] == ["history_message", "history_done"]
        assert events[-1].type == "done"
        assert not any(event.replayed for event in events)


# --- it ended while nobody watched ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_it_had_completed(how: str) -> None:
    """A task that completed meanwhile is not created again: its result is delivered."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    lab.fake.complete(task_id, "42")
    async with reborn(lab, store) as supervisor:
        match how:
            case "task":
                async with supervisor.task("m", **MINE) as task:
                    events = await read(task)
                    result = await task.result()
                assert text(events) == "42"
            case "start":
                result = await (await supervisor.start("m", **MINE)).result()
            case _:
                result = await supervisor.run("m", **MINE)
        assert (result.id, result.outcome) == (task_id, Outcome.COMPLETED)
        assert result.final_response == "42"
    assert not store.keys
    assert lab.deletes() == 0


async def test_its_owner_had_seen_it_complete() -> None:
    """A block that died with its task's result in hand: who comes after gets the result again."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        with pytest.raises(SupervisorShutdown):
            async with dead.supervisor.task("m", **MINE) as task:
                lab.fake.complete(task.id, "42")
                await task.result()
                await dead.die()
                dead.supervisor.request_shutdown()
                await sleep(3600)
    assert [row.state for row in store.rows.values()] == [State.COMPLETED]
    async with reborn(lab, store) as supervisor:
        result = await supervisor.run("m", **MINE)
    assert (result.id, result.final_response) == (task.id, "42")


@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_it_had_failed(how: str) -> None:
    """A task that failed meanwhile is not created again: its failure is delivered."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    lab.fake.fail(task_id, "out of ideas")
    async with reborn(lab, store) as supervisor:
        with pytest.raises(TaskFailed, match="out of ideas") as caught:
            match how:
                case "task":
                    async with supervisor.task("m", **MINE) as task:
                        await task.result()
                case "start":
                    await (await supervisor.start("m", **MINE)).result()
                case _:
                    await supervisor.run("m", **MINE)
        assert caught.value.task_id == task_id
    assert lab.finished == {("failed", "none"): 1}
    assert lab.deletes() == 0


@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_somebody_else_had_cancelled_it(how: str) -> None:
    """A task that was cancelled meanwhile is not created again: that is what its caller is told."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    lab.fake.cancel(task_id)
    async with reborn(lab, store) as supervisor:
        with pytest.raises(TaskCancelled) as caught:
            match how:
                case "task":
                    async with supervisor.task("m", **MINE):
                        await sleep(3600)
                case "start":
                    await (await supervisor.start("m", **MINE)).result()
                case _:
                    await supervisor.run("m", **MINE)
        assert (caught.value.task_id, caught.value.reason) == (task_id, CancelReason.REMOTE)
    assert lab.finished == {("cancelled", "remote"): 1}


async def test_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that the API does not know any more was cancelled by somebody else."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    del lab.fake._world.model.tasks[task_id]
    lab.fake._world.model.live.clear()
    real = time.time
    async with reborn(lab, store) as supervisor:
        monkeypatch.setattr(time, "time", lambda: real() + 60)  # it is no longer brand-new
        with pytest.raises(TaskCancelled) as caught:
            await (await supervisor.start("m", **MINE)).result()
        assert caught.value.reason is CancelReason.REMOTE


# --- on the terms of who asks ---------------------------------------------------------------------


@virtual
async def test_the_deadline_is_the_new_one() -> None:
    """The new caller's time-out counts, from when he asked; the old one is forgotten."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, timeout=1000)
    await sleep(50)
    async with reborn(lab, store) as supervisor:
        with pytest.raises(TaskTimedOut):
            async with supervisor.task("m", timeout=100, **MINE) as task:
                [row] = supervisor.snapshot()
                assert row.deadline == pytest.approx(100, abs=1)
                await sleep(1000)
    assert lab.deletes(task_id) == 1
    assert task.reason is CancelReason.DEADLINE


@virtual
async def test_no_deadline_is_a_new_one_too() -> None:
    """A caller without a time-out gets a task without a deadline."""
    lab, store = Lab(), MemoryStore()
    await left_by_the_dead(lab, store, timeout=100)
    async with reborn(lab, store) as supervisor:
        task = await supervisor.start("m", **MINE)
        await sleep(1000)
        assert (task.state, task.deadline) == (State.RUNNING, None)


@pytest.mark.parametrize("on_exit, live", [("cancel", 0), ("detach", 1)])
async def test_on_exit_is_the_new_callers(on_exit: Any, live: int) -> None:
    """When the new caller's block ends, his ``on_exit`` decides."""
    lab, store = Lab(), MemoryStore()
    other = "detach" if on_exit == "cancel" else "cancel"
    await left_by_the_dead(lab, store, on_exit=other)
    async with reborn(lab, store, left=live) as supervisor:
        async with supervisor.task("m", on_exit=on_exit, **MINE):
            pass
        assert len(lab.fake.live) == live
    assert not store.keys


@pytest.mark.parametrize("on_shutdown, live", [("cancel", 0), ("detach", 1)])
async def test_on_shutdown_is_the_new_callers(on_shutdown: Any, live: int) -> None:
    """A graceful shutdown does with the task what the new caller said, and leaves no key behind."""
    lab, store = Lab(), MemoryStore()
    other = "detach" if on_shutdown == "cancel" else "cancel"
    await left_by_the_dead(lab, store, on_shutdown=other)
    async with reborn(lab, store, left=live) as supervisor:
        await supervisor.start("m", on_shutdown=on_shutdown, **MINE)
    assert not store.rows
    assert not store.keys


async def test_on_crash_is_the_new_callers() -> None:
    """A task that was claimed to be cancelled at the next crash is."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    assert await left_by_the_dead(lab, store, on_crash="cancel") == task_id
    async with reborn(lab, store) as supervisor:
        [row] = (await supervisor.reap()).reaped
        assert (row.id, row.result) == (task_id, "cancelled")


async def test_again_and_again() -> None:
    """Through any number of crashes it is the same task."""
    lab, store = Lab(), MemoryStore()
    task_ids = {await left_by_the_dead(lab, store) for _ in range(5)}
    async with reborn(lab, store) as supervisor:
        task = await supervisor.start("m", **MINE)
        assert {task.id} == task_ids
        assert (await task.cancel()).result == "acknowledged"


async def test_a_follow_up() -> None:
    """A task that was claimed takes messages like any other."""
    lab, store = Lab(), MemoryStore()
    lab.fake.script("and now?", duration=0.01, answer="43")
    task_id = await left_by_the_dead(lab, store)
    lab.fake.complete(task_id, "42")
    async with (
        reborn(lab, store) as supervisor,
        supervisor.task("m", **MINE) as task,
    ):
        assert (await task.result()).final_response == "42"
        await task.send("and now?")
        assert (await task.result()).final_response == "43"
        assert task.id == task_id
