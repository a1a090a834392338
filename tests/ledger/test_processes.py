"""Several processes on one ledger: who is alive, who gets what, and what a child inherits."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import sigmic_guard
from sigmic_guard.ledger import SqliteLedger, Write
from sigmic_guard.testing.ledger_handles import opened
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS: Final = Path(__file__).parent / "programs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


class Program:
    """A process of ``programs/``."""

    def __init__(self, name: str, *options: object) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(sigmic_guard.__path__[0]).parent)}
        command = [sys.executable, "-W", "ignore::DeprecationWarning", str(PROGRAMS / name)]
        self.process = subprocess.Popen(
            [*command, *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def says(self) -> str:
        """Wait for its next line; "" is the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """End its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@contextmanager
def program(name: str, *options: object) -> Iterator[Program]:
    """Run a program for as long as the block."""
    running = Program(name, *options)
    try:
        yield running
    finally:
        running.kill()
        with running.process:  # closes its pipes
            pass


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as shell:
        return shell.execute(sql).fetchall()


# --- alive or dead --------------------------------------------------------------------------------


async def test_who_is_killed_is_dead(path: Path) -> None:
    """An owner is alive until its process is gone, however; then it is cleared away."""
    lock = Path(f"{path}.owners/other.lock")
    async with opened(lambda: SqliteLedger(path)) as ledger:
        with program("owner.py", path, "other", "hold") as other:
            assert other.says() == "ready"
            await ledger.upkeep(6.0)
            assert await ledger.owner_alive("other")
            other.kill()
            assert not await ledger.owner_alive("other")
            assert lock.exists()
            await ledger.upkeep(7.0)
        assert not lock.exists()
        assert not await ledger.owner_alive("other")
        assert await ledger.last_seen("other") == 5.0
        assert [row.intent_id for row in await ledger.unfinished(owner_id="other")] == ["other"]


async def test_who_is_stopped_is_alive(path: Path) -> None:
    """A process that does nothing for as long as it likes owns its tasks all the same."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        with program("owner.py", path, "other", "hold") as other:
            assert other.says() == "ready"
            other.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, other.process.pid, os.WSTOPPED | os.WNOWAIT)
            await ledger.upkeep(1e10)
            assert await ledger.owner_alive("other")
            other.process.send_signal(signal.SIGCONT)
            other.go_on()
            assert other.says() == "closed"
        assert not await ledger.owner_alive("other")


@pytest.mark.parametrize("what, alive", [("fork", False), ("fork_careless", True)])
async def test_nobody_lives_on_in_a_child(path: Path, what: str, *, alive: bool) -> None:
    """A child that lives does not make its dead parent alive; it would, if it kept the lock."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        with program("owner.py", path, "parent", what) as parent:
            assert parent.says() == "ready"
            assert await ledger.owner_alive("parent")
            parent.kill()
            assert await ledger.owner_alive("parent") is alive
            parent.go_on()
            assert not parent.says()  # the child has ended, too
        assert not await ledger.owner_alive("parent")


def test_a_child_makes_a_ledger_of_its_own(path: Path) -> None:
    """A forked child is told to keep away from its parent's ledger, and closes nothing of it."""
    with program("forks.py", path) as forks:
        said = dict(line.split(": ", 1) for line in iter(forks.says, ""))
    for use in "commit", "get", "upkeep":
        assert "opened by another process" in said[use]
    assert "open already" in said["open"]
    assert said["aclose"] == "None"
    assert "fork before the ledger is opened" in said["same file"]
    assert said["other file"] == "None"
    assert said["other commit"] == "[None]"
    assert said["database"] == "True"  # to close it would drop locks, or undo a transaction
    assert said["lock"] == "False"
    assert said["parent"] == "['before', 'after']"
    assert said["parent alive"] == "True"


# --- at once --------------------------------------------------------------------------------------


def test_processes_commit_at_once(path: Path) -> None:
    """What several processes commit to a new file at the same time is all there."""
    names = [f"owner-{number}" for number in range(4)]
    running = [Program("owner.py", path, name, "keep_committing", 25) for name in names]
    for each in running:
        with each.process:
            said = list(iter(each.says, ""))
        assert said == [*map(str, range(25)), "closed"]
    counts = rows(path, "SELECT owner_id, count(*) FROM tasks GROUP BY 1 ORDER BY 1")
    assert counts == [(name, 250) for name in names]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_one_process_takes_an_orphan(path: Path) -> None:
    """Of processes that take the same rows at the same time each row goes to exactly one."""
    orphans = [make_record(f"{number:02}", owner_id="dead") for number in range(60)]
    async with opened(lambda: SqliteLedger(path)) as ledger:
        await ledger.commit([Write(row, 0) for row in orphans])
        names = [f"taker-{number}" for number in range(3)]
        running = [Program("owner.py", path, name, "take") for name in names]
        for each in running:
            assert each.says() == "ready"
        for each in running:
            each.go_on()
        won = {}
        for name, each in zip(names, running, strict=True):
            with each.process:
                won[name] = int(each.says())
        taken = await ledger.unfinished()
        assert sum(won.values()) == len(taken) == 60
        assert {row.version for row in taken} == {2}
        for name in names:
            assert won[name] == sum(row.owner_id == name for row in taken)


@pytest.mark.parametrize("batches", [1, 3, 20])
async def test_what_was_told_survives_the_teller(path: Path, batches: int) -> None:
    """Batches that were acknowledged before a SIGKILL are there, and each other whole or not."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        with program("owner.py", path, "other", "keep_committing", 10_000) as other:
            told = 0
            for _ in range(batches):
                told = int(other.says())
            other.kill()
            told += sum(line.isdecimal() for line in iter(other.says, ""))
        found = {row.intent_id for row in await ledger.unfinished(owner_id="other")}
        batch_count, rest = divmod(len(found), 10)
        assert rest == 0
        assert batch_count in {told + 1, told + 2}
        assert found == {f"other.{batch}.{i}" for batch in range(batch_count) for i in range(10)}
        assert await ledger.owners() == {"other"}
        assert not await ledger.owner_alive("other")


async def test_children_of_all_kinds_leave_their_parent_alone(path: Path) -> None:
    """Pools, processes that end, exit or are terminated: the owner lives, and its row stands."""
    async with opened(lambda: SqliteLedger(path)) as ledger:
        with program("pools.py", path) as parent:
            assert "opened by another process" in parent.says()
            assert "opened by another process" in parent.says()
            assert parent.says() == "ready"
            await ledger.upkeep(1e10)
            assert await ledger.owner_alive("parent")
            assert [row.version for row in await ledger.unfinished()] == [make_record().version]
            parent.go_on()
            assert parent.says() == "rows: ['intent-1']"
