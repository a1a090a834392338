"""A key that a dead process's task holds, and that cannot or shall not be claimed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import pytest
from anyio import (
    create_task_group,
    current_time,
    fail_after,
    move_on_after,
    sleep,
    wait_all_tasks_blocked,
)

from sigmic_guard import CancelReason, DuplicateKey, ReapResult, State, Supervisor, TaskTimedOut
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.ground import clock as clocks
from sigmic_guard.supervisor.work.creating import MAX_INTENTS
from sigmic_guard.testing import FakeSigmic
from sigmic_guard.testing.fake_faults import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process, left_by_the_dead, reaped
from tests.supervisor.lab import FORBIDDEN, UNAVAILABLE, Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

MINE: Any = {"key": "k", "on_crash": "reattach"}


@pytest.fixture(autouse=True)
def one_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wall clock go as the virtual one does, from one process to the next."""
    clock = SimpleNamespace(monotonic=current_time, time=lambda: 1e9 + current_time())
    monkeypatch.setattr(clocks, "time", clock)


def never_two(lab: Lab) -> None:
    """Fail where a create takes effect while another task lives: by the server's own truth."""
    create = lab.fake._world.create

    def checked(request: Any) -> Any:
        assert not lab.fake.live, "two live tasks of one key"
        return create(request)

    lab.fake._world.create = checked  # type: ignore[method-assign]


# --- it is to be ended ----------------------------------------------------------------------------


async def test_it_is_ended_first() -> None:
    """A task that is to be cancelled is, and only then is the next one created."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, on_crash="cancel")
    gate = lab.fake.gate("delete", answer=True)
    never_two(lab)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor, create_task_group() as group:
        started: list[str] = []

        async def start() -> None:
            started.append((await supervisor.start("m", **MINE)).id)

        group.start_soon(start)
        with fail_after(30):
            await gate.entered.wait()
        await wait_all_tasks_blocked()
        assert (started, lab.fake.count("create")) == ([], 1), "its end is not proven yet"
        gate.open()
        with fail_after(30):
            await lab.fake.until(lambda: lab.fake.count("create") == 2)
    assert started != [task_id]
    assert reaped(lab) == {"cancelled": 1}
    assert not store.keys


async def test_it_is_let_go() -> None:
    """A task that may run on after a crash gives its key free."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, on_crash="abandon")
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        with fail_after(30):
            assert (await supervisor.start("m", **MINE)).id != task_id
        assert lab.fake.tasks[task_id].live
    assert reaped(lab) == {"released": 1}
    assert lab.deletes(task_id) == 0


async def test_its_end_was_decided() -> None:
    """A task whose owner died while he cancelled it cannot be claimed: it is ended first."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        task = await dead.supervisor.start("m", **MINE)
        gate = dead.client.hold("delete")
        task.request_cancel()
        await gate.entered.wait()
        await dead.die()
    never_two(lab)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(30):
            assert (await supervisor.start("m", **MINE)).id != task.id
        assert lab.fake.tasks[task.id].status == "cancelled"


@virtual
async def test_its_end_takes_too_long() -> None:
    """While the API answers no DELETE the caller is told, within a minute, and nothing is sent."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, on_crash="cancel")
    lab.fake.always("delete", UNAVAILABLE)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60), pytest.raises(DuplicateKey, match="is being ended") as caught:
            await supervisor.start("m", **MINE)
        assert caught.value.task_id == task_id
        assert lab.fake.count("create") == 1
        lab.fake.always("delete", None)
        assert (await supervisor.start("m", **MINE)).state is State.RUNNING


async def test_its_end_cannot_be_proven() -> None:
    """Where nobody may ask for its end the caller is told."""
    lab, store = Lab(), MemoryStore()
    await left_by_the_dead(lab, store, on_crash="cancel")
    lab.fake.always("delete", FORBIDDEN)
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        with fail_after(30), pytest.raises(DuplicateKey, match="cannot be proven") as caught:
            await supervisor.start("m", **MINE)
        assert caught.value.key == "k"
        assert lab.fake.count("create") == 1


#: More than creates are seen to at once.
CROWD = MAX_INTENTS + 44


@virtual
async def test_those_who_wait_hold_nobody_up() -> None:
    """However many wait for as many dead tasks' ends, a create without a key goes through at once.

    So does one whose key is free. Those who wait have their deadlines, and can leave.
    """
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        for key in map(str, range(CROWD)):
            await dead.supervisor.start("m", key=key)
        await dead.die()
    lab.fake.always("get", HANG)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor, create_task_group() as group:

        async def start(key: str) -> None:
            with pytest.raises(TaskTimedOut):
                await supervisor.start("m", key=key, timeout=5)

        for key in map(str, range(CROWD)):
            group.start_soon(start, key)
        await wait_all_tasks_blocked()
        with fail_after(0.1):
            await supervisor.start("without a key")
            await supervisor.start("m", key="free")
        await sleep(6)
        with move_on_after(1) as left:
            await supervisor.start("m", key="1")
        assert left.cancelled_caught
        lab.fake.always("get", None)
    assert lab.fake.count("create") == CROWD + 2


@virtual
@pytest.mark.parametrize("on_crash", ["cancel", "reattach"])
async def test_many_keys_at_once(on_crash: Literal["cancel", "reattach"]) -> None:
    """Each gets the task of its own key, or a new one as soon as that one was ended."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        keys = map(str, range(CROWD))
        left = {it: (await dead.supervisor.start("m", key=it, on_crash=on_crash)).id for it in keys}
        await dead.die()
    got: dict[str, str] = {}
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:

        async def start(key: str) -> None:
            got[key] = (await supervisor.start("m", key=key)).id

        with fail_after(10):
            async with create_task_group() as group:
                for key in left:
                    group.start_soon(start, key)
        assert set(got.values()) == lab.fake.live
    assert got == left if on_crash == "reattach" else not set(got.values()) & set(left.values())


# --- out of reach ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mine, match", [("base_url", "another base URL"), ("credential_fingerprint", "credential")]
)
async def test_out_of_reach(mine: str, match: str) -> None:
    """A row of another system or credential is left alone, and the message says which."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    other = FakeSigmic()
    setattr(other, mine, "something else")
    async with lab.make(client=other, ledger=MemoryLedger(store)) as supervisor:
        with fail_after(30), pytest.raises(DuplicateKey, match=match) as caught:
            await supervisor.start("m", **MINE)
        assert (caught.value.key, caught.value.task_id) == ("k", task_id)
        assert not supervisor.snapshot()
    assert not other.requests
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert (await supervisor.start("m", **MINE)).id == task_id


# --- nobody asks ----------------------------------------------------------------------------------


@virtual
async def test_nobody_asked_for_it() -> None:
    """A task that nobody claims runs on for ``reattach_within``, and then it is reaped."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, reattach_within=300)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        report = await supervisor.reap()
        [row] = report.left
        assert (row.id, row.why, report.reaped) == (task_id, "wait", [])
        await sleep(295)
        assert lab.fake.live
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
        assert lab.deletes(task_id) == 1
        await sleep(60)
        assert lab.finished == {("cancelled", CancelReason.ORPHAN): 1}
    assert reaped(lab) == {ReapResult.CANCELLED: 1}
    assert not store.rows


@virtual
async def test_asked_for_in_time() -> None:
    """A task that is claimed in time is not reaped when that time is over."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, reattach_within=300)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await sleep(290)
        task = await supervisor.start("m", **MINE)
        await sleep(1000)
        assert (task.id, task.state) == (task_id, State.RUNNING)
        assert lab.deletes() == 0


@virtual
async def test_asked_for_too_late() -> None:
    """Who asks after the time gets a new task; the old one is ended before it."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, reattach_within=100)
    async with Process(lab, store) as other:
        await other.supervisor.reap()
        await other.die()
    await sleep(101)
    never_two(lab)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert (await supervisor.start("m", **MINE)).id != task_id
        assert lab.fake.tasks[task_id].status == "cancelled"


@virtual
async def test_its_deadline_passes() -> None:
    """A task that nobody claims does not outlive its own deadline."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, timeout=100, reattach_within=3000)
    async with lab.open(ledger=MemoryLedger(store)):
        await sleep(99)
        assert lab.fake.live
        await sleep(60)
        assert not lab.fake.live
        assert lab.deletes(task_id) == 1
        assert lab.finished == {("cancelled", CancelReason.ORPHAN): 1}


@virtual
async def test_its_owner_lived_for_long() -> None:
    """The time counts from the owner's death, and not from the creation of the task."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        task = await dead.supervisor.start("m", reattach_within=60, **MINE)
        await sleep(3599)
        await dead.die()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert (await supervisor.start("m", **MINE)).id == task.id
        assert lab.deletes() == 0


# --- whose key it is ------------------------------------------------------------------------------


async def test_of_another_namespace() -> None:
    """A dead process's task in another namespace is not what the key stands for in this one."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store, namespace="other") as dead:
        task = await dead.supervisor.start("m", **MINE)
        await dead.die()
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        assert (await supervisor.start("m", **MINE)).id != task.id
    async with lab.open(ledger=MemoryLedger(store), namespace="other") as supervisor:
        assert (await supervisor.start("m", **MINE)).id == task.id


async def _adopted(lab: Lab, supervisor: Supervisor) -> str:
    return (await supervisor.adopt(lab.fake.add(), **MINE)).id


async def test_of_a_task_that_was_adopted() -> None:
    """The key that a task was adopted with leads back to it as well."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        task_id = await _adopted(lab, dead.supervisor)
        await dead.die()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert (await supervisor.start("m", **MINE)).id == task_id
    assert lab.fake.count("create") == 0


@pytest.mark.parametrize("alive", [True, False])
async def test_of_another_process_when_a_task_is_adopted(alive: bool) -> None:
    """No task is adopted with a key that another process's unfinished task holds."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as other:
        held = await other.supervisor.start("m", **MINE)
        if not alive:
            await other.die()
        async with lab.make(ledger=MemoryLedger(store)) as supervisor:
            found = lab.fake.add()
            with pytest.raises(DuplicateKey) as caught:
                await supervisor.adopt(found, **MINE)
            assert caught.value.key == "k"
            assert not supervisor.snapshot()
            assert (await supervisor.adopt(found, key="another")).id == found
        assert lab.fake.live == {held.id}
        lab.fake.cancel(held.id)
