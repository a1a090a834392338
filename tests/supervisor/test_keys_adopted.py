"""``adopt(key=…)``: the key is ours before the task is, and a task is not ours without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, fail_after, sleep, wait_all_tasks_blocked

from sigmic_guard import (
    ConfigurationError,
    DuplicateKey,
    LedgerError,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskTimedOut,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.testing.fake_faults import Gate
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process
from tests.supervisor.lab import Lab
from tests.supervisor.ledgers import FailingLedger, HangingLedger

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


class Slow(MemoryLedger):
    """Holds each new row that has a key until it is told to go on."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.gate = Gate()

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        if any(not write.expected and write.record.key for write in writes):
            await self.gate.hold()
        return await super().commit(writes)


async def _flush(supervisor: Supervisor) -> None:
    assert supervisor._core is not None
    await supervisor._core.outbox.flush()


async def test_it_is_held_like_any_other() -> None:
    """An adopted task holds its key until it ends, here and for other processes."""
    lab, store = Lab(), MemoryStore()
    async with (
        lab.open(ledger=MemoryLedger(store)) as one,
        lab.make(ledger=MemoryLedger(store)) as two,
    ):
        task = await one.adopt(lab.fake.add(), key="k")
        await _flush(one)
        assert store.rows[store.keys["default", "k"]].remote_id == task.id
        for supervisor in (one, two):
            with pytest.raises(DuplicateKey):
                await supervisor.start("m", key="k")
        await task.cancel()
        assert (await one.start("m", key="k")).state is State.RUNNING
    assert not store.rows


async def test_of_a_completed_task() -> None:
    """A completed task holds its key as long as it can be asked again."""
    lab, store = Lab(), MemoryStore()
    task_id = lab.fake.add()
    lab.fake.complete(task_id, "42")
    lab.fake.script("and now?", duration=0.01, answer="43")
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.adopt(task_id, key="k")
        assert task.state is State.COMPLETED
        with pytest.raises(DuplicateKey):
            await supervisor.start("m", key="k")
        await task.send("and now?")
        assert (await task.result()).final_response == "43"
        assert (await supervisor.start("m", key="k")).id != task_id
    assert not store.keys


@pytest.mark.parametrize("opened", [True, False])
async def test_the_caller_leaves(opened: bool) -> None:
    """A caller who is cancelled meanwhile leaves the task as it was, and the key free."""
    lab, store = Lab(), MemoryStore()
    ledger, task_id = Slow(store), lab.fake.add()
    async with lab.open(ledger=ledger, left=1) as supervisor:
        async with create_task_group() as group:
            scope = CancelScope()

            async def adopt() -> None:
                with scope:
                    await supervisor.adopt(task_id, key="k")

            group.start_soon(adopt)
            await ledger.gate.entered.wait()
            if opened:
                ledger.gate.open()
            scope.cancel()
        ledger.gate.open()
        await supervisor.reap()
        await _flush(supervisor)
        assert not supervisor.snapshot()
        assert not store.keys
    assert lab.deletes() == 0


async def test_the_ledger_fails() -> None:
    """Where the key cannot be written the task is not adopted; later it can be."""
    lab = Lab()
    ledger = FailingLedger(lambda writes: any(not write.expected for write in writes))
    task_id = lab.fake.add()
    async with lab.open(ledger=ledger) as supervisor:
        with pytest.raises(LedgerError):
            await supervisor.adopt(task_id, key="k")
        assert not supervisor.snapshot()
        assert task_id not in supervisor.tasks
        ledger.wrong = lambda writes: False
        assert (await supervisor.adopt(task_id, key="k")).id == task_id
    assert lab.deletes() == 1


async def test_two_adopt_the_same_task() -> None:
    """Of two callers who adopt one task by different keys the second is refused."""
    lab, store = Lab(), MemoryStore()
    ledger, task_id = Slow(store), lab.fake.add()
    came: list[str] = []
    async with lab.open(ledger=ledger) as supervisor:

        async def adopt(key: str) -> None:
            try:
                await supervisor.adopt(task_id, key=key)
            except ConfigurationError:
                came.append("refused")
            else:
                came.append("adopted")

        with fail_after(30):
            async with create_task_group() as group:
                group.start_soon(adopt, "k")
                group.start_soon(adopt, "l")
                await ledger.gate.entered.wait()
                await wait_all_tasks_blocked()
                ledger.gate.open()
        assert sorted(came) == ["adopted", "refused"]
        assert len(supervisor.snapshot()) == 1
        await _flush(supervisor)
        assert len(store.keys) == 1


async def _shut_down(supervisor: Supervisor) -> None:
    supervisor.request_shutdown()


@virtual
@pytest.mark.parametrize(
    "options, then, error",
    [
        ({"timeout": 5}, lambda _: sleep(10), TaskTimedOut),
        ({}, _shut_down, SupervisorShutdown),
    ],
    ids=["deadline", "shutdown"],
)
async def test_it_is_withdrawn(
    options: Any, then: Callable[[Supervisor], Any], error: type[Exception]
) -> None:
    """A deadline or a shutdown that comes before the key is ours leaves the task as it was."""
    lab, store = Lab(), MemoryStore()
    ledger, task_id = Slow(store), lab.fake.add()
    async with lab.open(ledger=ledger, left=1) as supervisor, create_task_group() as group:

        async def adopt() -> None:
            with pytest.raises(error):
                await supervisor.adopt(task_id, key="k", **options)

        group.start_soon(adopt)
        await ledger.gate.entered.wait()
        await then(supervisor)
        await wait_all_tasks_blocked()
        ledger.gate.open()
    assert lab.deletes() == 0
    assert not store.rows


async def test_its_owner_dies_before_the_task_is_his() -> None:
    """Who dies between the key and the task leaves the task to those whose it was."""
    lab, store = Lab(), MemoryStore()
    task_id = lab.fake.add()
    async with Process(lab, store) as dead, create_task_group() as group:

        async def adopt() -> None:
            await dead.supervisor.adopt(task_id, key="k")

        dead.supervisor._core.outbox.commit = _for_ever(dead)  # type: ignore[union-attr, method-assign]
        group.start_soon(adopt)
        await wait_all_tasks_blocked()
        await dead.die()
        group.cancel_scope.cancel()
    [row] = store.rows.values()
    assert (row.state, row.remote_id) == (State.INTENT, None)
    async with lab.open(ledger=MemoryLedger(store), left=1, create_timeout=0.05) as supervisor:
        with fail_after(30):
            await supervisor.reap()
        assert not store.keys
    assert lab.deletes() == 0


def _for_ever(dead: Process) -> Any:
    """Write the row, and never come back."""

    async def commit(record: Any, *, timeout: float) -> None:
        await dead.ledger.commit([Write(record, 0)])
        await sleep(3600)

    return commit


@virtual
async def test_a_ledger_that_hangs_hangs_nobody() -> None:
    """adopt(key=…) gives up after the create's time-out; the task is as it was, the key is free."""
    lab, ledger = Lab(), HangingLedger()
    async with lab.open(left=1, ledger=ledger, create_timeout=5, grace=1) as supervisor:
        ledger.hang = True
        with fail_after(6), pytest.raises(LedgerError, match="did not answer within 5 s"):
            await supervisor.adopt(lab.fake.add(), key="k")
        with fail_after(6), pytest.raises(LedgerError):  # and no DuplicateKey
            await supervisor.start("m", key="k")
    assert (lab.deletes(), lab.fake.count("create")) == (0, 0)
