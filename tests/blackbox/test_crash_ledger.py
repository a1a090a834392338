"""Ledgers that cannot be used, or no longer: clear errors, no hang, and the DELETEs go out."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sigmic_guard import LedgerError, Outcome
from tests.blackbox.deaths import Home, called, corpse, gone, heir, mortal, stage
from tests.blackbox.lab import SLACK

NOBODY = 65534


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no database at all\n" * 500)


def truncated(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE x (y)")
        connection.executemany("INSERT INTO x VALUES (?)", [("z" * 1000,)] * 100)
    connection.close()
    with path.open("r+b") as file:
        file.truncate(5000)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name)")
    connection.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("break_it", [corrupt, newer, folder, truncated, foreign])
async def test_a_file_that_is_no_ledger(tmp_path: Path, break_it: Callable[[Path], None]) -> None:
    """Entering raises a LedgerError that names the file and says what to do; it stays as it was."""
    path = tmp_path / "ledger.db"
    break_it(path)
    before = path.read_bytes() if path.is_file() else b""
    async with stage(tmp_path) as home:
        began = time.monotonic()
        with pytest.raises(LedgerError) as caught:
            async with heir(home):
                pytest.fail("there is no ledger")
        assert time.monotonic() - began < 7 + SLACK
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) > len(str(path)) + 20
    assert (path.read_bytes() if path.is_file() else b"") == before


PROBE = """
import asyncio, json, os, sqlite3
from sigmic_guard import LedgerError, Supervisor
os.setgid({nobody}); os.setuid({nobody})
async def main():
    try:
        async with Supervisor() as supervisor:
            print(json.dumps((await supervisor.start("x")).id))
    except LedgerError as error:
        print(json.dumps({{"error": str(error)}}))
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
@pytest.mark.parametrize("what", ["folder", "file", "someone else's", "no search"])
async def test_not_ours_to_write(tmp_path: Path, what: str) -> None:
    """A folder or a file that may not be written: a LedgerError in time, and nothing is sent."""
    place = Path("/tmp") / f"blackbox-{os.getpid()}-{time.monotonic_ns()}"  # nobody may enter it
    place.mkdir(mode=0o755)
    try:
        async with stage(place) as home:
            if what != "folder":
                async with mortal(home) as process:
                    await process.ask("run", message="quick")
                    await process.leave()
            if what == "file":
                for each in [place, *place.rglob("*")]:
                    os.chown(each, NOBODY, NOBODY)
                (place / "ledger.db").chmod(0o400)
            if what == "no search":
                place.chmod(0o700)
            requests = len(home.server.requests)
            program = PROBE.format(nobody=NOBODY)
            told = await called(sys.executable, "-c", program, env=home.env, cwd=Path("/"))
            assert told.status == 0, told.err
            (row,) = told.rows
            assert "ledger.db" in row["error"], row
            assert len(home.server.requests) == requests
    finally:
        shutil.rmtree(place)


def delete(path: Path) -> None:
    for each in path.parent.glob("ledger.db*"):
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def overwrite(path: Path) -> None:
    for name in ("ledger.db", "ledger.db-wal"):  # the -shm is mapped: to cut it is to cut memory
        (path.parent / name).write_bytes(b"\0" * 8192)


def move(path: Path) -> None:
    for each in list(path.parent.glob("ledger.db*")):
        each.rename(each.with_name("moved" + each.name))


@pytest.mark.slow
@pytest.mark.parametrize("break_it", [delete, overwrite, move])
async def test_lost_while_it_is_used(tmp_path: Path, break_it: Callable[[Path], None]) -> None:
    """Live tasks still get their DELETE; what is begun now works or is a LedgerError; no hang."""
    async with stage(tmp_path) as home:
        began = 0.0
        async with heir(home, grace=4) as supervisor:
            tasks = [await supervisor.start("x") for _ in range(5)]
            break_it(tmp_path / "ledger.db")
            async with asyncio.timeout(20):
                cancellation = await tasks[0].cancel()
                assert cancellation.result in {"acknowledged", "confirmed"}
                assert (await tasks[0].wait()).outcome is Outcome.CANCELLED
                with suppress(LedgerError):
                    await supervisor.run("quick", timeout=8)
                with suppress(LedgerError):
                    await supervisor.reap()
            began = time.monotonic()
        assert time.monotonic() - began < 5 + SLACK
        assert home.server.world.live == []
        assert all(
            remote.deletes == 1 for remote in home.server.world.tasks.values() if remote.deletes
        )


@pytest.mark.slow
async def test_a_body_that_raises_without_a_ledger(tmp_path: Path) -> None:
    """The body's exception goes on unchanged, and the DELETE goes out."""
    async with stage(tmp_path) as home:
        async with heir(home, grace=2) as supervisor:
            with pytest.raises(ZeroDivisionError):
                async with supervisor.task("x"):
                    delete(tmp_path / "ledger.db")
                    raise ZeroDivisionError
            assert home.server.count("DELETE") == 1
            async with asyncio.timeout(8):
                with pytest.raises(LedgerError):
                    async with supervisor.task("x"):
                        pytest.fail("no row, no POST")
            assert home.server.count("POST") == 1
        assert home.server.world.live == []


@pytest.mark.slow
async def test_locked_by_somebody_else(tmp_path: Path) -> None:
    """A writer who never lets go: a LedgerError in time, live tasks are ended, and it goes on."""
    async with stage(tmp_path) as home:
        async with heir(home, grace=3) as supervisor:
            task = await supervisor.start("x")
            await home.known(task.id)
            holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            try:
                async with asyncio.timeout(20):
                    with pytest.raises(LedgerError) as caught:
                        await supervisor.run("quick")
                    assert "lock" in str(caught.value)
                    assert (await task.cancel()).result == "acknowledged"
                assert home.server.world.live == []
            finally:
                holder.close()
            async with asyncio.timeout(20):
                assert (await supervisor.run("quick")).outcome is Outcome.COMPLETED
        assert await home.rows() == []
        assert home.server.world.live == []


@pytest.mark.slow
async def test_a_lock_that_is_held_for_a_moment(tmp_path: Path) -> None:
    """A short lock only delays."""
    async with stage(tmp_path) as home, heir(home) as supervisor:
        holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        running = asyncio.create_task(supervisor.run("quick"))
        asyncio.get_running_loop().call_later(0.5, holder.close)
        async with asyncio.timeout(20):
            assert (await running).outcome is Outcome.COMPLETED


async def test_an_unreachable_ledger_cancels_nothing(tmp_path: Path) -> None:
    """The store being lost never leads to a cancellation."""
    async with stage(tmp_path) as home:
        async with heir(home) as supervisor:
            task = await supervisor.start("quick slow")
            corrupt(tmp_path / "ledger.db")
            with suppress(LedgerError):
                await supervisor.reap()
            assert home.server.count("DELETE") == 0
            home.server.world.set(home.server.world.only, "completed")
            assert (await task.wait()).outcome is Outcome.COMPLETED
        assert home.server.count("DELETE") == 0


@pytest.mark.slow
async def test_a_full_disk(tmp_path: Path) -> None:
    """A file that may not grow: a LedgerError for the new, the DELETE for the old."""
    async with stage(tmp_path) as home:
        program = (
            "import asyncio, json, os, resource, signal\n"
            "from sigmic_guard import LedgerError, Supervisor\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "async def main():\n"
            "    async with Supervisor(grace=4) as supervisor:\n"
            "        tasks = [await supervisor.start('x') for _ in range(3)]\n"
            "        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "        try:\n"
            "            for _ in range(500):\n"
            "                await asyncio.wait_for(supervisor.start('x'), 10)\n"
            "            print(json.dumps('no error'))\n"
            "        except LedgerError as error:\n"
            "            print(json.dumps({'error': str(error)}))\n"
            "        print(json.dumps((await tasks[0].cancel()).result))\n"
            "asyncio.run(main())\n"
        )
        told = await called(sys.executable, "-c", program, env=home.env, cwd=tmp_path)
        assert told.status == 0, told.err
        assert "ledger.db" in told.rows[0]["error"]
        assert str(told.rows[1]) in {"acknowledged", "confirmed"}
        assert home.server.world.live == []
        assert (await home.call("reap")).status == 0


async def test_a_hard_link_by_another_name(tmp_path: Path) -> None:
    """A symbolic link to the ledger is the same ledger, and the owner behind it lives."""
    async with stage(tmp_path) as home:
        (tmp_path / "real").mkdir()
        (tmp_path / "link.db").symlink_to(tmp_path / "real" / "ledger.db")
        linked = Home(
            tmp_path, home.server, more={"SIGMIC_GUARD_LEDGER": f"sqlite:///{tmp_path}/link.db"}
        )
        async with mortal(linked) as process:
            await process.start(times=2)
            async with heir(home, ledger=f"sqlite:///{tmp_path}/real/ledger.db") as supervisor:
                assert (await supervisor.reap()).clean
            assert home.server.count("DELETE") == 0
            await process.kill()
        async with heir(home, ledger=f"sqlite:///{tmp_path}/real/ledger.db"):
            await gone(home.server, *home.server.world.tasks)


@pytest.mark.slow
async def test_many_handles_on_a_fresh_file(tmp_path: Path) -> None:
    """Processes that start at the same time on no file at all agree on one."""
    async with stage(tmp_path) as home:

        async def one() -> int:
            async with mortal(home) as process:
                assert isinstance(process.greeting.result(), int), process.greeting.result()
                await process.start()
                return await process.leave()

        assert await asyncio.gather(*(one() for _ in range(4))) == [0] * 4
        assert home.server.count("DELETE") == 4


@pytest.mark.slow
async def test_deleted_under_a_process_that_then_dies(tmp_path: Path) -> None:
    """With the ledger gone nobody can know; the next start works with a new file all the same."""
    async with stage(tmp_path) as home:
        async with mortal(home) as process:
            await process.start()
            delete(tmp_path / "ledger.db")
            await process.kill()
        (other,) = await corpse(home)
        async with heir(home):
            await gone(home.server, other)
        assert len(home.server.world.live) == 1
