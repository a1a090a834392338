"""A file of an older version becomes one of the present, whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import SqliteLedger, schema
from sigmic_guard.ledger.connection import LedgerFile
from sigmic_guard.testing.ledger_handles import ids, opened, write
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def administer(path: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        rows: list[Any] = []
        for statement in statements:
            rows += shell.execute(statement).fetchall()
        return rows


async def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    """Version 0 is an empty file, made by touch or by a process that died at once."""
    path.touch()
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record(), 0)
    [[version], [application_id]] = administer(path, "PRAGMA user_version", "PRAGMA application_id")
    assert version == len(schema.MIGRATIONS)
    assert application_id == schema.APPLICATION_ID


async def test_an_older_file_is_brought_to_the_present(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration adds what is new, and the rows stay."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record(), 0)
    newer = [*schema.MIGRATIONS, ("CREATE TABLE mood (a)",), ("ALTER TABLE mood ADD COLUMN b",)]
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    async with opened(lambda: SqliteLedger(path)) as ledger:
        assert await ids(ledger) == ["intent-1"]
    assert administer(path, "PRAGMA user_version", "SELECT a, b FROM mood") == [(len(newer),)]


async def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrations are one transaction: after a failure the file is of its old version."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record(), 0)
    [old] = administer(path, "PRAGMA user_version")
    with monkeypatch.context() as patched:
        wrong = [*schema.MIGRATIONS, ("CREATE TABLE mood (a)", "CREATE TABLE mood (a)")]
        patched.setattr(schema, "MIGRATIONS", wrong)
        with pytest.raises(LedgerError, match="mood already exists"):
            await SqliteLedger(path).open("owner-1")
    assert administer(path, "PRAGMA user_version") == [old]
    assert not administer(path, "SELECT 1 FROM sqlite_master WHERE name='mood'")
    async with opened(lambda: SqliteLedger(path)) as ledger:
        assert await ids(ledger) == ["intent-1"]


async def test_a_file_of_the_future_is_left_alone(path: Path) -> None:
    """A newer version is refused with what to do, and not touched."""
    async with opened(lambda: SqliteLedger(path)):
        pass
    administer(path, "PRAGMA user_version=7", "PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"has version 7.* install the newer one"):
        await SqliteLedger(path).open("owner-1")
    assert path.read_bytes() == before


@pytest.mark.parametrize("turn", range(5))
def test_many_may_make_it_at_once(path: Path, turn: int) -> None:
    """Whoever opens a new file at the same moment gets a ledger, and it is made once."""
    barrier, failed = Barrier(4), list[BaseException]()

    def connect() -> None:
        file = LedgerFile(str(path))
        barrier.wait()
        try:
            file.prepare()
            connection = file.connect()
            connection.execute("SELECT * FROM tasks")
            file.disconnect(connection)
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


async def test_version_1_is_brought_to_the_present(path: Path) -> None:
    """It knew nothing of deaths that were seen; they count from the first look."""
    identity = f"PRAGMA application_id={schema.APPLICATION_ID}", "PRAGMA user_version=1"
    administer(path, *schema.MIGRATIONS[0], *identity)
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record(owner_id="dead"), 0)
        assert await ledger.dead_for("dead") == 0.0
        assert await ledger.dead_for("dead") > 0.0
