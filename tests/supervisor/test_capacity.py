"""Who takes one of the places of ``max_tasks`` follows from what is known of the task."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyio import create_task_group, move_on_after, sleep, wait_all_tasks_blocked

from sigmic_guard import ConnectionFailed, RemoteTask, SigmicGuardError, Supervisor
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.observe.events import ObservedEvent, TaskChanged
from sigmic_guard.testing import HANG, LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process
from tests.supervisor.lab import FORBIDDEN, UNAVAILABLE, Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


def occupied(supervisor: Supervisor) -> int:
    """How many places are taken; who takes them is what the function says of each task."""
    assert supervisor._core is not None
    capacity = supervisor._core.creator._capacity
    tasks = supervisor._core.roster.tasks.values()
    assert capacity._occupying == {task for task in tasks if capacity.has_place(task)}
    return len(capacity._occupying)


async def test_from_the_create_to_the_end() -> None:
    """It takes a place from when it may be created until it has ended."""
    lab = Lab()
    async with lab.open(max_tasks=2) as supervisor, create_task_group() as group:
        assert occupied(supervisor) == 0
        gate = lab.fake.gate("create")
        group.start_soon(supervisor.start, "m")
        await gate.entered.wait()
        assert occupied(supervisor) == 1
        gate.open()
        await lab.fake.until(lambda: lab.fake.live)
        await wait_all_tasks_blocked()
        (task,) = supervisor.tasks.values()
        assert occupied(supervisor) == 1
        await task.cancel()
        assert occupied(supervisor) == 0


async def test_who_waits_takes_none() -> None:
    """A task that waits for a place takes none; the next in turn takes the one that is free."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor, create_task_group() as group:
        first = await supervisor.start("first")
        group.start_soon(supervisor.start, "second")
        await wait_all_tasks_blocked()
        assert (occupied(supervisor), lab.live) == (1, {"running": 1, "intent": 1})
        await first.cancel()
        await wait_all_tasks_blocked()
        assert (occupied(supervisor), lab.live) == (1, {"running": 1})


async def test_a_completed_task_in_its_block() -> None:
    """A block keeps its task's place, for it may ask again; when it is left, it does not."""
    lab = Lab()
    async with lab.open(max_tasks=2) as supervisor:
        async with supervisor.task("m") as task:
            lab.fake.complete(task.id)
            await task.result()
            assert (task.state, occupied(supervisor)) == ("completed", 1)
        assert occupied(supervisor) == 0


async def test_a_completed_task_that_was_adopted() -> None:
    """It costs nothing, and takes no place, until it is asked again."""
    lab = Lab()
    task_id = lab.fake.add()
    lab.fake.complete(task_id)
    async with lab.open(max_tasks=2) as supervisor:
        task = await supervisor.adopt(task_id)
        assert (task.state, occupied(supervisor)) == ("completed", 0)
        await task.send("more")
        assert (task.state, occupied(supervisor)) == ("running", 1)


@virtual
@pytest.mark.parametrize("marked", [True, False], ids=["marked", "with files"])
async def test_a_lost_create(tmp_path: Path, *, marked: bool) -> None:
    """One that will be found, or proven absent, takes a place; one that may never be takes none."""
    (tmp_path / "data").write_bytes(b"a,b")
    lab = Lab()
    lab.fake.on("create", ConnectionFailed("reset", sent=True))
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(max_tasks=2, grace=1) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m", files=() if marked else [tmp_path / "data"])
        assert (occupied(supervisor), lab.live) == (marked, {"unknown": 1})


async def test_one_that_may_still_run() -> None:
    """An unconfirmed task takes its place until there is proof."""
    lab = Lab()
    lab.fake.on("delete", FORBIDDEN)
    async with lab.open(max_tasks=2) as supervisor:
        task = await supervisor.start("m")
        assert ((await task.cancel()).result, occupied(supervisor)) == ("unconfirmed", 1)
        assert ((await task.cancel()).result, occupied(supervisor)) == ("acknowledged", 0)


@virtual
async def test_a_dead_owners_task() -> None:
    """A dead owner's task takes a place once it is ours, and gives it back when it is ended."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        await dead.supervisor.start("m")
        await dead.die()
    lab.fake.on("delete", HANG)
    async with lab.open(ledger=MemoryLedger(store), max_tasks=2) as supervisor:
        await sleep(1)
        assert occupied(supervisor) == 1
        await sleep(60)
        assert occupied(supervisor) == 0


@virtual
async def test_a_claimed_create_that_made_nothing() -> None:
    """A claim takes a place even where there is none, and keeps it to be created after all."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead, create_task_group() as group:
        gate = dead.client.hold("create")
        group.start_soon(ask_for_the_key, dead.supervisor)
        await gate.entered.wait()
        await dead.die()
        group.cancel_scope.cancel()
    async with lab.open(ledger=MemoryLedger(store), max_tasks=1) as supervisor:
        await supervisor.start("first")
        async with create_task_group() as group:
            group.start_soon(ask_for_the_key, supervisor)
            await sleep(1)
            assert (occupied(supervisor), lab.live) == (2, {"running": 1, "unknown": 1})
        assert (occupied(supervisor), lab.live) == (2, {"running": 2})


async def ask_for_the_key(supervisor: Supervisor) -> None:
    """Ask for a task that a dead process may have left."""
    await supervisor.start("m", key="k", on_crash="reattach", reattach_within=3600)


@virtual
async def test_it_is_asked_at_each_change() -> None:
    """At each instant of many lives, the places that are taken are those the function says."""
    lab = Lab(duration=10)
    lab.fake.on("create", LOST, UNAVAILABLE, ConnectionFailed("refused", sent=False), None, HANG)
    lab.fake.on("delete", HANG, FORBIDDEN, UNAVAILABLE)
    differences: list[object] = []
    checks = 0

    class Checker:
        def observe(self, event: ObservedEvent) -> None:
            nonlocal checks
            core = supervisor._core
            if not isinstance(event, TaskChanged) or core is None:
                return
            capacity = core.creator._capacity
            for task in core.roster.tasks.values():
                if task.record.intent_id != event.after.intent_id:  # else it is just changing
                    checks += 1
                    if (task in capacity._occupying) is not capacity.has_place(task):
                        differences.append((task.record, event))

    async def live(number: int) -> None:
        with move_on_after(3 + number % 20):
            try:
                async with supervisor.task("m", on_exit="cancel") as task:
                    await end(task, number)
            except SigmicGuardError:
                pass

    async def end(task: RemoteTask, number: int) -> None:
        if number % 3:
            await task.result()
        if number % 3 == 1:
            await task.send("more")
            await task.result()

    async with lab.open(max_tasks=3, observers=[Checker()], create_timeout=5) as supervisor:
        async with create_task_group() as group:
            for number in range(30):
                group.start_soon(live, number)
        assert occupied(supervisor) == len(lab.fake.live)
    assert (differences, checks > 1000) == ([], True)
