"""The ledger's file: how it is made, and what is said when something is wrong with it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event, Thread
from threading import enumerate as enumerate_threads
from typing import TYPE_CHECKING

import anyio
import pytest

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import SqliteLedger, Write, connection, schema, sqlite, statements
from sigmic_guard.testing.ledger_handles import ids, opened, write
from sigmic_guard.testing.records import make_record
from tests.backends import ASYNCIO, TRIO
from tests.open_files import open_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.ledger import Ledger

FILES = ("ledger.db", "ledger.db-wal", "ledger.db-shm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def administer(path: Path, *statements: str) -> list[object]:
    """Do something to the file as a shell of sqlite3 would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        rows: list[object] = []
        for statement in statements:
            rows += shell.execute(statement).fetchall()
        return rows


def desks_of(ledger: Ledger) -> tuple[sqlite._Desk, sqlite._Desk]:
    """The handle's two connections, the writer's first."""
    assert isinstance(ledger, SqliteLedger)
    assert ledger._session is not None
    return ledger._session.writer, ledger._session.reader


# --- made -----------------------------------------------------------------------------------------


async def test_only_its_user_can_read_it(path: Path) -> None:
    """All that is made is for this user alone, whatever the umask."""
    before = os.umask(0)
    try:
        async with opened(lambda: SqliteLedger(path)) as ledger:
            await write(ledger, make_record(), 0)
            assert mode(path.parent) == 0o700
            assert [mode(path.parent / name) for name in FILES] == [0o600] * 3
            assert mode(Path(f"{path}.owners")) == 0o700
            assert mode(Path(f"{path}.owners/owner-1.lock")) == 0o600
    finally:
        os.umask(before)


async def test_a_mode_that_was_given_stays(path: Path) -> None:
    """A file and a folder that exist keep their modes: a group may share them."""
    path.parent.mkdir(mode=0o770)
    path.touch()
    path.parent.chmod(0o770)
    path.chmod(0o660)
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record(), 0)
        assert mode(path.parent) == 0o770
        assert [mode(path.parent / name) for name in FILES] == [0o660] * 3


async def test_it_is_durable_at_every_commit(path: Path) -> None:
    """The connections have a write-ahead log that is synced at each commit."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        for pragma, value in ("synchronous", 2), ("journal_mode", "wal"), ("fullfsync", 1):
            for desk in desks_of(ledger):
                row = await desk.run(lambda db, sql: db.execute(sql).fetchone(), f"PRAGMA {pragma}")
                assert row == (value,)


async def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that counts is the one that was current when the ledger was made."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    ledger = SqliteLedger("ledger.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with opened(lambda: ledger):
        monkeypatch.chdir("/")
        await write(ledger, make_record(), 0)
        await ledger.upkeep(1.0)
    assert (tmp_path / "ledger.db").exists()
    assert not any((tmp_path / "elsewhere").iterdir())


async def test_a_link_leads_to_the_same_ledger(tmp_path: Path) -> None:
    """Whoever comes by a symbolic link shares file, log and owners with all others."""
    (tmp_path / "link.db").symlink_to(tmp_path / "ledger.db")
    async with (
        opened(lambda: SqliteLedger(tmp_path / "link.db")) as one,
        opened(lambda: SqliteLedger(tmp_path / "ledger.db"), "owner-2") as two,
    ):
        await write(one, make_record(), 0)
        assert await ids(two) == ["intent-1"]
        assert await two.owner_alive("owner-1")
    assert not (tmp_path / "link.db.owners").exists()


@pytest.mark.parametrize("name", ["a b.db", "ü🚀.db", "100%25?mode=ro#x.db", "-.db", "a'b\".db"])
async def test_a_path_may_have_any_name(tmp_path: Path, name: str) -> None:
    """No character of a path means anything to SQLite."""
    async with opened(lambda: SqliteLedger(tmp_path / name)) as ledger:
        await write(ledger, make_record(), 0)
        assert (tmp_path / name).stat().st_size


async def test_rows_are_there_after_all_closed(path: Path) -> None:
    """A ledger is read where the last process left it."""
    for number in range(3):
        async with opened(lambda: SqliteLedger(path), f"owner-{number}") as ledger:
            assert await ids(ledger) == [f"intent-{i}" for i in range(number)]
            await write(ledger, make_record(f"intent-{number}"), 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_closing_lets_go_of_everything(path: Path, *, fails: bool) -> None:
    """After aclose, or an open that failed, neither a thread is left nor a file open."""

    def threads() -> set[Thread]:
        return {each for each in enumerate_threads() if each.name.startswith("sigmic-guard")}

    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record(), 0)
        await ledger.get("intent-1")
        await ledger.upkeep(1.0)
        before, held = threads(), open_files(under=path.parent)
        assert len(before) == 2
        assert len(held) > 3
        if fails:
            with pytest.raises(LedgerError):
                await SqliteLedger(path).open("owner-1")
            for thread in threads() - before:
                await anyio.to_thread.run_sync(thread.join)
            # SQLite keeps a spare one of the file itself: to close it would drop the other's locks.
            assert set(open_files(under=path.parent)) == set(held)
    for thread in before:
        await anyio.to_thread.run_sync(thread.join)
    assert not open_files(under=path.parent)


async def test_a_handle_can_be_opened_again(path: Path) -> None:
    """After aclose, open makes the handle as good as new; twice in a row it is refused."""
    ledger = SqliteLedger(path)
    for number in range(2):
        async with opened(lambda: ledger, f"owner-{number}"):
            with pytest.raises(LedgerError, match="open already"):
                await ledger.open("owner-9")
            await write(ledger, make_record(f"intent-{number}"), 0)
            assert await ledger.owner_alive(f"owner-{number}")


# --- refused --------------------------------------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def under_a_file(path: Path) -> None:
    path.parent.write_text("")


def no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"dear diary, " * 1000)


def cut_off(path: Path) -> None:
    path.parent.mkdir()
    administer(path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (zeroblob(100000))")
    os.truncate(path, 5000)


def another_program(path: Path) -> None:
    path.parent.mkdir()
    administer(path, "CREATE TABLE diary (dear TEXT)")


def another_application(path: Path) -> None:
    path.parent.mkdir()
    administer(path, "PRAGMA application_id=1")


@pytest.mark.parametrize(
    "wrong, says",
    [
        (a_folder, "cannot be"),
        (under_a_file, "name another file"),
        (no_database, "damaged, or no ledger"),
        (cut_off, "damaged, or no ledger|another program"),
        (another_program, "another program, and was left alone"),
        (another_application, "another program, and was left alone"),
    ],
)
async def test_what_is_no_ledger_is_refused(
    path: Path, wrong: Callable[[Path], None], says: str
) -> None:
    """What cannot be a ledger is a LedgerError that names it, and is not touched."""
    wrong(path)
    before = path.read_bytes() if path.is_file() else None
    ledger = SqliteLedger(path)
    with pytest.raises(LedgerError, match=says) as caught:
        await ledger.open("owner-1")
    assert str(path) in str(caught.value)
    if before is not None:
        assert path.read_bytes() == before
        assert not Path(f"{path}.owners").exists()
    for leftover in path, path.parent:
        if leftover.exists():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    async with opened(lambda: ledger):  # the cause is gone
        await write(ledger, make_record(), 0)


@pytest.mark.parametrize("owner_id", ["", "../x", "a/b", ".", "x" * 65, "a\x00b", "-a"])
async def test_an_owner_id_is_the_name_of_a_file(path: Path, owner_id: str) -> None:
    """An owner id that could lead out of its folder is refused."""
    with pytest.raises(LedgerError, match="owner id"):
        await SqliteLedger(path).open(owner_id)


async def test_an_owner_lives_once(path: Path) -> None:
    """Nobody can open a ledger as an owner who is alive."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        with pytest.raises(LedgerError, match="alive already"):
            await SqliteLedger(path).open("owner-1")
        assert await ledger.owner_alive("owner-1")
    async with opened(lambda: SqliteLedger(path)):
        pass


# --- in use ---------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    for name in FILES:
        (path.parent / name).unlink()


def delete_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def move_away(path: Path) -> None:
    path.rename(path.with_name("away"))


@pytest.mark.parametrize("do", [delete, delete_the_folder, replace, move_away])
async def test_a_file_that_goes_is_noticed(path: Path, do: Callable[[Path], None]) -> None:
    """Nothing is written to a file that nobody else can find; the error says what to do."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record(), 0)
        do(path)
        for use in (
            lambda: write(ledger, make_record("b"), 0),
            lambda: ledger.get("intent-1"),
            lambda: ledger.upkeep(1.0),
        ):
            with pytest.raises(LedgerError, match=r"deleted|replaced|cannot be") as caught:
                await use()
            assert str(path) in str(caught.value)


async def test_a_file_that_comes_back_is_used_again(path: Path) -> None:
    """A file that is put back is the ledger as before."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        move_away(path)
        with pytest.raises(LedgerError, match=r"put it back .* or restart"):
            await write(ledger, make_record(), 0)
        path.with_name("away").rename(path)
        assert await write(ledger, make_record(), 0) is None
        assert await ids(ledger) == ["intent-1"]


async def test_a_file_that_goes_in_a_commit_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit to a file that was deleted meanwhile was not done."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        monkeypatch.setattr(statements, "_write", lambda *_: [*map(delete, [path])])
        with pytest.raises(LedgerError, match="was deleted while it was in use"):
            await write(ledger, make_record(), 0)


async def test_a_lock_that_stays_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody else keeps locked is a LedgerError, until it is not."""
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 0.05)
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await write(ledger, make_record("a"), 0)
        with closing(sqlite3.connect(path, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match=r"locked for 0.05 s") as caught:
                await write(ledger, make_record("b"), 0)
            assert str(path) in str(caught.value)
            assert await ids(ledger) == ["a"]  # reading goes on
            with pytest.raises(LedgerError, match="locked"):
                await SqliteLedger(path).open("owner-2")
        assert await write(ledger, make_record("b"), 0) is None
        assert await ids(ledger) == ["a", "b"]


async def test_a_full_disk_is_told(path: Path) -> None:
    """A batch that finds no room is refused whole, and the ledger goes on with what fits."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await desks_of(ledger)[0].run(lambda db: db.execute("PRAGMA max_page_count=20"))
        batch = [Write(make_record(f"{number}", last_error="x" * 1000), 0) for number in range(99)]
        with pytest.raises(LedgerError, match=r"is full .* make room"):
            await ledger.commit(batch)
        assert await ids(ledger) == []
        assert list(await ledger.commit(batch)) == [None] * 99  # a new connection has no limit


async def test_damage_is_told(path: Path) -> None:
    """A file that is damaged while nobody looks is a LedgerError that says what to do."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        rows = [make_record(f"{number}", last_error="x" * 500) for number in range(500)]
        await ledger.commit([Write(row, 0) for row in rows])
    with path.open("r+b") as file:
        file.seek(30 * 4096)
        file.write(os.urandom(40 * 4096))
    async with opened(lambda: SqliteLedger(path)) as ledger:
        with pytest.raises(LedgerError, match=r"damaged, or no ledger .* move it out of the way"):
            await ledger.unfinished()


async def test_a_version_that_comes_is_noticed(path: Path) -> None:
    """A file that a newer version takes over is not written by an older one any more."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        administer(path, "PRAGMA user_version=99")
        for _ in range(2):
            with pytest.raises(LedgerError, match=r"has version 99.* install the newer one"):
                await write(ledger, make_record(), 0)
        administer(path, f"PRAGMA user_version={len(schema.MIGRATIONS)}")
        assert await write(ledger, make_record(), 0) is None


# --- let go of ------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells open files by Linux's /proc")
@pytest.mark.backends(ASYNCIO, TRIO)
async def test_a_closed_ledger_has_nothing_open(path: Path) -> None:
    """After aclose() neither the file nor its log nor a lock file is open any more."""
    for number in range(50):
        ledger = SqliteLedger(path)
        await ledger.open(f"owner-{number}")
        assert await ledger.unfinished() == []
        assert len(open_files(under=path.parent)) > 3
        await ledger.aclose()
        assert open_files(under=path.parent) == []
        assert not Path(f"{path}-wal").exists(), "it was folded in by the last connection"


async def test_connections_close_one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one folds the log into the file, which none does while it sees another."""
    barrier, met = Barrier(2), []

    class Slow(sqlite3.Connection):
        def close(self) -> None:
            with suppress(BrokenBarrierError):
                barrier.wait(0.2)
                met.append(self)
            super().close()

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Slow))
    ledger = SqliteLedger(path)
    await ledger.open("owner-1")
    assert await ledger.unfinished() == []
    await ledger.aclose()
    assert barrier.broken
    assert not met


async def test_a_ledger_that_does_not_open_has_nothing_open(path: Path) -> None:
    """After an open() that failed no connection of its own is left."""
    async with opened(lambda: SqliteLedger(path)):
        for _ in range(20):
            with pytest.raises(LedgerError, match="alive already"):
                await SqliteLedger(path).open("owner-1")
            assert list(connection._open_files.values()) == [1]


async def test_a_read_that_hangs_does_not_keep_aclose(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aclose() leaves a read behind that takes longer than its bound."""
    monkeypatch.setattr(sqlite, "READING", 0.01)
    go_on = Event()
    try:
        async with anyio.create_task_group() as group:
            ledger = SqliteLedger(path)
            await ledger.open("owner-1")
            group.start_soon(desks_of(ledger)[1].run, lambda _: go_on.wait())
            await anyio.wait_all_tasks_blocked()
            await ledger.aclose()
            assert not go_on.is_set()
            go_on.set()
    finally:
        go_on.set()
