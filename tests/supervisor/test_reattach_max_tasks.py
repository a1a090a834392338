"""``max_tasks`` and claims: they take places, in order, and nobody waits for what cannot come."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from anyio import create_task_group, current_time, fail_after, sleep, wait_all_tasks_blocked

from sigmic_guard import State, Supervisor
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process, reaped
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

KEYS = tuple("abcde")


async def left_by_one(lab: Lab, store: MemoryStore, **options: Any) -> dict[str, str]:
    """Have one process die with a task for each key; return their ids."""
    async with Process(lab, store) as dead:
        tasks = {key: await dead.supervisor.start("m", key=key, **options) for key in KEYS}
        await dead.die()
    return {key: task.id for key, task in tasks.items()}


async def run_all(supervisor: Supervisor, **options: Any) -> dict[str, str]:
    """Ask for all keys at once; return the ids of the tasks that came to their end."""
    ids: dict[str, str] = {}

    async def run(key: str) -> None:
        result = await supervisor.run("m", key=key, **options)
        assert result.id is not None
        ids[key] = result.id

    with fail_after(3000):
        async with create_task_group() as group:
            for key in KEYS:
                group.start_soon(run, key)
    return ids


@virtual
@pytest.mark.parametrize("places", [1, 2, 5])
async def test_a_claim_waits_for_no_place(places: int) -> None:
    """A task that runs already is claimed at once, lest it be reaped; new ones wait for its end."""
    lab, store = Lab(), MemoryStore()
    left = await left_by_one(lab, store, on_crash="reattach", reattach_within=60)
    async with (
        lab.open(ledger=MemoryLedger(store), max_tasks=places) as supervisor,
        create_task_group() as group,
    ):

        async def complete_them() -> None:
            await sleep(600)
            assert set(supervisor.tasks) == set(left.values())
            group.start_soon(lambda: supervisor.run("new"))
            for number, task_id in enumerate(left.values(), 1):
                await wait_all_tasks_blocked()
                is_free = len(KEYS) - number + 1 < places
                assert lab.fake.count("create") == len(KEYS) + is_free
                lab.fake.complete(task_id)
                await sleep(10)
            assert lab.fake.count("create") == len(KEYS) + 1
            lab.fake.complete(lab.fake.created[-1])

        group.start_soon(complete_them)
        assert await run_all(supervisor, on_crash="reattach") == left
    assert reaped(lab) == {"reattached": len(KEYS)}


@virtual
async def test_what_is_reaped_first_takes_no_place() -> None:
    """Creates that wait for dead tasks' ends get there, though each of them holds the one place."""
    lab, store = Lab(), MemoryStore()
    left = await left_by_one(lab, store, on_crash="cancel")
    lab.fake.script("m", duration=10)
    async with lab.open(ledger=MemoryLedger(store), max_tasks=1) as supervisor:
        ids = await run_all(supervisor)
    assert not set(ids.values()) & set(left.values())
    assert lab.fake.count("create") == 2 * len(KEYS)
    assert reaped(lab) == {"cancelled": len(KEYS)}
    new = [lab.fake.tasks[task_id] for task_id in ids.values()]
    new.sort(key=lambda task: task.created_at)
    for one, two in pairwise(new):
        assert one.completed_at is not None
        assert two.created_at >= one.completed_at


@virtual
async def test_a_claim_frees_its_place() -> None:
    """When a claimed task has ended the next create gets its place, and the key is free."""
    lab, store = Lab(), MemoryStore()
    left = await left_by_one(lab, store, on_crash="reattach", reattach_within=3000)
    async with lab.open(ledger=MemoryLedger(store), max_tasks=1) as supervisor:
        task = await supervisor.start("m", key="a", on_crash="reattach")
        assert task.id == left["a"]
        async with create_task_group() as group:
            group.start_soon(lambda: supervisor.start("waits"))
            await wait_all_tasks_blocked()
            assert lab.fake.count("create") == len(KEYS)
            began = current_time()
            await task.cancel()
        assert current_time() - began < 1
        [other] = supervisor.tasks.values()
        await other.cancel()
        again = await supervisor.start("m", key="a", on_crash="reattach")
        assert (again.state, again.id == task.id) == (State.RUNNING, False)
        for task_id in left.values():
            lab.fake.cancel(task_id)
