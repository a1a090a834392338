"""Lock files, and what is left to know of an owner whose file is missing."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anyio import fail_after

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import SqliteLedger, presence
from sigmic_guard.ledger.owners import OwnerLock, Sign, examine, sweep
from sigmic_guard.testing.ledger_handles import opened, write
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sigmic_guard.ledger import Ledger

DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def folder(path: Path) -> Path:
    return Path(f"{path}.owners")


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    async with opened(lambda: SqliteLedger(path)) as ledger:
        yield ledger


def administer(path: Path, statement: str, *parameters: Any) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        return shell.execute(statement, parameters).fetchall()


def owners(path: Path) -> dict[str, float | None]:
    """When each of the owners left."""
    return dict(administer(path, "SELECT owner_id, left_at FROM owners"))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# --- lock files -----------------------------------------------------------------------------------


def test_a_lock_is_held_until_it_is_released(folder: Path) -> None:
    """The file says alive as long as the lock is held, and is missing afterwards."""
    assert examine(folder, "a") is Sign.MISSING
    lock = OwnerLock(folder, "a")
    assert names(folder) == ["a.lock"]
    assert examine(folder, "a") is Sign.ALIVE
    lock.release(left=True)
    assert examine(folder, "a") is Sign.MISSING


def test_a_lock_is_held_before_it_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody finds the file of a living owner without its lock, not even for a moment."""
    rename = Path.rename
    seen = []

    def look(self: Path, target: Path) -> Path:
        with self.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        seen.append(target.exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    OwnerLock(folder, "a").release(left=True)
    assert seen == [False]


def test_the_file_stays_where_nothing_is_on_record(folder: Path) -> None:
    """Who could not write that it left stays to be found dead."""
    OwnerLock(folder, "a").release(left=False)
    assert examine(folder, "a") is Sign.DEAD


def test_looking_hinders_nobody(folder: Path) -> None:
    """Any number may look at a dead owner's file at once, and one that looks keeps none alive."""
    OwnerLock(folder, "a").release(left=False)
    with (folder / "a.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert examine(folder, "a") is Sign.DEAD
        OwnerLock(folder, "a").release(left=True)


def test_other_descriptors_take_no_lock_away(folder: Path) -> None:
    """The lock stays when something else in the process opens and closes the file."""
    lock = OwnerLock(folder, "a")
    (folder / "a.lock").read_bytes()
    assert examine(folder, "a") is Sign.ALIVE
    lock.release(left=True)


def test_a_file_that_has_gone_is_made_again(folder: Path) -> None:
    """Mending gives a living owner its file back, and does nothing where it is."""
    lock = OwnerLock(folder, "a")
    lock.mend()
    before = (folder / "a.lock").stat()
    lock.mend()
    assert os.path.samestat(before, (folder / "a.lock").stat())
    (folder / "a.lock").unlink()
    folder.rmdir()
    lock.mend()
    assert examine(folder, "a") is Sign.ALIVE
    assert names(folder) == ["a.lock"]
    lock.release(left=True)


def test_a_look_at_the_old_file_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opened a file just before its owner made a new one looks again."""
    lock = OwnerLock(folder, "a")
    open_, mended = os.open, list[int]()

    def open_and_mend(path: Path, *args: Any) -> int:
        fd = open_(path, *args)
        if not mended and Path(path).suffix == ".lock":
            mended.append(fd)
            Path(path).unlink()
            lock.mend()
        return fd

    monkeypatch.setattr(os, "open", open_and_mend)
    assert examine(folder, "a") is Sign.ALIVE
    assert mended
    lock.release(left=True)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EMFILE, errno.EIO, errno.ELOOP])
def test_what_cannot_be_told_is_alive(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """No error of the system makes anybody dead."""
    OwnerLock(folder, "a").release(left=False)

    def fail(*args: object) -> None:
        raise OSError(error, os.strerror(error))

    for function in "open", "flock":
        with monkeypatch.context() as patched:
            patched.setattr(os if function == "open" else fcntl, function, fail)
            assert examine(folder, "a") is Sign.ALIVE
    assert examine(folder, "a") is Sign.DEAD


def test_no_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """A link in the place of a lock file is not looked through."""
    folder.mkdir()
    (tmp_path / "elsewhere").touch()
    (folder / "a.lock").symlink_to(tmp_path / "elsewhere")
    assert examine(folder, "a") is Sign.ALIVE


def test_a_lock_that_cannot_be_made_is_told(folder: Path) -> None:
    """A folder that cannot be written is a LedgerError, and nothing is left half-made."""
    folder.touch()
    with pytest.raises(LedgerError, match=r"lock file .* cannot be made"):
        OwnerLock(folder, "a")


def test_a_sweep_takes_the_dead_only(folder: Path) -> None:
    """Files of the dead and old half-made ones go; the living, the new and the kept stay."""
    alive = OwnerLock(folder, "alive")
    for owner_id in "dead", "kept":
        OwnerLock(folder, owner_id).release(left=False)
    for name in "old.tmp", "new.tmp", "other.txt":
        (folder / name).touch()
    for name in "old.tmp", "other.txt":
        os.utime(folder / name, (0, 0))
    sweep(folder, keep={"kept"})
    assert names(folder) == ["alive.lock", "kept.lock", "new.tmp", "other.txt"]
    sweep(folder / "missing", keep=())
    alive.release(left=True)


# --- rows -----------------------------------------------------------------------------------------


async def test_a_missing_file_proves_nothing(ledger: Ledger, path: Path, folder: Path) -> None:
    """An owner whose file was taken away lives, and makes it again at its next upkeep."""
    async with opened(lambda: SqliteLedger(path), "other") as other:
        (folder / "other.lock").unlink()
        await ledger.upkeep(1e10)
        assert await ledger.owner_alive("other")
        assert owners(path)["other"] is None
        await other.upkeep(2.0)
        assert (folder / "other.lock").exists()
    assert not await ledger.owner_alive("other")


async def test_who_left_is_dead_without_a_file(ledger: Ledger, path: Path, folder: Path) -> None:
    """A row that says that the owner left needs no file."""
    async with opened(lambda: SqliteLedger(path), "other"):
        pass
    assert names(folder) == ["owner-1.lock"]
    assert owners(path)["other"] is not None
    assert not await ledger.owner_alive("other")


@pytest.mark.parametrize(
    "then, now, alive",
    [("a", "a", True), ("a", "b", False), (None, "b", True), ("a", None, True), (None, None, True)],
)
async def test_nobody_outlives_a_boot(
    ledger: Ledger,
    path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    then: str | None,
    now: str | None,
    *,
    alive: bool,
) -> None:
    """Without its file an owner of another boot is dead; of the same or of any it lives."""
    administer(path, "INSERT INTO owners VALUES ('other', ?, 1, 1.0, 2.0, NULL, NULL, NULL)", then)
    monkeypatch.setattr(presence, "boot_id", lambda: now)
    assert await ledger.owner_alive("other") is alive
    await ledger.upkeep(5.0)
    assert owners(path)["other"] == (None if alive else 5.0)


async def test_the_dead_are_marked_before_their_file_goes(
    ledger: Ledger, path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the mark cannot be written the file stays, so that the owner stays dead."""
    administer(path, "INSERT INTO owners VALUES ('other', NULL, 1, 1.0, 2.0, NULL, NULL, NULL)")
    (folder / "other.lock").touch()
    administer(
        path,
        "CREATE TRIGGER no BEFORE UPDATE ON owners WHEN new.owner_id='other' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    with pytest.raises(LedgerError, match="no"):
        await ledger.upkeep(5.0)
    assert (folder / "other.lock").exists()
    assert not await ledger.owner_alive("other")
    administer(path, "DROP TRIGGER no")
    await ledger.upkeep(6.0)
    assert owners(path)["other"] == 6.0
    assert names(folder) == ["owner-1.lock"]


async def test_who_was_taken_for_dead_says_no(ledger: Ledger, path: Path) -> None:
    """An owner that finds itself marked as gone takes the mark away."""
    administer(path, "UPDATE owners SET left_at=1.0")
    await ledger.upkeep(5.0)
    assert owners(path) == {"owner-1": None}
    administer(path, "DELETE FROM owners")
    await ledger.upkeep(6.0)
    assert owners(path) == {"owner-1": None}


async def test_the_dead_were_seen_to_the_second(
    ledger: Ledger, path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two calls of upkeep an owner's thread goes on to show that it lives, by its clock."""
    monkeypatch.setattr("sigmic_guard.ledger.thread.BEAT", 0.02)
    async with opened(lambda: SqliteLedger(path), "owner-2") as dies:
        await write(dies, make_record(owner_id="owner-2"), 0)
        await dies.upkeep(1000.0)
        with fail_after(20):
            while (seen := await ledger.last_seen("owner-2")) == 1000.0:
                pass
        assert seen is not None
        assert 1000.0 < seen < 1020.0
        # The kernel does this at its death; and then its file is cleared away.
        vars(dies)["_session"].lock.release(left=False)
        os.utime(folder / "owner-2.lock", (1500.0, 1500.0))
        await ledger.upkeep(2000.0)
        assert not (folder / "owner-2.lock").exists()
        assert await ledger.last_seen("owner-2") == pytest.approx(1500.0)


async def test_those_long_gone_are_forgotten(path: Path) -> None:
    """Who left long ago is forgotten, unless something unfinished is left of it."""
    async with opened(lambda: SqliteLedger(path, keep=DAY)) as ledger:
        for owner_id, left_at in ("poor", 1.0), ("rich", 1.0), ("late", 5 * DAY):
            administer(
                path,
                "INSERT INTO owners VALUES (?, NULL, 1, 0, 0.5, ?, NULL, NULL)",
                owner_id,
                left_at,
            )
        await write(ledger, make_record(owner_id="rich", namespace="far"), 0)
        await write(ledger, make_record("done", owner_id="poor", finished_at=5.5 * DAY), 0)
        await ledger.upkeep(5.5 * DAY)
        assert owners(path).keys() == {"rich", "late", "owner-1"}
        assert await ledger.last_seen("rich") == 0.5


async def test_leaving_never_fails(path: Path, folder: Path) -> None:
    """Who cannot write that it leaves is quiet about it, and found dead all the same."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        gone = SqliteLedger(path)
        await gone.open("gone")
        administer(
            path,
            "CREATE TRIGGER no BEFORE UPDATE ON owners WHEN new.left_at NOT NULL "
            "BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        await gone.aclose()
        assert (folder / "gone.lock").exists()
        assert not await ledger.owner_alive("gone")
        administer(path, "DROP TRIGGER no")
        await ledger.upkeep(5.0)
        assert owners(path)["gone"] == 5.0
        assert not (folder / "gone.lock").exists()


async def test_a_death_that_was_seen_in_another_boot_is_seen_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock begins again with the machine: nothing is told by what it said before."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        assert await ledger.dead_for("other") == 0.0
        assert await ledger.dead_for("other") > 0.0
        monkeypatch.setattr(presence, "boot_id", lambda: "another")
        assert await ledger.dead_for("other") == 0.0
        administer(path, "UPDATE owners SET dead_at = dead_at + 1e9 WHERE owner_id = 'other'")
        assert await ledger.dead_for("other") == 0.0
        assert await ledger.dead_for("other") > 0.0
