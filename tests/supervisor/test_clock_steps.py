"""A wall clock that is set while a supervisor works: what took seconds took as many seconds."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from anyio import create_task_group, current_time, fail_after, sleep

from sigmic_guard import State
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.ground import clock as clocks
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.testing import LOST
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import UNAVAILABLE, Lab
from tests.supervisor.losses import GONE, LossLab, clock_off_by, leave_behind, unwanted
from tests.supervisor.orphanage import core_of, orphans, row, seconds, write

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

HOUR = 3600.0
STEPS = pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "ahead"])


class Wall:
    """The wall clock of this process, which can be set."""

    def __init__(self) -> None:
        self._epoch = time.time()
        self.off = 0.0

    def time(self) -> float:
        return self._epoch + current_time() + self.off


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    clock = SimpleNamespace(monotonic=current_time, time=wall.time)
    monkeypatch.setattr(clocks, "time", clock)
    return wall


def total(lab: Lab, name: str, **labels: str) -> float:
    """Return the sum of a histogram."""
    value = lab.registry.get_sample_value(f"sigmic_guard_{name}_sum", labels)
    assert value is not None
    return value


@STEPS
async def test_how_long_a_task_took(wall: Wall, step: float) -> None:
    """The result and the metric tell the seconds that passed."""
    lab = Lab(duration=20)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(5)
        wall.off = step
        result = await task.wait()
    assert result.outcome == "completed"
    assert result.duration == pytest.approx(20, abs=10)
    assert total(lab, "task_duration_seconds", outcome="completed") == pytest.approx(20, abs=10)


@STEPS
async def test_how_long_a_cancellation_took(wall: Wall, step: float) -> None:
    """So do the metrics of its acknowledgement and its proof."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", confirm="terminal")
        lab.fake.on("delete", UNAVAILABLE)
        gate = lab.fake.gate("delete")
        async with create_task_group() as group:
            group.start_soon(task.cancel)
            await gate.entered.wait()
            wall.off = step
            await sleep(2)
            gate.open()
    assert total(lab, "cancel_acknowledge_seconds") == pytest.approx(2.5, abs=1)
    assert total(lab, "cancel_confirm_seconds") == pytest.approx(3, abs=1.5)


@STEPS
async def test_how_old_a_task_is(wall: Wall, step: float) -> None:
    """A snapshot's ages and deadlines are the ones that hold here."""
    lab = Lab()
    async with lab.open() as supervisor:
        await supervisor.start("m", timeout=60)
        wall.off = step
        await sleep(10)
        [line] = supervisor.snapshot()
        assert (line.age, line.deadline) == pytest.approx((10, 50))


@STEPS
async def test_what_an_orphan_cost(wall: Wall, step: float) -> None:
    """A step after the take-over neither adds to what it cost nor takes from it."""
    lab, store = Lab(), MemoryStore()
    await write(store, row(lab, created_at=wall.time() - 100))
    gate = lab.fake.gate("delete")
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(5):
            await gate.entered.wait()
        wall.off = step
        await sleep(3)
        core_of(supervisor).triage.tally.count()
        assert orphans(lab) == pytest.approx((1, 103), abs=1)
        gate.open()
        report = await supervisor.reap()
    assert [found.age for found in report.reaped] == [pytest.approx(103, abs=3)]
    assert seconds(lab) == pytest.approx(103, abs=3)


@STEPS
async def test_a_lost_create_is_no_sooner_absent(wall: Wall, step: float) -> None:
    """Absence is proven when the create's time-out is over, and not by the hands of a clock."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=30) as supervisor, create_task_group() as group:
        group.start_soon(unwanted, supervisor)
        await sleep(1)
        wall.off = step
        await sleep(25)
        assert [line.state for line in supervisor.snapshot()] == [State.UNKNOWN]
        await sleep(15)
        assert not supervisor.snapshot()


@STEPS
async def test_it_appears_after_the_proof_and_the_step(wall: Wall, step: float) -> None:
    """A task that appears although it was proven absent is ended; then nobody looks for more."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=5) as supervisor:
        await unwanted(supervisor)
        wall.off = step
        await sleep(540)
        stray = lab.fake.appear()
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
        assert lab.deletes(stray) == 1
        await sleep(100)
        scans = lab.lists()
        await sleep(2 * HOUR)
        assert lab.lists() == scans


@pytest.mark.parametrize("theirs", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize("ours", [-HOUR, 0.0, HOUR])
async def test_it_appears_after_another_process_proved_it(
    wall: Wall, theirs: float, ours: float
) -> None:
    """It is ended by whoever shares the ledger, whatever the two wall clocks say; no other is."""
    lab, store = LossLab(), MemoryStore()
    sent = wall.time() + theirs
    gone = {"state": State.NEVER_CREATED, "created_at": sent, "posted_at": sent}
    await leave_behind(lab, store, "a", "b", lost_at=sent + 5, finished_at=sent + 9, **gone)
    wall.off = ours
    async with lab.open(left=1, ledger=MemoryLedger(store)):
        await sleep(500)
        lab.fake.add("m", **{MARKER: "a"})
        lab.fake.add("m", **{MARKER: "somebody else's"})
        with fail_after(60):
            await lab.fake.until(lambda: len(lab.fake.live) == 1)
        assert lab.deletes() == 1


@STEPS
async def test_a_lost_create_appears_after_the_step(wall: Wall, step: float) -> None:
    """What takes effect within the time-out is found, and told as quickly as ever."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=30) as supervisor, create_task_group() as group:
        got: list[Any] = []

        async def start() -> None:
            got.append(await supervisor.start("m"))

        group.start_soon(start)
        await sleep(1)
        wall.off = step
        await sleep(24)
        task_id = lab.fake.appear()
        with fail_after(3):
            while not got:
                await sleep(0.1)
        assert got[0].id == task_id


@STEPS
async def test_a_stray_after_a_step(wall: Wall, step: float) -> None:
    """What appears minutes after its absence was proven is ended, whenever that seems to be."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=5) as supervisor:
        await unwanted(supervisor)
        wall.off = step
        await sleep(500)
        stray = lab.fake.appear()
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
        assert lab.deletes(stray) == 1


@pytest.mark.parametrize("ours", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize("theirs", [-HOUR, 0.0, HOUR])
async def test_a_stray_by_two_wrong_clocks(wall: Wall, theirs: float, ours: float) -> None:
    """Somebody else's proof of minutes ago counts by any two clocks; and for so long, no longer."""
    lab, store = LossLab(), MemoryStore()
    lab.fake.add("m", **{MARKER: "a"})
    proof = {"lost_at": wall.time() + theirs - 300, "finished_at": wall.time() + theirs - 290}
    await leave_behind(lab, store, "a", "b", state=State.NEVER_CREATED, **proof)
    wall.off = ours
    async with lab.open(ledger=MemoryLedger(store)):
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
        await sleep(700)
        scans = lab.fake.count("list")
        await sleep(3600)
        assert lab.fake.count("list") == scans


@STEPS
async def test_the_follow_up_of_a_dead_owner(wall: Wall, step: float) -> None:
    """That it may still arrive is believed for a create's time-out, whatever the clock does."""
    lab, store = Lab(), MemoryStore()
    record = row(lab, created_at=wall.time() - 100, asked_at=wall.time() - 1)
    assert record.remote_id is not None
    lab.fake.complete(record.remote_id)
    await write(store, record)
    async with lab.open(ledger=MemoryLedger(store), create_timeout=30) as supervisor:
        await sleep(1)
        wall.off = step
        await sleep(24)
        await lab.fake.send(record.remote_id, "more", timeout=5)  # it had been under way
        await supervisor.reap()
    assert lab.deletes() >= 1


@pytest.mark.parametrize("ours", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize("theirs", [-HOUR, 0.0, HOUR])
async def test_a_scan_by_two_wrong_clocks(wall: Wall, theirs: float, ours: float) -> None:
    """A scan goes down far enough, however the dead owner's clock, ours and the server's differ."""
    lab, store = LossLab(), MemoryStore()
    task_id = lab.fake.add("m", **{MARKER: "theirs"})
    await leave_behind(lab, store, "theirs", created_at=wall.time() + theirs)
    await sleep(5)
    for _ in range(250):
        lab.fake.add()
    await sleep(3 * HOUR)
    lab.fake.add()
    lab.fake.bend_rows(clock_off_by(-30))
    wall.off = ours
    async with lab.open(left=251, ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        assert lab.deletes(task_id) == 1


@STEPS
async def test_a_scan_after_a_step(wall: Wall, step: float) -> None:
    """Nor does a step between the create and its loss end the scan too early, or read it all."""
    lab = LossLab()
    gate = lab.fake.gate("create")
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor, create_task_group() as group:
        group.start_soon(supervisor.start, "m")
        await gate.entered.wait()
        wall.off = step
        gate.open()
        with fail_after(5):
            while not supervisor.tasks:
                await sleep(0.1)


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_clock_that_is_ahead_hides_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost create is found below a hundred others, however far ahead the host's clock is."""
    lab = Lab()
    lab.fake.on("create", LOST)
    with monkeypatch.context() as patch:
        ahead = time.time() + 7200
        patch.setattr("sigmic_guard.supervisor.ground.clock.time.time", lambda: ahead)
        supervisor = lab.make(create_timeout=1)
        await supervisor.__aenter__()
    try:
        gate = lab.fake.gate("list")
        async with create_task_group() as group:
            group.start_soon(supervisor.start, "one")
            await gate.entered.wait()
            others = [lab.fake.add() for _ in range(150)]
            gate.open()
        assert list(supervisor.tasks) == lab.fake.created[:1]
    finally:
        await supervisor.__aexit__(None, None, None)
    assert lab.fake.live == set(others)
