"""What is left of a shutdown's budget belongs to the ledger: ends are written down, or counted."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from threading import Event as ThreadEvent
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import create_task_group, current_time, sleep, sleep_forever

from sigmic_guard import LedgerError, State
from sigmic_guard.ledger import MemoryLedger, Refusal, Write, connection
from sigmic_guard.supervisor.face.draining import Drain
from sigmic_guard.supervisor.ground import outbox
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.observe.sums import add_up
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sigmic_guard import Supervisor

virtual = pytest.mark.backends(TRIO_VIRTUAL)


class SlowLedger(MemoryLedger):
    """Takes its time for each row, once it is told to."""

    per_row = 0.0

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        await sleep(self.per_row * len(writes))
        return await super().commit(writes)


class LockedLedger(MemoryLedger):
    """Somebody else holds its lock until an instant; whoever waits for it gives up after a time."""

    busy = 5.0
    until = 0.0

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        left = self.until - current_time()
        await sleep(min(max(left, 0.0), self.busy))
        if left > self.busy:
            raise LedgerError("the ledger was locked")
        return await super().commit(writes)


class StuckLedger(MemoryLedger):
    """Fails the first commit that tells of an end, does so many others, and then hangs."""

    failed = False
    commits = 0

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        if any(write.record.finished_at is not None for write in writes):
            if not self.failed:
                self.failed = True
                raise LedgerError("the ledger was locked")
            if not self.commits:
                await sleep_forever()
            self.commits -= 1
        return await super().commit(writes)


async def start_many(supervisor: Supervisor, number: int) -> None:
    async with create_task_group() as group:
        for _ in range(number):
            group.start_soon(supervisor.start, "m")


@virtual
@pytest.mark.parametrize("per_row", [0.001, 0.01, 0.012])
async def test_a_ledger_that_is_slow_gets_what_is_left(per_row: float) -> None:
    """A ledger that needs seconds for the last writes gets them: every row says how it ended."""
    lab, ledger = Lab(), SlowLedger()
    async with lab.open(ledger=ledger, grace=8) as supervisor:
        await start_many(supervisor, 300)
        ledger.per_row = per_row
        report = await supervisor.shutdown()
    assert (report.cancelled, report.unwritten, report.clean) == (300, 0, True)
    assert ledger.store.rows == {}


@virtual
async def test_a_ledger_that_is_too_slow_is_counted() -> None:
    """What cannot be written in time is counted, and the exit is in time."""
    lab, ledger = Lab(), SlowLedger()
    async with lab.open(ledger=ledger, grace=3) as supervisor:
        await start_many(supervisor, 300)
        ledger.per_row = 0.1
        began = current_time()
        report = await supervisor.shutdown()
    assert current_time() - began <= 4
    assert (report.cancelled, report.unwritten, report.clean) == (300, 300, True)
    assert len(ledger.store.rows) == 300


@virtual
@pytest.mark.parametrize("lock", [0.5, 4.0, 8.0, 12.0, 19.0])
async def test_a_lock_that_somebody_holds(lock: float) -> None:
    """A lock that is let go of within the budget costs no row, however often it is waited for."""
    lab, ledger = Lab(), LockedLedger()
    async with lab.open(ledger=ledger, grace=20) as supervisor:
        await start_many(supervisor, 10)
        ledger.until = current_time() + lock
        report = await supervisor.shutdown()
    assert (report.cancelled, report.unwritten) == (10, 0)
    assert lock <= report.seconds <= lock + 1.1
    assert ledger.store.rows == {}


@virtual
@pytest.mark.parametrize("grace", [0.0, 1.0, 5.1, 8.0])
async def test_a_lock_that_outlasts_the_budget(grace: float) -> None:
    """A lock that stays is left in time, and each end that is not written is counted."""
    lab, ledger = Lab(), LockedLedger()
    async with lab.open(ledger=ledger, grace=grace) as supervisor:
        await start_many(supervisor, 10)
        ledger.until = current_time() + 1000
        began = current_time()
        report = await supervisor.shutdown()
    assert current_time() - began <= grace + 1
    assert report.unwritten + len(report.unconfirmed) == 10
    assert report.unwritten == report.cancelled
    assert grace == 0 or report.unwritten == 10
    assert {row.state for row in ledger.store.rows.values()} == {State.RUNNING}


@virtual
async def test_a_commit_that_hangs_in_the_end_is_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of many rows those are counted whose transaction was not seen to be done."""
    monkeypatch.setattr(outbox, "MAX_LAST_ROWS", 10)
    lab, ledger = Lab(), StuckLedger()
    ledger.commits = 2
    async with lab.open(ledger=ledger, grace=30) as supervisor:
        await start_many(supervisor, 45)
        report = await supervisor.shutdown()
    assert (report.cancelled, report.unwritten) == (45, 25)
    assert len(ledger.store.rows) == 25


@virtual
async def test_what_was_let_go_is_an_end_too() -> None:
    """A task that is detached runs on, and would be cancelled if its row said that it is ours."""
    lab, ledger = Lab(), LockedLedger()
    async with lab.open(ledger=ledger, grace=2, left=1) as supervisor:
        await supervisor.start("m", on_shutdown="detach")
        ledger.until = current_time() + 1000
        report = await supervisor.shutdown()
    assert (report.detached, report.unwritten) == (1, 1)


@virtual
async def test_what_is_unconfirmed_is_not_counted_twice() -> None:
    """``unwritten`` counts ends that were proven; the others are ``unconfirmed``."""
    lab, ledger = Lab(), LockedLedger()
    async with lab.open(ledger=ledger, grace=2, left=3) as supervisor:
        await start_many(supervisor, 3)
        lab.fake.always("delete", HANG)
        ledger.until = current_time() + 1000
        report = await supervisor.shutdown()
    assert (len(report.unconfirmed), report.unwritten) == (3, 0)


@virtual
async def test_who_is_in_a_hurry_gets_the_report_sooner() -> None:
    """A shorter grace, and a second request as of a signal, cut the last writes short."""
    lab, ledger = Lab(), LockedLedger()
    async with lab.open(ledger=ledger, grace=100) as supervisor, create_task_group() as group:
        await start_many(supervisor, 3)
        ledger.until = current_time() + 1000
        began = current_time()
        group.start_soon(supervisor.shutdown)
        await sleep(60)
        report = await supervisor.shutdown(1)
        assert 61 <= current_time() - began < 62
    assert report.unwritten == 3


@virtual
async def test_the_report_comes_after_the_last_write() -> None:
    """Whoever waits for the report, and whoever gets it, sees what it says in the ledger."""
    lab, ledger = Lab(), SlowLedger()
    async with lab.open(ledger=ledger, grace=30) as supervisor, create_task_group() as group:
        await start_many(supervisor, 10)
        ledger.per_row = 0.5

        async def shut() -> None:
            report = await supervisor.shutdown()
            assert (report.unwritten, ledger.store.rows) == (0, {})
            assert report.seconds >= 5

        group.start_soon(shut)
        group.start_soon(shut)


@virtual
async def test_a_bug_in_the_drain_leaves_its_ends_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that is aborted writes down what was known by then, and counts what it could not."""
    for lock, unwritten in (3.0, 0), (1000.0, 4):
        lab, ledger = Lab(), LockedLedger()
        supervisor = lab.make(ledger=ledger, grace=8)

        async def bug(self: Drain, tasks: object) -> None:
            await sleep(1)
            raise ZeroDivisionError

        monkeypatch.setattr(Drain, "_wait", bug)
        began = current_time()
        with pytest.raises(ZeroDivisionError):
            async with supervisor:
                await start_many(supervisor, 4)
                ledger.until = current_time() + lock
        assert current_time() - began <= 9.5
        assert supervisor._session.drain is not None
        assert supervisor._session.drain.report is not None
        assert supervisor._session.drain.report.unwritten == unwritten
        assert len(ledger.store.rows) == unwritten
        assert not lab.fake.live


# --- a real file ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def states(file: Path) -> Counter[str]:
    with closing(sqlite3.connect(file)) as shell:
        return Counter(row[0] for row in shell.execute("SELECT state FROM tasks"))


class Holder:
    """A shell of sqlite3 that holds the lock of a file."""

    def __init__(self, file: Path, seconds: float) -> None:
        self._locked, self.let_go = ThreadEvent(), ThreadEvent()
        self._thread = Thread(target=self._hold, args=(file, seconds))
        self._thread.start()
        assert self._locked.wait(10)

    def _hold(self, file: Path, seconds: float) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            self._locked.set()
            self.let_go.wait(seconds)
            shell.execute("ROLLBACK")

    def end(self) -> None:
        self.let_go.set()
        self._thread.join()


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    made: list[Holder] = []
    yield made
    for holder in made:
        holder.end()


async def test_a_file_that_stays_locked_is_left_in_time(
    file: Path, holders: list[Holder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lock that outlasts the budget the exit waits for none, and all is counted."""
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 60.0)
    lab = Lab()
    async with lab.open(ledger=f"sqlite:///{file}", grace=0.5) as supervisor:
        await start_many(supervisor, 20)
        holders.append(await anyio.to_thread.run_sync(Holder, file, 60.0))
        began = perf_counter()
        report = await supervisor.shutdown()
    assert perf_counter() - began < 20, "1.5 s, and what a loaded machine takes; not the 60"
    assert (report.cancelled, report.unwritten) == (20, 20)
    assert states(file).keys() <= {"intent", "running"}


@pytest.mark.slow
@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_a_file_that_is_locked_for_8_seconds(file: Path, holders: list[Holder]) -> None:
    """With grace=20 a foreign writer's 8 s cost no row."""
    lab = Lab()
    async with lab.open(ledger=f"sqlite:///{file}", grace=20) as supervisor:
        await start_many(supervisor, 1000)
        holders.append(await anyio.to_thread.run_sync(Holder, file, 8.0))
        report = await supervisor.shutdown()
    assert (report.cancelled, report.unwritten) == (1000, 0)
    assert report.seconds < 15
    assert states(file) == {"cancelled": 1000}


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_a_hundred_thousand_rows(file: Path) -> None:
    """With grace=30 the ends of 100,000 tasks are written down, with room to spare."""
    lab = Lab()
    async with lab.open(ledger=f"sqlite:///{file}", grace=30) as supervisor:

        async def start(number: int) -> None:
            for _ in range(number):
                await supervisor.start("m")

        async with create_task_group() as group:
            for _ in range(200):
                group.start_soon(start, 500)
        report = await supervisor.shutdown()
    assert (report.cancelled, report.unwritten) == (100_000, 0)
    assert report.seconds < 25
    assert states(file) == {"cancelled": 100_000}
    add_up(lab.registry)
