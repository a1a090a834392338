"""Tasks that appear although they were proven not to exist: ended, and nothing else is."""

from __future__ import annotations

import time

import pytest
from anyio import create_task_group, fail_after, move_on_after, sleep, sleep_forever

from sigmic_guard import CancelReason, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.ground.marking import MARKER, digest
from sigmic_guard.supervisor.recovery.reconciler import Reconciler
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAVAILABLE
from tests.supervisor.losses import GONE, LossLab, leave_behind, unwanted

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

ORPHAN = ("cancelled", CancelReason.ORPHAN)
NEVER = ("failed", "none")


@virtual
@pytest.mark.parametrize("seconds", [0, 1, 60, 540])
async def test_it_appears_later(seconds: float) -> None:
    """A task that takes effect seconds or minutes after NEVER_CREATED is ended soon after."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=5) as supervisor:
        await unwanted(supervisor)
        await sleep(seconds)
        stray = lab.fake.appear()
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
        assert lab.deletes(stray) == 1
    assert lab.finished == {NEVER: 1, ORPHAN: 1}


async def test_in_real_time() -> None:
    """A stray of a row that somebody left is ended upon the next round of the reaper."""
    lab, store = LossLab(), MemoryStore()
    now = time.time()
    row = {"state": State.NEVER_CREATED, "lost_at": now, "finished_at": now}
    await leave_behind(lab, store, "a", "b", **row)
    lab.fake.add("m", **{MARKER: "a"})
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(20):
            await supervisor.reap()
            await lab.fake.until(lambda: not lab.fake.live)
    assert lab.deletes() == 1
    assert lab.finished == {ORPHAN: 1}


@virtual
@pytest.mark.parametrize("seconds", [1, 540])
async def test_the_process_that_proved_it_is_dead(seconds: float) -> None:
    """Whoever shares the ledger ends the strays of those that are gone."""
    lab, store = LossLab(), MemoryStore()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=5, ledger=MemoryLedger(store)) as supervisor:
        await unwanted(supervisor)
    await sleep(seconds)
    lab.fake.appear()
    async with lab.open(ledger=MemoryLedger(store)):
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
    assert lab.deletes() == 1
    assert lab.finished == {NEVER: 1, ORPHAN: 1}


@virtual
async def test_two_processes_see_it() -> None:
    """Two processes that see the same stray end it, and nothing else comes of it."""
    lab, store = LossLab(), MemoryStore()
    lab.fake.on("create", GONE)
    async with (
        lab.open(create_timeout=5, ledger=MemoryLedger(store)) as one,
        lab.open(ledger=MemoryLedger(store)),
    ):
        await unwanted(one)
        lab.fake.appear()
        with move_on_after(700):
            await sleep_forever()
    assert lab.fake.live == set()
    assert store.rows == {}


@virtual
async def test_it_has_ended_by_itself() -> None:
    """A stray that is terminal by the time it is seen costs nothing, and is left alone."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=5) as supervisor:
        await unwanted(supervisor)
        lab.fake.complete(lab.fake.appear())
        scans = lab.lists()
        await sleep(300)
        assert lab.lists() > scans
    assert lab.deletes() == 0
    assert lab.finished == {NEVER: 1}


@virtual
async def test_what_is_no_stray() -> None:
    """No task is touched that carries no mark, another's, or that of a row that got its task."""
    lab = LossLab()
    lab.fake.on("create", None, None, GONE)
    async with lab.open(left=6, create_timeout=5) as supervisor:
        await supervisor.start("runs", on_shutdown="detach")
        await (await supervisor.start("ended")).cancel()
        await unwanted(supervisor, "m")
        left = {
            lab.fake.created[0],
            lab.fake.appear(0),
            lab.fake.appear(1),
            lab.fake.appear(2, **{MARKER: "somebody else's"}),
            lab.fake.appear(2, **{MARKER: ""}),
            lab.fake.add("m"),
        }
        stray = lab.fake.appear(2)
        await sleep(700)
        assert lab.deletes(stray) == 1
        assert lab.fake.live == left
    assert lab.deletes() == 2


@virtual
async def test_a_task_of_another_mark_while_one_is_sought() -> None:
    """A task that is still sought is not mistaken for one with another mark."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(left=1, create_timeout=5) as supervisor, create_task_group() as group:
        group.start_soon(unwanted, supervisor)
        await lab.fake.until(lambda: lab.fake.sent)
        lab.fake.appear(0, **{MARKER: "somebody else's"})
    assert lab.deletes() == 0


@virtual
async def test_a_broken_list_forgets_no_stray() -> None:
    """While the list fails nothing is taken for looked at: the stray is ended once it is back."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=5) as supervisor:
        await unwanted(supervisor)
        lab.fake.always("list", UNAVAILABLE)
        lab.fake.appear()
        await sleep(900)
        assert lab.deletes() == 0
        lab.fake.always("list", None)
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
    assert lab.finished == {NEVER: 1, ORPHAN: 1}


@virtual
async def test_after_ten_minutes_nobody_looks() -> None:
    """Ten minutes after the last NEVER_CREATED the list is read no more; until then, seldom."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=5) as supervisor:
        await unwanted(supervisor)
        scans = lab.lists()
        await sleep(640)
        assert 10 <= lab.lists() - scans <= 45
        scans = lab.lists()
        await sleep(3600)
        assert lab.lists() == scans


@virtual
async def test_no_scan_for_what_carries_no_mark() -> None:
    """For rows whose create carried no mark the list is not read: it could tell nothing."""
    lab, store = LossLab(), MemoryStore()
    now = time.time()
    row = {"state": State.NEVER_CREATED, "lost_at": now, "finished_at": now}
    await leave_behind(lab, store, "a", "b", message_digest=digest("m"), **row)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        await sleep(600)
    assert lab.lists() == 0


@virtual
async def test_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where no stray is looked for, a late task runs on."""
    monkeypatch.setattr(Reconciler, "watch_for_strays", lambda *_: None)
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(left=1, create_timeout=5) as supervisor:
        await unwanted(supervisor)
        lab.fake.appear()
        await sleep(900)
