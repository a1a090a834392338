"""What a reading of the list proves, whatever the list is like, and what it costs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime
from time import thread_time

import pytest
from anyio import (
    Event,
    create_task_group,
    current_time,
    fail_after,
    move_on_after,
    sleep,
    sleep_forever,
)
from anyio.lowlevel import checkpoint

from sigmic_guard import ConnectionFailed, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.sigmic.models import TaskInfo, TaskPage
from sigmic_guard.supervisor.ground.marking import MARKER, digest
from sigmic_guard.supervisor.recovery import reconciler
from sigmic_guard.testing import LOST
from sigmic_guard.testing.fake_faults import Call
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAVAILABLE, too_many
from tests.supervisor.losses import (
    GONE,
    LossLab,
    change,
    clock_off_by,
    leave_behind,
    unwanted,
    without_times,
)

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

DAY = 86_400.0


def crowd(lab: LossLab, size: int) -> list[str]:
    return [lab.fake.add() for _ in range(size)]


async def start_and_finish(lab: LossLab, *, others: int) -> None:
    """Have a lost create found below a crowd of tasks."""
    lab.fake.on("create", LOST)
    async with lab.open(left=others) as supervisor, create_task_group() as group:
        gate = lab.fake.gate("list")
        group.start_soon(supervisor.start, "m")
        await gate.entered.wait()
        crowd(lab, others)
        gate.open()
    assert lab.finished == {("cancelled", "shutdown"): 1}


# --- lists of all kinds ---------------------------------------------------------------------------


def says_there_is_more(page: TaskPage, _: int) -> TaskPage:
    return change(page, has_more=True)


def says_there_is_no_more(page: TaskPage, _: int) -> TaskPage:
    return change(page, has_more=False)


def counts_wrong(page: TaskPage, _: int) -> TaskPage:
    return change(page, total=0)


def counts_nothing(page: TaskPage, _: int) -> TaskPage:
    return change(page, total=None)


LIES = [says_there_is_more, says_there_is_no_more, counts_wrong, counts_nothing]


@pytest.mark.parametrize("lie", LIES)
async def test_found_in_a_list_that_lies(lie: Callable[[TaskPage, int], TaskPage]) -> None:
    """One wrong word about what follows hides no task."""
    lab = LossLab()
    lab.fake.bend = lie
    await start_and_finish(lab, others=350)


@pytest.mark.parametrize("lie", LIES)
async def test_absent_in_a_list_that_lies(lie: Callable[[TaskPage, int], TaskPage]) -> None:
    """One wrong word about what follows keeps no absence from being proven."""
    lab = LossLab()
    lab.fake.bend = lie
    lab.fake.on("create", GONE)
    crowd(lab, 250)
    async with lab.open(left=250, create_timeout=10) as supervisor:
        await unwanted(supervisor)
        assert current_time() < 20
        assert not supervisor.snapshot()


async def test_a_list_that_breaks_off() -> None:
    """A list that says there is more, and shows nothing, proves nothing."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    crowd(lab, 250)
    lab.fake.bend = lambda page, at: change(page, tasks=[]) if at >= 100 else page
    async with lab.open(left=250, create_timeout=10) as supervisor:
        await unwanted(supervisor)
        await sleep(600)
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]
        lab.fake.bend = lambda page, _: page
        await sleep(30)
        assert not supervisor.snapshot()


async def test_a_list_without_times() -> None:
    """A list that tells no times is read to its end: the task is found, or its absence proven."""
    lab = LossLab()
    lab.fake.bend_rows(without_times)
    await start_and_finish(lab, others=350)
    lab = LossLab()
    lab.fake.bend_rows(without_times)
    crowd(lab, 250)
    lab.fake.on("create", GONE)
    async with lab.open(left=250, create_timeout=10) as supervisor:
        await unwanted(supervisor)
        assert lab.lists() % 3 == 0


async def test_odd_rows() -> None:
    """Rows with ids that cannot be one, or times that are none, are passed over."""
    lab = LossLab()
    odd = iter(["", "..", "x", "y", "z"] * 99)

    def bend(info: TaskInfo) -> TaskInfo:
        if MARKER in (info.env or {}):
            return info
        return change(info, id=next(odd), env=None, message=None, last_activity_at="yesterday")

    lab.fake.bend_rows(bend)
    await start_and_finish(lab, others=50)


async def test_a_list_that_shifts() -> None:
    """A task that moves up, past the reader, while the list is read, is found all the same."""
    lab = LossLab(latency=0.01)
    lab.fake.on("create", LOST)
    async with lab.open(left=450) as supervisor, create_task_group() as group:
        gate = lab.fake.gate("list")
        group.start_soon(supervisor.start, "m")
        await gate.entered.wait()
        crowd(lab, 450)
        [lost] = [task for task in lab.fake.tasks.values() if MARKER in task.env]
        pages: list[int] = []

        def bend(page: TaskPage, at: int) -> TaskPage:
            pages.append(at)
            if pages == [0, 100, 200]:
                lab.fake._world.send(lost.id, "moves up")  # it stands at 450, and is never reached
            return page

        lab.fake.bend = bend
        gate.open()
        await lab.fake.until(lambda: lab.live == {"running": 1})
        assert pages[:6] == [0, 100, 200, 300, 400, 0]
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_a_list_that_never_rests() -> None:
    """While more than a page moves during each reading, no absence is proven."""
    lab = LossLab(latency=0.01)
    crowd(lab, 250)
    lab.fake.on("create", GONE)
    restless = True

    def bend(page: TaskPage, _: int) -> TaskPage:
        for task in list(lab.fake.tasks.values())[:150] if restless else ():
            lab.fake._world.send(task.id, "busy")
        return page

    lab.fake.bend = bend
    async with lab.open(left=250, create_timeout=5) as supervisor:
        await unwanted(supervisor)
        with move_on_after(60):
            await sleep_forever()
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]
        restless = False
        await sleep(60)
        assert not supervisor.snapshot()


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-DAY, -300, 300, DAY])
async def test_a_server_with_another_clock(off: float) -> None:
    """A server's clock that is far ahead, or far behind, hides no task and hinders no proof."""
    lab = LossLab()
    lab.fake.bend_rows(clock_off_by(off))
    await start_and_finish(lab, others=350)
    lab = LossLab()
    lab.fake.bend_rows(clock_off_by(off))
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=10) as supervisor:
        await unwanted(supervisor)
        assert current_time() >= 10
        assert not supervisor.snapshot()


# --- the proof ------------------------------------------------------------------------------------


async def test_absence_takes_two_scans() -> None:
    """A task that the first scan past the time-out does not show is found by the second."""
    await _show_from_the_second_scan_on()


async def test_one_scan_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with one scan as proof that task is taken for absent, while it runs."""
    monkeypatch.setattr(reconciler, "SCANS_FOR_ABSENCE", 1)
    with pytest.raises(ConnectionFailed):
        await _show_from_the_second_scan_on()


async def _show_from_the_second_scan_on() -> None:
    lab = LossLab()
    lab.fake.on("create", LOST)
    late = 0

    def bend(page: TaskPage, _: int) -> TaskPage:
        nonlocal late
        late += current_time() - began > 10
        return page if late >= 2 else change(page, tasks=[], total=0)

    began = current_time()
    lab.fake.bend = bend
    async with lab.open(create_timeout=10) as supervisor:
        task = await supervisor.start("m")
        assert task.state is State.RUNNING
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_scans_before_the_time_out_prove_nothing() -> None:
    """However often the list was read before the create's time-out, two scans come after it."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    times: list[float] = []
    lab.fake.always("list", lambda call: times.append(call.at))
    began = current_time()
    async with lab.open(create_timeout=30) as supervisor:
        await unwanted(supervisor)
    assert sum(at - began < 30 for at in times) > 10
    assert sum(at - began >= 30 for at in times) == 2


# --- the cost -------------------------------------------------------------------------------------


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_nothing_is_unknown() -> None:
    """While nothing is unknown the list is not read for it."""
    lab = LossLab(duration=0.0)
    async with lab.open() as supervisor:
        for _ in range(20):
            async with supervisor.task("m") as task:
                await task.result()
    assert lab.lists() == 0


async def test_the_search_slows_down() -> None:
    """What stays unknown is looked for often while a caller may wait, and seldom afterwards."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(grace=1) as supervisor:
        await unwanted(supervisor)
        assert 30 <= lab.lists() <= 80, "in the first minute"
        scans = lab.lists()
        await sleep(3600)
        assert 6 <= (lab.lists() - scans) / 60 <= 13, "a minute"
        scans = lab.lists()
        lab.fake.on("create", GONE)
        lab.fake.always("list", None)
        with fail_after(100):
            await unwanted(supervisor)
        assert lab.lists() - scans <= 80


async def test_a_list_that_takes_long_is_read_seldom() -> None:
    """No more than a quarter of the time is spent on reading."""
    lab = LossLab()
    crowd(lab, 950)
    lab.fake.on("create", GONE)
    lab.fake.always("list", 0.5)
    async with lab.open(left=950) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        await sleep(100)
        scans = lab.lists()
    assert scans <= current_time() / 0.5 / 4 + 10


async def test_the_server_says_how_long_to_wait() -> None:
    """A list that is refused with Retry-After is not asked again before."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    times: list[float] = []

    def refuse(call: Call) -> Exception | None:
        times.append(call.at)
        return too_many(20) if len(times) == 1 else None

    lab.fake.always("list", refuse)
    async with lab.open() as supervisor:
        await supervisor.start("m")
        assert times[1] - times[0] >= 20


async def test_down_to_the_cut_off() -> None:
    """A scan ends where no task can be younger than the create, and reads no older pages."""
    lab = LossLab()
    crowd(lab, 1000)
    await sleep(2 * 3600)
    crowd(lab, 150)
    lab.fake.on("create", GONE)
    offsets: set[int] = set()

    def bend(page: TaskPage, at: int) -> TaskPage:
        offsets.add(at)
        return page

    lab.fake.bend = bend
    async with lab.open(left=1150, create_timeout=10) as supervisor:
        await unwanted(supervisor)
    assert offsets == {0, 100}


@pytest.mark.slow
@pytest.mark.alone  # the caches that others use cost us CPU
@pytest.mark.backends(ASYNCIO)
@pytest.mark.parametrize("kinds", ["marked", "unmarked"])
async def test_a_hundred_thousand_tasks(kinds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 100,000 tasks, for 5,000 that are sought, never takes the loop for 5 ms at once."""
    lab, store, sought = LossLab(), MemoryStore(), 5000
    fields = {"message_digest": digest("m")} if kinds == "unmarked" else {}
    await leave_behind(lab, store, *map(str, range(sought)), **fields)
    now = datetime.now(UTC).isoformat()
    row = TaskInfo(id="t", status="running", message="another", last_activity_at=now)
    entered, go, calls = Event(), Event(), 0

    async def pages(*, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        nonlocal calls
        entered.set()
        await go.wait()
        calls += 1
        await checkpoint()
        rows = [change(row, id=f"t{offset + number}") for number in range(100)]
        return TaskPage(rows, 100_000, offset < 99_900)

    monkeypatch.setattr(lab.fake, "list", pages)
    async with lab.open(ledger=MemoryLedger(store), grace=1) as supervisor:
        await entered.wait()
        while len(supervisor.snapshot()) < sought:
            await checkpoint()
        go.set()
        longest = await _longest_turn(lambda: calls >= 2000)
        if longest > 0.005:  # a busy machine may spoil one scan
            longest = await _longest_turn(lambda: calls >= 4000)
        assert longest < 0.005


async def _longest_turn(done: Callable[[], bool]) -> float:
    """Return the seconds of CPU for which the loop was taken at most, until it is done."""
    longest = 0.0
    gc.collect()
    gc.disable()  # its pauses are not ours
    try:
        while not done():
            began = thread_time()
            await checkpoint()
            longest = max(longest, thread_time() - began)
    finally:
        gc.enable()
    return longest
