"""``key``: at most one live task of that name."""

from __future__ import annotations

import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from sigmic_guard import AuthenticationError, DuplicateKey, RemoteTask, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


def names(error: DuplicateKey, task: RemoteTask) -> None:
    """Fail unless the error says which task has the key, and whose that is."""
    assert (error.key, error.task_id, error.intent_id) == ("k", task.id, task.record.intent_id)
    assert error.owner_id == task.record.owner_id


async def test_a_second_task_is_refused() -> None:
    """A key that a live task holds is refused at once; nothing is sent or counted."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", key="k")
        with pytest.raises(DuplicateKey, match=f"of this process .*task {task.id}") as caught:
            await supervisor.start("m", key="k")
        names(caught.value, task)
        with pytest.raises(DuplicateKey):
            async with supervisor.task("m", key="k"):
                raise AssertionError
        with pytest.raises(DuplicateKey):
            await supervisor.adopt(task_id := lab.fake.add(), key="k")
        assert task_id not in supervisor.tasks
        await supervisor.start("m", key="other")
        assert lab.fake.count("create") == 2
        assert lab.live == {"running": 2}
        lab.fake.cancel(task_id)


async def test_free_after_the_end() -> None:
    """A key is free as soon as its task has ended, however it did."""
    lab = Lab()
    lab.fake.on("create", None, None, UNAUTHORISED)
    async with lab.open() as supervisor:
        async with supervisor.task("m", key="k") as task:
            lab.fake.complete(task.id)
            await task.result()
        first = await supervisor.start("m", key="k")
        await first.cancel()
        with pytest.raises(AuthenticationError):
            await supervisor.start("m", key="k")
        assert (await supervisor.start("m", key="k")).state is State.RUNNING


async def test_held_while_it_is_created_and_while_it_ends() -> None:
    """A key is held from the first instant until the end is known."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("create")
        group.start_soon(lambda: supervisor.start("m", key="k"))
        await gate.entered.wait()
        with pytest.raises(DuplicateKey):
            await supervisor.start("m", key="k")
        gate.open()
        await wait_all_tasks_blocked()
        (task,) = supervisor.tasks.values()
        lab.fake.on("delete", FORBIDDEN)
        assert (await task.cancel()).result == "unconfirmed"
        with pytest.raises(DuplicateKey):
            await supervisor.start("m", key="k")
        assert (await task.cancel()).result == "acknowledged"


async def test_the_ledger_knows_of_it() -> None:
    """A key held by an unfinished row of another process is refused, and nothing is sent."""
    lab, store = Lab(), MemoryStore()
    async with (
        lab.open(ledger=MemoryLedger(store)) as one,
        lab.make(ledger=MemoryLedger(store)) as two,
    ):
        held = await one.start("m", key="k")
        with pytest.raises(DuplicateKey, match=f"another process .*task {held.id}") as caught:
            await two.start("m", key="k")
        names(caught.value, held)
        assert not two.snapshot()
        await held.cancel()
        await held._core.outbox.flush()
        assert (await two.start("m", key="k")).state is State.RUNNING
    assert lab.fake.count("create") == 2


async def test_another_namespace() -> None:
    """Keys of different namespaces do not meet."""
    lab, store = Lab(), MemoryStore()
    async with (
        lab.open(ledger=MemoryLedger(store), namespace="a") as one,
        lab.make(ledger=MemoryLedger(store), namespace="b") as two,
    ):
        await one.start("m", key="k")
        assert (await two.start("m", key="k")).state is State.RUNNING
