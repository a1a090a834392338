"""A claim that is hit by native cancellations, at each of its steps: never two, and none lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias

import pytest
from anyio import Event, create_task_group, fail_after, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from sigmic_guard import ConnectionFailed, Supervisor, SupervisorShutdown
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.lifecycle import Record
from tests.backends import ASYNCIO
from tests.supervisor.deaths import left_by_the_dead
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO)

MINE: Any = {"key": "k", "on_crash": "reattach"}
#: Turns of the event loop in which a claim certainly comes to its end.
STEPS: Final = 14
Tasks: TypeAlias = Collection["asyncio.Task[Any]"]


class Yielding(MemoryLedger):
    """Takes a moment, before and after it does something."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        await checkpoint()
        refusals = await super().commit(writes)
        await checkpoint()
        return refusals

    async def holder(self, namespace: str, key: str) -> Record | None:
        await checkpoint()
        return await super().holder(namespace, key)

    async def owner_alive(self, owner_id: str) -> bool:
        await checkpoint()
        return await super().owner_alive(owner_id)


async def ask(supervisor: Supervisor) -> str:
    return (await supervisor.start("m", **MINE)).id


async def ask_and_be_hit(supervisor: Supervisor, step: int, whom: str, others: Tasks) -> str | None:
    """Ask for the key; return what one got, if anything."""
    asking = asyncio.create_task(ask(supervisor), name="asking")
    for _ in range(step):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - set(others):
        if whom in {"all", task.get_name()}:
            task.cancel()
    try:
        return await asking
    except (ConnectionFailed, asyncio.CancelledError):
        return None


async def live_through(step: int, whom: str) -> str:
    """Have a claim hit; return what came of it."""
    lab, store, others = Lab(), MemoryStore(), asyncio.all_tasks()
    task_id = await left_by_the_dead(lab, store)
    try:
        async with lab.make(ledger=Yielding(store)) as supervisor:
            got = await ask_and_be_hit(supervisor, step, whom, others)
            assert got in {task_id, None}
            assert lab.fake.live <= {task_id}
            what = "nothing" if got is None else "the task"
    except SupervisorShutdown:
        what = "a shutdown"  # a worker was hit before its first step
    # Whoever asks next gets that task, or it was ended before another one is created.
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        next_id = await ask(supervisor)
        assert lab.fake.live == {next_id}
    assert lab.fake.count("create") == 1 + (next_id != task_id)
    assert not store.rows
    assert not store.keys
    return what


@pytest.mark.parametrize("whom", ["asking", "sigmic_guard create", "sigmic_guard claim", "all"])
async def test_a_claim_is_hit(whom: str) -> None:
    """Whoever is hit, the caller, the worker or everybody: one task at a time, and none is left."""
    with fail_after(50):
        ends = [await live_through(step, whom) for step in range(STEPS)]
    assert {"nothing", "the task"} <= set(ends), "the hits came too early, or too late"


class SlowToAnswer(MemoryLedger):
    """Does a take-over at once, and answers only when it may."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.taken = Event()
        self.answer = Event()

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        before = dict(self.store.rows)
        refusals = await super().commit(writes)
        if any(
            record.intent_id in before and before[record.intent_id].owner_id != record.owner_id
            for record, _ in writes
        ):
            self.taken.set()
            await self.answer.wait()
        return refusals


async def test_a_round_of_the_reaper_comes_in_the_middle_of_a_claim() -> None:
    """A take-over that is done and not told of yet is no orphan: the task goes on."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    ledger = SlowToAnswer(store)
    async with lab.open(ledger=ledger) as supervisor, create_task_group() as group:
        group.start_soon(ask, supervisor)
        with fail_after(20):
            await ledger.taken.wait()
            assert not (await supervisor.reap()).reaped
        ledger.answer.set()
        await wait_all_tasks_blocked()
        assert list(supervisor.tasks) == [task_id]
        assert lab.deletes() == 0
        lab.fake.complete(task_id)
