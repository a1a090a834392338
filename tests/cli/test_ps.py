"""``sigmic-guard ps``: what the ledger knows, told without a trace."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.lifecycle import CancelReason, State, TaskPolicy
from sigmic_guard.testing.records import make_record
from tests.cli.books import WILD, contents, on_a_terminal
from tests.cli.conftest import MAX_SECONDS, Cli, Ended, finish
from tests.cli.exec.watch import Watch, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.books import Books


AT_ONCE = TaskPolicy(on_shutdown="reattach", reattach_within=0.0)


def rows(ended: Ended) -> list[list[str]]:
    return [line.split("\t") for line in ended.out.splitlines()]


# --- what is told -------------------------------------------------------------------------------


async def test_a_killed_owner(cli: Cli) -> None:
    """A process that is killed leaves orphans, which is told by exit code 1; while it lives, 0."""
    process = await asyncio.create_subprocess_exec(
        *program("holds.py", "3"),
        env=Watch(cli.env).environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(MAX_SECONDS):
        assert await process.stdout.readline()
    ended = await cli.run("ps")
    assert ended.code == 0
    assert {(row[0], row[1], row[3], row[4]) for row in rows(ended)} == {
        (task_id, "running", str(process.pid), "alive") for task_id in cli.emulator.tasks
    }
    assert "3 tasks" in ended.err
    assert "every owner lives" in ended.err

    process.kill()
    await finish(process)
    ended = await cli.run("ps")
    assert ended.code == 1
    assert {(row[0], row[3]) for row in rows(ended)} == {
        (task_id, str(process.pid)) for task_id in cli.emulator.tasks
    }
    assert all(re.fullmatch(r"dead for \d+[sm]", row[4]) for row in rows(ended))
    assert "3 without a living owner" in ended.err
    assert cli.emulator.live == 3


async def test_rows(cli: Cli, books: Books) -> None:
    """Dead owners' rows come first, then the oldest; each tells age, deadline and reason."""
    now = time.time()
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await books.add(
            "young", owner_id="living", created_at=now - 5, deadline_at=now + 3900, key="nightly"
        )
        await books.add("old", owner_id="living", created_at=now - 7200, namespace="other")
        await books.add(
            "orphan",
            remote_id=None,
            state=State.UNKNOWN,
            created_at=now - 100000,
            deadline_at=now - 120,
            reason=CancelReason.SCOPE,
            cancel_requested_at=now - 130,
        )
        ended = await cli.run("ps")
    finally:
        await ledger.aclose()
    assert ended.code == 1
    told = rows(ended)
    assert [row[0] for row in told] == ["orphan", "remote of old", "remote of young"]
    assert told[0][1:5] == ["unknown", "-", "-", "dead for 2m"], "whose pid nobody knows"
    assert told[0][5:] == ["1d03h", told[0][6], "scope", "default"]
    assert told[0][6].startswith("-2m0")
    pid = str(os.getpid())
    assert told[1][1:] == ["running", "-", pid, "alive", "2h00m", "-", "-", "other"]
    assert told[2][1:5] == ["running", "nightly", pid, "alive"]
    assert told[2][6].startswith("1h0")
    [summary] = ended.err.splitlines()
    assert summary.startswith("3 tasks; 1 without a living owner: ")
    assert summary.endswith(f"; {books.file}")


@pytest.mark.slow
async def test_many(cli: Cli, books: Books) -> None:
    """What 20,000 rows cost grows with their number, not with its square: that took minutes."""
    await books.write(
        *(
            make_record(f"{n}", state=State.RUNNING, remote_id=f"remote {n}", owner_id=f"o{n % 50}")
            for n in range(20_000)
        )
    )
    for command in (("ps",), ("reap", "--dry-run")):
        assert len(rows(await cli.run(*command))) == 20_000


async def test_one_namespace(cli: Cli, books: Books) -> None:
    """With ``--namespace`` others' rows are neither shown nor counted."""
    await books.add("mine", namespace="mine")
    await books.add("other", namespace="other")
    ended = await cli.run("ps", "--namespace", "mine")
    assert [row[0] for row in rows(ended)] == ["remote of mine"]
    assert len(rows(ended)[0]) == 9, "the columns are always the same"
    ended = await cli.run("ps", "--namespace", "empty")
    assert (ended.code, ended.out) == (0, "")


async def test_json(cli: Cli, books: Books) -> None:
    """A row is an object, and the last line sums up."""
    record = await books.add(key="k", deadline_at=time.time() - 10, attempts=2, last_error="503")
    ended = await cli.run("ps", "--json")
    [row] = ended.of_kind("row")
    assert row.pop("age") == pytest.approx(90, abs=MAX_SECONDS)
    assert row.pop("deadline") == pytest.approx(-10, abs=MAX_SECONDS)
    assert row == {
        "kind": "row",
        "id": record.remote_id,
        "intent_id": "intent-1",
        "namespace": "default",
        "key": "k",
        "base_url": cli.emulator.url,
        "state": "running",
        "reason": None,
        "owner": "dead",
        "owner_id": record.owner_id,
        "owner_seen_at": None,
        "pid": None,
        "doubtful": False,
        "attempts": 2,
        "last_error": "503",
    }
    summary = ended.lines[-1]
    assert abs(summary.pop("at") - time.time()) < MAX_SECONDS
    assert summary == {
        "kind": "ledger",
        "path": str(books.file),
        "exists": True,
        "tasks": 1,
        "orphans": 1,
        "shown": 1,
        "hidden": 0,
        "corrupt": {},
    }
    assert (ended.code, ended.err) == (1, "")


async def test_handed_over(cli: Cli, books: Books) -> None:
    """What a deploy left for the next process is no orphan until its time is over."""
    await books.add(state=State.HANDED_OVER, key="k")
    ended = await cli.run("ps")
    assert ended.code == 0
    [row] = rows(ended)
    assert [*row[:3], row[4]] == ["remote of intent-1", "handed_over", "k", "dead for 1m"]
    assert "1 task; " in ended.err
    assert "1 handed over, for whoever asks for the key" in ended.err
    assert "reap" not in ended.err
    assert (await cli.run("ps", "--json")).lines[-1]["orphans"] == 0
    await books.add("late", state=State.HANDED_OVER, key="l", policy=AT_ONCE)
    await books.add("crashed", key="m", policy=TaskPolicy(on_crash="reattach"))
    ended = await cli.run("ps")
    assert ended.code == 1
    assert "3 tasks; " in ended.err
    assert "1 handed over, for whoever asks for the key; 2 without a living owner" in ended.err


# --- which ledger -------------------------------------------------------------------------------


async def test_no_key_and_no_network(cli: Cli, books: Books) -> None:
    """Neither an API key nor an API is needed, and no request is sent."""
    await books.add()
    del cli.env["SIGMIC_API_KEY"]
    assert (await cli.run("ps")).code == 1
    assert cli.emulator.count() == 0


async def test_no_ledger(cli: Cli, books: Books, tmp_path: Path) -> None:
    """A ledger that does not exist is told of in a line, and is not made."""
    ended = await cli.run("ps")
    assert (ended.code, ended.out) == (0, "")
    assert len(ended.err.splitlines()) == 1
    assert str(books.file) in ended.err
    ended = await cli.run("ps", "--json")
    assert (ended.code, ended.lines[0]["exists"]) == (0, False)
    assert list(tmp_path.iterdir()) == []


async def test_no_trace(cli: Cli, books: Books, tmp_path: Path) -> None:
    """Looking changes nothing: no row, no owner, no lock file."""
    await books.add()
    before = contents(tmp_path)
    await cli.run("ps")
    await cli.run("explain", "intent-1")
    await cli.run("reap", "--dry-run")
    assert contents(tmp_path) == before


async def test_a_trace_would_be_seen(books: Books, tmp_path: Path) -> None:
    """The control: whoever opens the ledger as an owner does leaves a trace."""
    await books.add()
    before = contents(tmp_path)
    await books.read()
    assert contents(tmp_path) != before


async def test_another_ledger(cli: Cli, books: Books) -> None:
    """``--ledger`` goes before the environment's."""
    await books.add()
    cli.env["SIGMIC_GUARD_LEDGER"] = "memory:"
    ended = await cli.run("ps", "--ledger", f"sqlite:///{books.file}")
    assert len(rows(ended)) == 1


async def test_the_default_ledger(cli: Cli, tmp_path: Path) -> None:
    """Without a word it is the one in the user's state directory."""
    del cli.env["SIGMIC_GUARD_LEDGER"]
    cli.env["XDG_STATE_HOME"] = str(tmp_path / "state")
    ended = await cli.run("ps")
    assert str(tmp_path / "state") in ended.err or sys.platform != "linux"


COMMANDS = {
    "ps": ("ps",),
    "watch": ("ps", "--watch"),
    "explain": ("explain", "x"),
    "reap": ("reap",),
    "dry run": ("reap", "--dry-run"),
    "forget": ("forget", "x"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("url", ["memory:", "carrier-pigeon:"])
async def test_what_is_no_file(cli: Cli, command: tuple[str, ...], url: str) -> None:
    """A ledger that is no file is wrong usage, and the message says what to do."""
    ended = await cli.run(*command, "--ledger", url)
    assert (ended.code, ended.out) == (2, "")
    [line] = ended.err.splitlines()
    assert url in line


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_unreadable(cli: Cli, books: Books, command: tuple[str, ...]) -> None:
    """A ledger that cannot be read leads to exit code 3, and one line that says why."""
    books.file.write_bytes(b"no database at all, " * 500)
    ended = await cli.run(*command)
    assert (ended.code, ended.out) == (3, "")
    [line] = [line for line in ended.err.splitlines() if line.startswith("sigmic-guard: ")]
    assert "damaged, or no ledger" in line


async def test_unreadable_as_json(cli: Cli, books: Books) -> None:
    """Machines are told of it by an object on stdout."""
    books.file.write_bytes(b"no database at all, " * 500)
    ended = await cli.run("ps", "--json")
    assert [(line["kind"], line["error"]) for line in ended.lines] == [("error", "LedgerError")]


# --- terminals ----------------------------------------------------------------------------------


async def test_nothing_steers_the_terminal(cli: Cli, books: Books) -> None:
    """Control characters in what is stored reach neither a terminal nor a pipe."""
    await books.add(WILD, remote_id=WILD, namespace=WILD, key=WILD, last_error=WILD)
    await books.add("harmless")
    cli.env["NO_COLOR"] = "1"
    for command in (("ps",), ("explain", WILD), ("reap", "--dry-run")):
        ended = await cli.run(*command)
        assert not any(char in ended.out + ended.err for char in "\x1b\x07\x9b\r")
        _, shown = await on_a_terminal(cli, *command)
        assert "a ]0;title b [2J" in shown or "a ]0;title" in shown
        assert not any(char in shown for char in "\x1b\x07\x9b\r")


async def test_a_head_for_those_who_read(cli: Cli, books: Books) -> None:
    """On a terminal the columns have names; in a pipe every line is a row."""
    await books.add()
    cli.env["NO_COLOR"] = "1"
    _, shown = await on_a_terminal(cli, "ps")
    assert shown.startswith("task ")
    assert len(rows(await cli.run("ps"))) == 1


# --- watching -----------------------------------------------------------------------------------


async def test_watch_in_a_pipe(cli: Cli, books: Books) -> None:
    """Looks follow each other, each with the time; what happens meanwhile is shown; Ctrl-C is 0."""
    process = await cli.start("ps", "--watch")
    assert process.stdout is not None
    async with asyncio.timeout(MAX_SECONDS):
        assert b"there is no ledger" in await process.stdout.readline()
        await books.add()
        while b"remote of intent-1\trunning\t-\t-\tdead" not in await process.stdout.readline():
            pass
    process.send_signal(signal.SIGINT)
    ended = await finish(process)
    assert (ended.code, ended.err) == (0, "")


async def test_watch_as_json(cli: Cli, books: Books) -> None:
    """Each look ends with a line that sums up; SIGTERM ends the watch with its own code."""
    await books.add()
    process = await cli.start("ps", "--watch", "--json")
    assert process.stdout is not None
    async with asyncio.timeout(MAX_SECONDS):
        kinds = [(await process.stdout.readline()).partition(b",")[0] for _ in range(4)]
    assert kinds == [b'{"kind":"row"', b'{"kind":"ledger"'] * 2
    process.send_signal(signal.SIGTERM)
    assert (await finish(process)).code == 143


async def test_watch_into_a_closed_pipe(cli: Cli, books: Books) -> None:
    """A reader who has seen enough ends it, without a traceback."""
    await books.add()
    reading, writing = os.pipe()
    process = await cli.start("ps", "--watch", stdout=writing)
    os.close(writing)
    await asyncio.to_thread(os.read, reading, 1)
    os.close(reading)
    ended = await finish(process)
    assert (ended.code, ended.err) == (1, "")


async def test_watch_goes_on(cli: Cli, books: Books) -> None:
    """A ledger that is damaged meanwhile is told of, and looked at again."""
    process = await cli.start("ps", "--watch")
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(MAX_SECONDS):
        await process.stdout.readline()
        books.file.write_bytes(b"no database at all, " * 500)
        assert b"damaged" in await process.stderr.readline()
        books.file.unlink()
        while b"there is no ledger" not in await process.stdout.readline():
            pass
    process.send_signal(signal.SIGINT)
    assert (await finish(process)).code == 0


async def test_watch_on_a_terminal(cli: Cli, books: Books) -> None:
    """The view is drawn over itself, no higher than the screen, and the cursor comes back."""
    for number in range(40):
        await books.add(f"{number:02}", remote_id=f"{WILD} {number:02}")
    ours, theirs = os.openpty()
    cli.env |= {"TERM": "xterm", "LINES": "12", "COLUMNS": "130"}
    process = await cli.start("ps", "--watch", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    async with asyncio.timeout(MAX_SECONDS):
        while shown.count(b"and 33 more") < 2:
            shown += await asyncio.to_thread(os.read, ours, 4096)
        process.send_signal(signal.SIGINT)
        try:
            while data := await asyncio.to_thread(os.read, ours, 4096):
                shown += data
        except OSError:  # the other side is closed
            pass
        assert await process.wait() == 0
    os.close(ours)
    text = shown.decode()
    assert "a ]0;title b [2J 2J c d 06" in text
    assert "\x1b[1;31mdead for 1m" in text
    assert "d 07" not in text
    assert not any(wild in text for wild in ("\x1b]0;", "\x07", "\x9b"))
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
