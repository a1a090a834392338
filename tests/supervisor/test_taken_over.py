"""What was taken over is in the row: whoever reads it goes on as was decided, and looks first."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import fail_after, move_on_after, sleep, wait_all_tasks_blocked

from sigmic_guard import CancelReason, ReapResult, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.lifecycle import Event, Record
from sigmic_guard.lifecycle import record as funnel
from sigmic_guard.supervisor.ground import roster
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process
from tests.supervisor.lab import UNAVAILABLE, Lab
from tests.supervisor.orphanage import core_of, result_of, row, write

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

DECIDED: dict[str, Any] = {"reason": CancelReason.USER, "cancel_requested_at": 1.0}


async def taken_by_one_who_dies(lab: Lab, store: MemoryStore, **fields: Any) -> Record:
    """Leave a row behind that somebody took over, and who died before he could look at the task."""
    await write(store, row(lab, **fields))
    async with Process(lab, store) as heir:
        gate = heir.client.hold("get")
        with fail_after(10):
            await gate.entered.wait()
        await heir.die()
    [left] = store.rows.values()
    return left


@pytest.mark.parametrize("ends", [{}, DECIDED], ids=["undecided", "decided"])
async def test_it_is_taken_over_until_a_get_tells(ends: dict[str, Any]) -> None:
    """Whatever it was: nothing is believed of it, and its end waits for the look."""
    lab, store = Lab(), MemoryStore()
    state = State.UNCONFIRMED if ends else State.RUNNING
    left = await taken_by_one_who_dies(lab, store, state=state, **ends)
    assert (left.state, left.reason) == (State.TAKEN_OVER, ends.get("reason"))
    assert (left.orphan, left.policy.confirm) == (True, "terminal")
    assert lab.deletes() == 0
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.CANCELLED
    assert lab.deletes() == 1
    assert lab.finished == {("cancelled", ends.get("reason", CancelReason.ORPHAN)): 1}
    assert not store.rows


async def test_one_that_may_run_on_is_let_go_by_whoever_comes_next() -> None:
    """Its terms say so, and it is not ended because its heir died as well."""
    lab, store = Lab(), MemoryStore()
    left = await taken_by_one_who_dies(lab, store, on_crash="abandon")
    assert (left.state, left.to_be_released) == (State.TAKEN_OVER, True)
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        assert await result_of(supervisor) is ReapResult.RELEASED
    assert lab.deletes() == 0


async def test_a_key_does_not_lead_to_it_any_more() -> None:
    """Its time was over when it was taken over: who asks for the key gets a task of his own."""
    lab, store = Lab(), MemoryStore()
    terms: dict[str, Any] = {"key": "k", "on_crash": "reattach"}
    left = await taken_by_one_who_dies(lab, store, created_at=1.0, reattach_within=0.001, **terms)
    assert left.policy.on_crash == "cancel"
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(30):
            task = await supervisor.start("m", **terms)
        assert task.id != left.remote_id
        assert lab.fake.live == {task.id}


@virtual
async def test_a_shutdown_ends_it_without_a_look() -> None:
    """Its budget is for the end, and not for finding out about it."""
    lab, store = Lab(), MemoryStore()
    await write(store, row(lab, "one"), row(lab, "two", on_crash="abandon"))
    lab.fake.always("get", UNAVAILABLE)
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        await lab.fake.until(lambda: lab.fake.count("get") > 1)
        assert {found.state for found in supervisor.snapshot()} == {State.TAKEN_OVER}
        lab.fake.always("get", None)
        report = await supervisor.shutdown()
        assert (report.cancelled, report.detached, report.clean) == (1, 1, True)
    assert lab.deletes() == 1
    assert not store.rows


# --- found later ----------------------------------------------------------------------------------


async def found_by_its_mark() -> tuple[set[State], int]:
    """Have a dead owner's task found after the take-over; tell its states then, and the DELETEs."""
    lab, store, states = Lab(), MemoryStore(), set[State]()
    task_id = lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1")
    await write(store, row(lab, state=State.CREATING, remote_id=None))
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with move_on_after(30):
            while not core_of(supervisor).triage.tasks:
                await sleep(0.01)
        [task] = core_of(supervisor).triage.tasks
        with move_on_after(30):
            while task.record.finished_at is None:
                states.add(task.record.state)
                await task.until_changed(task.record.version)
        if task_id in lab.fake.live:
            lab.fake.complete(task_id)
            await task.until(lambda task: task.record.finished_at is not None)
        return states, lab.deletes()


async def test_it_is_found_by_its_mark() -> None:
    """It goes the same way as one whose id was known, from its id on."""
    states, deletes = await found_by_its_mark()
    assert states == {State.UNKNOWN, State.TAKEN_OVER, State.CANCELLING}
    assert deletes == 1


@virtual
async def test_a_funnel_that_lets_it_run_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without its rule what is found runs on, watched by whoever took it over."""

    def step(record: Record, event: Event, now: float, **more: Any) -> Record:
        after = funnel.step(record, event, now, **more)
        if event is Event.CREATED and after.state is State.TAKEN_OVER:
            return funnel._replace(after, state=State.RUNNING)
        return after

    monkeypatch.setattr(roster, "step", step)
    states, deletes = await found_by_its_mark()
    assert State.RUNNING in states
    assert deletes == 0


# --- what a version wrote that had no such state --------------------------------------------------


@pytest.mark.parametrize(
    "state", [State.UNKNOWN, State.RUNNING, State.CANCELLING, State.UNCONFIRMED]
)
async def test_an_orphan_of_an_older_version(state: State) -> None:
    """It was taken over in the state and on the terms that it had, and is ended as ever."""
    lab, store = Lab(), MemoryStore()
    ends = {} if state in {State.UNKNOWN, State.RUNNING} else DECIDED
    named: dict[str, Any] = {"remote_id": None, "lost_at": 5.0} if state is State.UNKNOWN else {}
    lost = lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1") if named else None
    terms: dict[str, Any] = {"key": "k", "on_crash": "reattach"}
    await write(store, row(lab, state=state, orphaned_at=5.0, **terms, **ends, **named))
    assert lost is None or lab.fake.live == {lost}
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
            await lab.fake.until(lambda: not lab.fake.live)
        assert not report.corrupt
        await wait_all_tasks_blocked()
    assert lab.deletes() == 1
    assert not store.rows


async def test_one_that_was_to_be_let_go_by_an_older_version() -> None:
    """What its owner had said of a crash is still in the row."""
    lab, store = Lab(), MemoryStore()
    await write(store, row(lab, orphaned_at=5.0, on_crash="abandon"))
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        assert await result_of(supervisor) is ReapResult.RELEASED
    assert lab.deletes() == 0
