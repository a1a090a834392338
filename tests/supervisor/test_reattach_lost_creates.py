"""A key whose task has no name: its owner died around the POST. It is sent once, if at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, fail_after, sleep, wait_all_tasks_blocked

from sigmic_guard import (
    CancelReason,
    ConnectionFailed,
    DuplicateKey,
    LedgerError,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskTimedOut,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.ground.marking import MARKER
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process, reaped
from tests.supervisor.lab import Lab
from tests.supervisor.ledgers import FailingLedger

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

MINE: Any = {"key": "k", "on_crash": "reattach"}
QUICK: Any = {"create_timeout": 0.05}


async def died_creating(lab: Lab, store: MemoryStore, *, effect: bool, **options: Any) -> None:
    """Have a process die just before its POST has an effect, or just after."""
    async with Process(lab, store, **options) as dead, create_task_group() as group:

        async def start() -> None:
            with CancelScope(), pytest.raises(ConnectionFailed):
                await dead.supervisor.start("m", **MINE)

        gate = dead.client.hold("create", answer=effect)
        group.start_soon(start)
        await gate.entered.wait()
        await dead.die()
        group.cancel_scope.cancel()
    assert lab.fake.count("create") == effect
    [row] = store.rows.values()
    assert row.remote_id is None


async def ask(supervisor: Supervisor, how: str) -> str | None:
    """Ask for the key; return the id of the task that one gets."""
    with fail_after(120):
        match how:
            case "task":
                async with supervisor.task("m", **MINE) as task:
                    return task.id
            case "start":
                return (await supervisor.start("m", **MINE)).id
            case _:
                return (await supervisor.run("m", **MINE)).id


@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_it_had_been_created(how: str) -> None:
    """A task whose POST got through is found by its mark; no other is created."""
    lab, store = Lab(duration=0.2), MemoryStore()
    await died_creating(lab, store, effect=True)
    async with lab.open(ledger=MemoryLedger(store), **QUICK) as supervisor:
        assert [await ask(supervisor, how)] == lab.fake.created
    assert lab.fake.count("create") == 1
    assert reaped(lab) == {"reattached": 1}
    assert not store.keys


@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_it_had_not_been_created(how: str) -> None:
    """A task whose POST did not get through is created, exactly once, when that is proven."""
    lab, store = Lab(duration=0.2), MemoryStore()
    await died_creating(lab, store, effect=False)
    async with lab.open(ledger=MemoryLedger(store), **QUICK) as supervisor:
        assert [await ask(supervisor, how)] == lab.fake.created
    assert lab.fake.count("create") == 1
    assert not store.keys
    assert not store.rows


@virtual
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_it_had_ended(status: str) -> None:
    """A task without a name that ended while nobody watched is found, and told as it is."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=True)
    [task_id] = lab.fake.created
    end = {"completed": "complete", "failed": "fail", "cancelled": "cancel"}[status]
    getattr(lab.fake, end)(task_id)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("m", **MINE)
        assert (await task.wait()).outcome == status
        assert task.id == task_id
    assert lab.fake.count("create") == 1


@virtual
async def test_it_appears_after_all() -> None:
    """A task that appears after its absence was proven is ended; the one created for it stays."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=False)
    [row] = store.rows.values()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("m", **MINE)
        stray = lab.fake.add("m", **{MARKER: row.intent_id})
        assert lab.fake.live == {task.id, stray}
        with fail_after(120):
            await lab.fake.until(lambda: lab.fake.live == {task.id})
        await sleep(600)
        assert task.state is State.RUNNING


@virtual
@pytest.mark.parametrize("effect", [True, False])
async def test_the_next_one_dies_as_well(effect: bool) -> None:
    """The search survives any number of deaths, also of one who had just begun anew."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=effect)
    lab.fake.always("list", ConnectionFailed("no network", sent=False))
    for _ in range(3):
        async with Process(lab, store) as dead, create_task_group() as group:
            group.start_soon(lambda: dead.supervisor.start("m", **MINE))
            await sleep(20)
            await dead.die()
            group.cancel_scope.cancel()
        [row] = store.rows.values()
        assert (row.state, row.owner_id) == (State.UNKNOWN, dead.supervisor._core.ground.owner_id)  # type: ignore[union-attr]
    lab.fake.always("list", None)
    if not effect:
        await died_creating(lab, store, effect=False)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert [await ask(supervisor, "start")] == lab.fake.created
    assert lab.fake.count("create") == 1


# --- nobody wants it any more ---------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("effect", [True, False])
async def test_withdrawn_while_it_is_looked_for(effect: bool) -> None:
    """A caller who is cancelled meanwhile leaves a task that is ended as soon as it is found."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=effect)
    lab.fake.always("list", ConnectionFailed("no network", sent=False))
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with CancelScope() as scope:
            async with create_task_group() as group:
                group.start_soon(lambda: supervisor.start("m", **MINE))
                await sleep(5)
                scope.cancel()
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]
        with pytest.raises(DuplicateKey):
            await supervisor.start("m", **MINE)
        lab.fake.always("list", None)
        with fail_after(120):
            while supervisor.snapshot():
                await sleep(1)
        assert not lab.fake.live
        assert (await supervisor.start("m", **MINE)).id not in lab.fake.created[:effect]
    assert lab.fake.count("create") == 1 + effect


@virtual
async def test_its_deadline_passes_while_it_is_looked_for() -> None:
    """The time-out counts from when the new caller asked, the search included."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=True)
    lab.fake.always("list", ConnectionFailed("no network", sent=False))
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(20), pytest.raises(TaskTimedOut):
            await supervisor.run("m", timeout=10, **MINE)
        lab.fake.always("list", None)
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
    assert lab.finished == {("timed_out", "deadline"): 1}


@virtual
async def test_a_shutdown_while_it_is_looked_for() -> None:
    """The search goes on in the drain; what it does not find is left to the next process."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=True)
    lab.fake.always("list", ConnectionFailed("no network", sent=False))
    async with lab.make(ledger=MemoryLedger(store)) as supervisor, create_task_group() as group:

        async def start() -> None:
            with pytest.raises(SupervisorShutdown):
                await supervisor.start("m", **MINE)

        group.start_soon(start)
        await sleep(5)
        report = await supervisor.shutdown()
        assert len(report.unconfirmed) == 1
    [row] = store.rows.values()
    assert (row.state, row.reason) == (State.UNKNOWN, CancelReason.SHUTDOWN)
    lab.fake.always("list", None)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            await supervisor.reap()
        assert not lab.fake.live
        assert not store.rows


# --- without a mark -------------------------------------------------------------------------------


@virtual
async def test_without_a_mark() -> None:
    """What could carry no mark cannot be told: the caller hears so, and nothing is sent."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=True, marker=False)
    async with lab.open(ledger=MemoryLedger(store), marker=False, left=1) as supervisor:
        with pytest.raises(ConnectionFailed, match="no answer"):
            await supervisor.start("m", **MINE)
        assert lab.fake.count("create") == 1
        with pytest.raises(DuplicateKey):
            await supervisor.start("m", **MINE)


@pytest.mark.backends(ASYNCIO)  # files are looked at in a thread
async def test_created_anew_without_a_mark(tmp_path: Path) -> None:
    """A create that follows upon a lost one is told by what it is, and not by what that one was."""
    lab, store = Lab(), MemoryStore()
    file = tmp_path / "data.csv"
    file.write_text("1,2")
    await died_creating(lab, store, effect=False)
    async with Process(lab, store, **QUICK) as dead:
        task = await dead.supervisor.start("m", files=[file], **MINE)
        await dead.die()
    [row] = store.rows.values()
    assert (row.remote_id, row.message_digest is None) == (task.id, False)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await ask(supervisor, "start") == task.id


# --- places, and a ledger that fails --------------------------------------------------------------


@virtual
@pytest.mark.parametrize("effect", [True, False])
async def test_it_keeps_its_place(effect: bool) -> None:
    """While a task is looked for it has its place; never are there more tasks than places."""
    lab, store = Lab(duration=100), MemoryStore()
    await died_creating(lab, store, effect=effect)
    ids: list[str] = []
    async with lab.open(ledger=MemoryLedger(store), max_tasks=1) as supervisor:

        async def run(key: str, on_crash: Any = "cancel") -> None:
            result = await supervisor.run("m", key=key, on_crash=on_crash)
            assert result.id is not None
            ids.append(result.id)

        with fail_after(1000):
            async with create_task_group() as group:
                group.start_soon(run, "k", "reattach")
                await wait_all_tasks_blocked()
                for key in ("l", "m", "n"):
                    group.start_soon(run, key)
    assert ids == lab.fake.created
    assert lab.fake.count("create") == 4
    ends = [task.completed_at for task in lab.fake.tasks.values()]
    begins = [task.created_at for task in lab.fake.tasks.values()]
    assert all(begin >= end for begin, end in zip(begins[1:], ends, strict=False) if end)


@virtual
async def test_the_ledger_fails_when_it_is_created_anew() -> None:
    """A new intent that cannot be written is told; the key is free when the ledger is well."""
    lab, store = Lab(), MemoryStore()
    await died_creating(lab, store, effect=False)
    ledger = FailingLedger(lambda writes: any(not write.expected for write in writes))
    ledger.store = store

    async with lab.open(ledger=ledger) as supervisor, create_task_group() as group:

        async def start() -> None:
            with pytest.raises(LedgerError, match="disk is full"):
                await supervisor.start("m", **MINE)

        ledger.wrong = lambda writes: False
        group.start_soon(start)
        await sleep(5)
        ledger.wrong = lambda writes: any(not write.expected for write in writes)
        await sleep(60)
        ledger.wrong = lambda writes: False
        assert lab.fake.count("create") == 0
        with fail_after(60):
            assert [await ask(supervisor, "start")] == lab.fake.created
