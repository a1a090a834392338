"""What dead owners left without a name: a POST that may have been sent, and was never written."""

from __future__ import annotations

import time

import pytest
from anyio import create_task_group, current_time, fail_after, sleep

from sigmic_guard import CancelReason, ReapResult, State, TaskPolicy
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.ground.marking import MARKER
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAVAILABLE
from tests.supervisor.losses import LossLab, leave_behind

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

NAMELESS = [State.INTENT, State.CREATING, State.UNKNOWN]
DAY = 86_400.0


@pytest.mark.parametrize("state", NAMELESS)
async def test_it_exists(state: State) -> None:
    """A task whose id its dead owner never wrote down is found by its mark, and ended."""
    lab, store = LossLab(), MemoryStore()
    await leave_behind(lab, store, "theirs", state=state)
    task_id = lab.fake.add("m", **{MARKER: "theirs"})
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(20):
            report = await supervisor.reap()
        [row] = report.reaped
        assert (row.id, row.result) == (task_id, ReapResult.CANCELLED)
    assert lab.finished == {("cancelled", CancelReason.ORPHAN): 1}
    assert store.rows == {}


@pytest.mark.parametrize("state", NAMELESS)
async def test_it_never_existed(state: State) -> None:
    """Where two scans show no task the row ends as never created."""
    lab, store = LossLab(), MemoryStore()
    await leave_behind(lab, store, "theirs", state=state)
    async with lab.open(ledger=MemoryLedger(store), create_timeout=0.5) as supervisor:
        with fail_after(20):
            report = await supervisor.reap()
        [row] = report.reaped
        assert (row.id, row.result) == (None, ReapResult.NEVER_CREATED)
    assert lab.deletes() == 0
    assert store.rows == {}
    assert "theirs" in store.absent, "so that a stray is still caught"


@virtual
@pytest.mark.parametrize(
    "posted", [None, -2 * DAY, DAY], ids=["not known", "long ago", "a clock that was ahead"]
)
async def test_time_counts_from_the_take_over(posted: float | None) -> None:
    """Absence is proven one create's time-out after the take-over, whatever the row's times say.

    The dead owner may have sent the POST in its last moment, by a clock that is not ours.
    """
    lab, store, now = LossLab(), MemoryStore(), time.time()
    at = None if posted is None else now + posted
    await leave_behind(lab, store, "theirs", state=State.CREATING, posted_at=at, lost_at=at)
    async with lab.open(ledger=MemoryLedger(store), create_timeout=30) as supervisor:
        began = current_time()
        report = await supervisor.reap()
        assert 30 <= current_time() - began < 40
        assert [row.result for row in report.reaped] == [ReapResult.NEVER_CREATED]


@virtual
async def test_it_takes_effect_after_the_death() -> None:
    """A POST that takes effect only after the take-over is found within the create's time-out."""
    lab, store = LossLab(), MemoryStore()
    await leave_behind(lab, store, "theirs", created_at=time.time() - 100)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor, create_task_group() as group:
        group.start_soon(supervisor.reap)
        await sleep(25)
        lab.fake.add("m", **{MARKER: "theirs"})
        with fail_after(10):
            await lab.fake.until(lambda: not lab.fake.live)


@virtual
async def test_long_ago() -> None:
    """A task that a dead owner began days ago stands far down in the list, and is found."""
    lab, store = LossLab(), MemoryStore()
    then = time.time()
    task_id = lab.fake.add("m", **{MARKER: "theirs"})
    await sleep(2 * DAY)
    for _ in range(450):
        lab.fake.add()
    # By the clock of a supervisor that starts now, which knows nothing of the two days.
    await leave_behind(lab, store, "theirs", created_at=then - 2 * DAY)
    async with lab.open(left=450, ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        assert lab.deletes(task_id) == 1


@virtual
async def test_an_owner_whose_clock_was_ahead() -> None:
    """Times that lie in the future end no scan early: the whole list is read."""
    lab, store = LossLab(), MemoryStore()
    task_id = lab.fake.add("m", **{MARKER: "theirs"})
    await sleep(2 * DAY)
    for _ in range(450):
        lab.fake.add()
    await leave_behind(lab, store, "theirs", created_at=time.time() + 5 * DAY)
    async with lab.open(left=450, ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        assert lab.deletes(task_id) == 1


@virtual
async def test_the_list_is_down() -> None:
    """While the list fails, nothing is proven; once it is back, what is there is found."""
    lab, store = LossLab(), MemoryStore()
    await leave_behind(lab, store, "there", "not there")
    lab.fake.add("m", **{MARKER: "there"})
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await sleep(3600)
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN] * 2
        lab.fake.always("list", None)
        await sleep(60)
        assert not supervisor.snapshot()
    assert lab.finished == {("cancelled", "orphan"): 1, ("failed", "none"): 1}


@virtual
async def test_that_may_run_on() -> None:
    """With on_crash="abandon" the task that is found is let go."""
    lab, store = LossLab(), MemoryStore()
    await leave_behind(lab, store, "theirs", policy=TaskPolicy(on_crash="abandon"))
    lab.fake.add("m", **{MARKER: "theirs"})
    async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
        report = await supervisor.reap()
        assert [row.result for row in report.reaped] == [ReapResult.RELEASED]
    assert lab.deletes() == 0


@virtual
async def test_somebody_here_adopted_it() -> None:
    """A task that was adopted here by its id before the list showed its mark is left to that."""
    lab, store = LossLab(), MemoryStore()
    gate = lab.fake.gate("list")
    await leave_behind(lab, store, "theirs")
    task_id = lab.fake.add("m", **{MARKER: "theirs"})
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await gate.entered.wait()
        task = await supervisor.adopt(task_id)
        gate.open()
        await sleep(120)
        assert task.state is State.RUNNING
        assert list(supervisor.tasks) == [task_id]
        lab.fake.complete(task_id)
        assert (await task.result()).final_response == "the answer"
    assert lab.deletes() == 0


@virtual
async def test_another_process_adopted_it() -> None:
    """Nor is one ended that a live process has adopted by its id, though its owner is dead."""
    lab, store = LossLab(), MemoryStore()
    task_id = lab.fake.add("m", **{MARKER: "theirs"})
    async with lab.open(ledger=MemoryLedger(store), namespace="another") as other:
        task = await other.adopt(task_id)
        await leave_behind(lab, store, "theirs")
        async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
            report = await supervisor.reap()
            assert [row.result for row in report.reaped] == [ReapResult.RELEASED]
        assert task.state is State.RUNNING
        assert lab.deletes() == 0


@virtual
async def test_two_who_see_it() -> None:
    """Of two processes that find the same row one takes it, and the other leaves it alone."""
    lab, store = LossLab(), MemoryStore()
    await leave_behind(lab, store, *map(str, range(20)))
    for number in range(0, 20, 2):
        lab.fake.add("m", **{MARKER: str(number)})
    async with (
        lab.open(ledger=MemoryLedger(store)) as one,
        lab.open(ledger=MemoryLedger(store)) as other,
    ):
        reports = [await one.reap(), await other.reap()]
        assert sum(len(report.reaped) for report in reports) == 20
    assert lab.deletes() == 10
    assert lab.finished == {("cancelled", "orphan"): 10, ("failed", "none"): 10}
