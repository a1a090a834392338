"""A task that a live owner wants is not ended because another owner died, or shut down."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from anyio import create_task_group, fail_after, sleep

from sigmic_guard import (
    CancelReason,
    LedgerError,
    Outcome,
    ReapResult,
    State,
    SupervisorShutdown,
    TaskNotFound,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.supervisor.work import sparing
from sigmic_guard.testing.fake_faults import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import MortalClient, Process, left_by_the_dead, reaped
from tests.supervisor.lab import FORBIDDEN, UNAVAILABLE, Lab
from tests.supervisor.orphanage import (
    FaultyLedger,
    Scribbled,
    beside,
    core_of,
    left,
    result_of,
    row,
    write,
)

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

DECIDED: dict[str, Any] = {"reason": CancelReason.USER, "cancel_requested_at": 1.0}

# --- a dead owner had decided to end it -----------------------------------------------------------


@pytest.mark.parametrize("reason", [CancelReason.USER, CancelReason.SHUTDOWN, CancelReason.ORPHAN])
@pytest.mark.parametrize("state", [State.CANCELLING, State.UNCONFIRMED, State.RUNNING])
async def test_what_a_dead_owner_was_ending_is_spared(state: State, reason: CancelReason) -> None:
    """A live owner adopted it meanwhile: only the dead one's row goes, whatever it says."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as other:
        task = await other.supervisor.adopt(lab.fake.add())
        await other.flush()
        ends = DECIDED | {"reason": reason} if state is not State.RUNNING else {}
        await write(store, row(lab, remote_id=task.id, state=state, **ends))
        async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
            assert await result_of(supervisor) is ReapResult.RELEASED
            assert not supervisor.tasks
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)
        assert len(store.rows) == 1
        assert lab.cancellations == {}
    assert not lab.fake.live


async def test_what_a_dead_owner_was_ending_is_found_by_its_mark_and_spared() -> None:
    """The same where its id becomes known only after the take-over."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as other:
        task = await other.supervisor.adopt(lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1"))
        await other.flush()
        await write(store, row(lab, state=State.UNKNOWN, remote_id=None, lost_at=1.0, **DECIDED))
        async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
            assert await result_of(supervisor) is ReapResult.RELEASED
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)


async def test_a_key_is_free_once_its_task_was_spared() -> None:
    """Who asks for the key of such a row gets a task of his own."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as other:
        task = await other.supervisor.adopt(lab.fake.add())
        await other.flush()
        await write(store, row(lab, remote_id=task.id, state=State.CANCELLING, key="k", **DECIDED))
        async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
            with fail_after(30):
                assert (await supervisor.start("m", key="k")).id != task.id
        assert (task.state, lab.deletes(task)) == (State.RUNNING, 0)


async def test_two_dead_owners_rows_do_not_spare_it() -> None:
    """Negative control: nobody who lives wants it, so it is ended, whoever had decided to."""
    lab, store = Lab(), MemoryStore()
    task_id = lab.fake.add()
    rows = [
        row(lab, "one", remote_id=task_id, state=State.CANCELLING, **DECIDED),
        row(lab, "two", remote_id=task_id),
        row(lab, "three", remote_id=task_id, owner_id="dead too", on_crash="abandon"),
    ]
    await write(store, *rows)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(30):
            await supervisor.reap()
        assert not lab.fake.live


@virtual
@pytest.mark.parametrize("fault", [UNAVAILABLE, FORBIDDEN, HANG], ids=["503", "403", "no answer"])
async def test_it_is_adopted_after_an_end_was_decided_that_nobody_could_bring_about(
    fault: Any,
) -> None:
    """Before a DELETE is sent again it is asked whether somebody wants the task by now."""
    lab, store = Lab(), MemoryStore()
    task_id = lab.fake.add()
    await write(store, row(lab, remote_id=task_id))
    lab.fake.always("delete", fault)
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        await supervisor.reap() if fault is FORBIDDEN else await sleep(20)
        assert lab.deletes() > 0
        async with Process(lab, store) as other:
            task = await other.supervisor.adopt(task_id, on_shutdown="detach")
            await other.flush()
            await sleep(6)
            lab.fake.always("delete", None)
            await sleep(60)
            assert task.state is State.RUNNING
            assert lab.fake.live == {task_id}
            assert not (await supervisor.reap()).left


async def test_who_spares_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the question a live owner's task is ended, whoever is to ask."""
    monkeypatch.setattr(sparing, "wants", lambda *_, **__: False)
    with pytest.raises(AssertionError):
        await test_what_a_dead_owner_was_ending_is_spared(State.CANCELLING, CancelReason.USER)
    with pytest.raises(AssertionError):
        await test_what_a_dead_owner_was_ending_is_found_by_its_mark_and_spared()
    with pytest.raises(AssertionError):
        await test_who_leaves_spares_what_another_owner_wants(creator_leaves=True)


# --- a live owner leaves --------------------------------------------------------------------------


async def both(lab: Lab, store: MemoryStore, stack: AsyncExitStack) -> tuple[Process, Process, str]:
    """Have one process create a task, and another one adopt it."""
    one = await stack.enter_async_context(Process(lab, store))
    other = await stack.enter_async_context(Process(lab, store))
    task = await one.supervisor.start("m")
    await other.supervisor.adopt(task.id)
    await other.flush()
    return one, other, task.id


@pytest.mark.parametrize("creator_leaves", [True, False])
async def test_who_leaves_spares_what_another_owner_wants(creator_leaves: bool) -> None:
    """Whether it had created the task or adopted it; the last one to leave ends it."""
    lab, store = Lab(), MemoryStore()
    async with AsyncExitStack() as stack:
        one, other, task_id = await both(lab, store, stack)
        leaver, stayer = (one, other) if creator_leaves else (other, one)
        theirs = leaver.supervisor.tasks[task_id]
        alone = await leaver.supervisor.start("mine alone")
        report = await leaver.supervisor.shutdown()
        assert (report.detached, report.cancelled, report.clean) == (1, 1, True)
        assert (lab.deletes(task_id), lab.deletes(alone)) == (0, 1)
        assert (theirs.state, theirs.outcome) == (State.DETACHED, Outcome.DETACHED)
        result = await theirs.wait()
        assert (result.outcome, result.cancellation) == (Outcome.DETACHED, None)
        with pytest.raises(SupervisorShutdown):
            await theirs.result()
        assert stayer.supervisor.tasks[task_id].state is State.RUNNING
        assert {row.owner_id for row in store.rows.values()} == {
            core_of(stayer.supervisor).ground.owner_id
        }
        report = await stayer.supervisor.shutdown()
        assert (report.detached, report.cancelled) == (0, 1)
    assert not lab.fake.live
    assert not store.rows


async def test_a_block_is_left_by_a_shutdown_and_its_task_spared() -> None:
    """The body gets the shutdown, as ever."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as other, lab.open(ledger=MemoryLedger(store), left=1) as mine:
        with pytest.raises(SupervisorShutdown):
            async with mine.task("m") as task:
                await other.supervisor.adopt(task.id)
                await other.flush()
                mine.request_shutdown()
                await sleep(30)
        assert (task.state, lab.deletes()) == (State.DETACHED, 0)
        await mine.shutdown()


async def test_two_who_leave_at_once_do_not_rely_on_each_other() -> None:
    """However their steps mingle somebody ends the task."""
    for head_start in range(12):
        lab, store = Lab(), MemoryStore()
        async with AsyncExitStack() as stack:
            one, other, _ = await both(lab, store, stack)

            async def leave(process: Process, after: int) -> None:
                for _ in range(after):
                    await sleep(0)
                await process.supervisor.shutdown()

            async with create_task_group() as group:
                group.start_soon(leave, one, 0)
                group.start_soon(leave, other, head_start)
        assert not lab.fake.live, head_start
        assert not store.rows


@pytest.mark.parametrize("call", ["owners", "owner_alive", "unfinished", "commit"])
async def test_who_cannot_ask_ends_his_tasks(call: str) -> None:
    """A ledger that cannot be read, or written, at a shutdown: the promise comes first."""
    lab, store = Lab(), MemoryStore()
    ledger = FaultyLedger(store)
    async with Process(lab, store) as other, lab.make(ledger=ledger) as supervisor:
        task = await supervisor.start("m")
        await other.supervisor.adopt(task.id)
        await other.flush()
        await core_of(supervisor).outbox.flush()
        ledger.failing = {call}
        with fail_after(20):
            report = await supervisor.shutdown(2)
        ledger.failing = ()
        assert (report.cancelled, report.detached) == (1, 0)
    assert not lab.fake.live


async def test_an_owner_decides_on_his_own_tasks() -> None:
    """A block's end, a deadline and cancel() end a task, whoever else has adopted it."""
    lab, store = Lab(), MemoryStore()
    async with AsyncExitStack() as stack:
        one, other, task_id = await both(lab, store, stack)
        await one.supervisor.tasks[task_id].cancel()
        assert not lab.fake.live
        result = await other.supervisor.tasks[task_id].wait()
        assert (result.outcome, result.reason) == (Outcome.CANCELLED, CancelReason.REMOTE)


async def test_a_single_owner_reads_no_rows_when_it_leaves() -> None:
    """Looking for others costs what the others have, and nothing where there are none."""
    lab, reads = Lab(), list[dict[str, Any]]()

    class Counting(MemoryLedger):
        async def unfinished(self, namespace: str | None = None, **which: Any) -> Any:
            reads.append(which)
            return await super().unfinished(namespace, **which)

    async with lab.open(ledger=Counting(MemoryStore())) as supervisor:
        await supervisor.reap()
        await supervisor.start("m")
        reads.clear()
    assert reads == []


@pytest.mark.parametrize("corrupt", [False, True], ids=["", "beside a corrupt row"])
async def test_a_shutdown_spares_what_was_adopted_since_it_was_taken_over(corrupt: bool) -> None:
    """An orphan at which nobody could look yet is let go if it is somebody's by now."""
    lab, store = Lab(), MemoryStore()
    blind = MortalClient(lab.fake)
    gate = blind.hold("get")
    async with beside(lab).open(ledger=MemoryLedger(store)) as owner:
        await owner.reap()
        task_id = await left(lab, store)
        if corrupt:
            await left(lab, store, intent_id="bad", namespace="other", remote_id="x")
        async with beside(lab).make(ledger=Scribbled(store), client=blind) as heir:
            with fail_after(10):
                await gate.entered.wait()
            task = await owner.adopt(task_id)
            await core_of(owner).outbox.flush()
            assert heir.snapshot()
        gate.open()
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)
        store.rows.pop("bad", None)
        assert [found.owner_id for found in store.rows.values()] == [core_of(owner).ground.owner_id]
    assert lab.deletes() == 1
    assert not lab.fake.live


@virtual
async def test_a_task_that_was_adopted_here_is_spared_before_the_ledger_knows() -> None:
    """A ledger that fails to write it down makes it no orphan: its own process knows better."""

    class Selective(MemoryLedger):
        fails = True

        async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
            if self.fails and any(write.record.orphaned_at is None for write in writes):
                raise LedgerError("the disk is full, for a moment")
            return await super().commit(writes)

    lab, store = Lab(), MemoryStore()
    ledger = Selective(store)
    async with lab.open(ledger=ledger) as supervisor:
        await sleep(1)
        task_id = await left(lab, store)
        task = await supervisor.adopt(task_id)
        with fail_after(20):
            await core_of(supervisor).reaper.reap()
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)
        assert reaped(lab) == {"released": 1}
        assert supervisor.tasks[task_id] is task
        ledger.fails = False


@virtual
async def test_an_orphan_that_is_not_found_is_spared_as_well_if_somebody_has_adopted_it() -> None:
    """What reads may lag behind what writes: a 404 tells nothing of whose the task is."""

    class Lagging(MortalClient):
        async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
            raise TaskNotFound("not yet", code="NOT_FOUND", status=404)

    lab, store = Lab(), MemoryStore()
    task_id = lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1")
    async with beside(lab).open(ledger=MemoryLedger(store)) as owner:
        task = await owner.adopt(task_id)
        await core_of(owner).outbox.flush()
        await left(lab, store, remote_id=None, state=State.CREATING)
        heir = beside(lab)
        async with heir.make(ledger=MemoryLedger(store), client=Lagging(lab.fake)):
            await sleep(100)
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)
        assert reaped(heir) == {"released": 1}


@virtual
async def test_a_claim_spares_its_task_from_another_row_of_it() -> None:
    """Who asks for the key has the task, whatever a second dead owner's row of it says."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        gate = lab.fake.gate("get")
        await write(store, row(lab, "second", remote_id=task_id, owner_id="dead too"))
        found = core_of(supervisor).reaper
        await found.request()
        with fail_after(10):
            await gate.entered.wait()
        task = await supervisor.start("m", key="k", on_crash="reattach")
        gate.open()
        with fail_after(60):
            await supervisor.reap()
        assert (task.id, task.state, lab.deletes()) == (task_id, State.RUNNING, 0)
        assert supervisor.tasks[task_id] is task
        assert reaped(lab) == {"reattached": 1, "released": 1}
