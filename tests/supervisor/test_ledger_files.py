"""A ledger's file fails under a running supervisor: errors are clear, and DELETEs are sent."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from anyio import current_time, fail_after

from sigmic_guard import LedgerError
from sigmic_guard.ledger import SqliteLedger, statements
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRACE = 2.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


def delete(path: Path) -> None:
    """As a cleaner of folders does."""
    for file in path.parent.glob("ledger.db*"):
        if file.is_file():
            file.unlink()


def delete_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace(path: Path) -> None:
    delete(path)
    path.write_bytes(b"")


def be_full(path: Path) -> None:
    """Let no page be added, and let each row need one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON tasks "
            "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )


BROKEN = [delete, delete_folder, replace, be_full]


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda function: function.__name__)
async def test_a_ledger_that_breaks_stops_creates_and_no_delete(
    path: Path, break_it: Callable[[Path], None]
) -> None:
    """Nothing is created any more, the error names the file, and what runs is ended in time."""
    lab = Lab()
    async with lab.open(ledger=SqliteLedger(path), grace=GRACE) as supervisor:
        tasks = [await supervisor.start(f"m{number}") for number in range(5)]
        created = lab.fake.count("create")
        break_it(path)
        for _ in range(2):
            with fail_after(10), pytest.raises(LedgerError, match=re.escape(str(path))):
                await supervisor.start("too late")
        assert lab.fake.count("create") == created
        assert (await tasks[0].cancel()).result == "acknowledged"
        began = current_time()
        report = await supervisor.shutdown()
        assert current_time() - began < GRACE + 1
        assert report.clean
    assert lab.fake.live == set()


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A disk that answers no write from some moment on."""
    answer = Event()
    write = statements._write

    def begin() -> None:
        def wait(*_: object) -> list[None]:
            answer.wait()
            raise sqlite3.OperationalError("the disk came back in pieces")

        monkeypatch.setattr(statements, "_write", wait)

    yield begin
    monkeypatch.setattr(statements, "_write", write)
    answer.set()


async def test_a_disk_that_hangs_hangs_nobody(path: Path, stuck: Callable[[], None]) -> None:
    """A create gives up after its time-out, nothing is sent, and the shutdown keeps its time."""
    lab = Lab()
    ledger = SqliteLedger(path)
    async with lab.open(ledger=ledger, grace=GRACE, create_timeout=0.2) as supervisor:
        task = await supervisor.start("m")
        stuck()
        with fail_after(5), pytest.raises(LedgerError, match=r"did not answer within 0\.2 s"):
            await supervisor.start("too late")
        assert lab.fake.count("create") == 1
        assert (await task.cancel()).result == "acknowledged"
        began = current_time()
        await supervisor.shutdown()
        assert current_time() - began < GRACE + 1
    assert lab.fake.live == set()


async def test_a_ledger_that_cannot_be_opened_lets_nobody_in(path: Path) -> None:
    """Entering raises a LedgerError that names the file; nothing was begun, and it can be tried
    again."""
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)
    lab = Lab()
    with pytest.raises(LedgerError, match="ledger"):
        async with lab.make(ledger=SqliteLedger(path)):
            raise AssertionError
    path.unlink()
    async with lab.open(ledger=SqliteLedger(path)) as supervisor:
        await supervisor.start("m")
