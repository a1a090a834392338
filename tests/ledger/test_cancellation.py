"""A commit whose caller is cancelled: the caller goes, and the ledger stays sound."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from sigmic_guard.ledger import Refusal, SqliteLedger, statements
from sigmic_guard.testing.ledger_handles import ids, opened, write
from sigmic_guard.testing.records import make_record
from tests.backends import ASYNCIO, TRIO, UVLOOP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sigmic_guard.ledger import Ledger

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO)

_write: Final = statements._write


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with opened(lambda: SqliteLedger(tmp_path / "ledger.db")) as ledger:
        yield ledger


class Disk:
    """Stops in the middle of each transaction, until it is told to go on."""

    def __init__(self) -> None:
        self.reached = Event()
        self.go_on = Event()
        self.begun = 0

    def write(self, *args: Any) -> list[Refusal | None]:
        self.begun += 1
        self.reached.set()
        assert self.go_on.wait(30)
        return _write(*args)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(statements, "_write", disk.write)
    yield disk
    disk.go_on.set()


async def reached(disk: Disk) -> None:
    assert await anyio.to_thread.run_sync(disk.reached.wait, 30)


async def test_a_commit_can_be_cancelled_at_once(ledger: Ledger, disk: Disk) -> None:
    """The caller waits for no disk; repeated, the commit finds its rows and is done."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(write, ledger, make_record(), 0)
            await reached(disk)
            group.cancel_scope.cancel()
        assert not disk.go_on.is_set()
        disk.go_on.set()
        assert await write(ledger, make_record(), 0) is None
        assert disk.begun == 2
        assert await write(ledger, make_record(owner_id="else"), 0) is Refusal.CONFLICT


async def test_a_commit_that_had_not_begun_is_not_done(ledger: Ledger, disk: Disk) -> None:
    """What is cancelled in the queue is dropped: no heap of work waits behind a slow disk."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(write, ledger, make_record("first"), 0)
            await reached(disk)
            async with anyio.create_task_group() as others:
                for number in range(50):
                    others.start_soon(write, ledger, make_record(f"{number}"), 0)
                await anyio.wait_all_tasks_blocked()
                others.cancel_scope.cancel()
            disk.go_on.set()
        assert await write(ledger, make_record("last"), 0) is None
        assert disk.begun == 2
        assert await ids(ledger) == ["first", "last"]


async def test_reading_goes_on(ledger: Ledger, disk: Disk) -> None:
    """A transaction under way keeps nobody from reading what was there before."""
    disk.go_on.set()
    await write(ledger, make_record("before"), 0)
    disk.go_on.clear()
    disk.reached.clear()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(write, ledger, make_record("now"), 0)
            await reached(disk)
            assert await ids(ledger) == ["before"]
            assert await ledger.owner_alive("owner-1")
            disk.go_on.set()
        assert await ids(ledger) == ["before", "now"]


async def test_closing_comes_after_what_was_begun(
    ledger: Ledger, disk: Disk, tmp_path: Path
) -> None:
    """A handle that is closed, and left, during a commit closes itself when that is done."""
    with anyio.fail_after(30):
        async with opened(lambda: SqliteLedger(tmp_path / "ledger.db"), "owner-2") as other:
            async with anyio.create_task_group() as group:
                group.start_soon(write, ledger, make_record(), 0)
                await reached(disk)
                group.cancel_scope.cancel()
            with anyio.move_on_after(0):
                await ledger.aclose()
            assert await other.owner_alive("owner-1")
            disk.go_on.set()
            while await other.owner_alive("owner-1"):
                await anyio.lowlevel.checkpoint()
            assert await ids(other) == ["intent-1"]


async def test_an_open_that_is_cancelled_leaves_nobody(tmp_path: Path) -> None:
    """Whoever is cancelled while a ledger opens is no owner, however far it had come."""
    path = tmp_path / "ledger.db"
    async with opened(lambda: SqliteLedger(path), "other") as other:
        for number in range(20):
            ledger = SqliteLedger(path)
            async with anyio.create_task_group() as group:
                group.start_soon(ledger.open, f"owner-{number}")
                for _ in range(number):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            await ledger.aclose()
            with anyio.fail_after(30):
                while await other.owner_alive(f"owner-{number}"):
                    await anyio.lowlevel.checkpoint()


async def test_a_handle_is_used_by_many_at_once(ledger: Ledger) -> None:
    """Calls that overlap, some of which are cancelled, each get their own answer."""
    answers: dict[int, object] = {}

    async def use(number: int) -> None:
        with anyio.move_on_after(None if number % 3 else number / 1e5):
            record = make_record(f"{number:03}", owner_id=f"{number}")
            assert await write(ledger, record, 0) is None
            answers[number] = await ledger.get(record.intent_id) == record

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number in range(150):
                group.start_soon(use, number)
    assert all(answers.values())
    assert len(answers) >= 100
    assert {f"{number:03}" for number in answers} <= set(await ids(ledger))
