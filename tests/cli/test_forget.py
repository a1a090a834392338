"""``sigmic-guard forget``: dead owners' rows go off the books, and nobody else's."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.ledger import SqliteLedger, Write
from sigmic_guard.lifecycle import Event, State, TakeOver, step
from sigmic_guard.lifecycle.states import ENDED
from tests.cli.books import DEAD, contents
from tests.cli.conftest import Cli

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.books import Books


async def test_forget(cli: Cli, books: Books) -> None:
    """Rows go off the books by their remote or intent ids; what that means is said; no request."""
    del cli.env["SIGMIC_API_KEY"]
    await books.add("first", remote_id="remote")
    await books.add("second", remote_id=None, state=State.UNKNOWN)
    await books.add("third")
    ended = await cli.run("forget", "remote", "second", "remote")
    assert ended.code == 0
    assert ended.out == "remote\tforgotten\twas running\nsecond\tforgotten\twas unknown\n"
    assert "runs on and is billed" in ended.err
    assert (await books.read()).keys() == {"third"}
    row = await books.row("first")
    assert (row.state, row.reason, row.owner_id) == (State.DETACHED, None, DEAD)
    assert row.finished_at == pytest.approx(time.time(), abs=60)
    assert cli.emulator.count() == 0


@pytest.mark.parametrize("state", sorted({*State} - ENDED | {State.COMPLETED}))
async def test_any_state(cli: Cli, books: Books, state: State) -> None:
    """Whatever a dead owner left unfinished can be forgotten."""
    await books.add(state=state)
    assert (await cli.run("forget", "intent-1")).code == 0
    assert not await books.read()


async def test_a_living_owner(cli: Cli, books: Books) -> None:
    """A living owner's row is refused, by either id, and stays as it is; others are forgotten."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        living = await books.add("living", owner_id="living")
        await books.add("dead")
        ended = await cli.run("forget", "living", "remote of living", "dead")
    finally:
        await ledger.aclose()
    assert ended.code == 1
    assert ended.out == "dead\tforgotten\twas running\n"
    problems = [line for line in ended.err.splitlines() if line.startswith("sigmic-guard: ")]
    assert len(problems) == 2
    assert all("its owner lives" in line for line in problems)
    assert await books.read() == {"living": living}


async def test_a_dead_owners_row_beside_a_living_ones(cli: Cli, books: Books) -> None:
    """Of two rows of one task the dead owner's is meant."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await books.add("old", remote_id="same")
        await books.add("new", remote_id="same", owner_id="living")
        ended = await cli.run("forget", "same")
    finally:
        await ledger.aclose()
    assert ended.code == 0
    assert (await books.read()).keys() == {"new"}


async def test_handed_over(cli: Cli, books: Books) -> None:
    """What was handed over is nobody's, whether or not its owner has left yet: its key is free."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await books.add("left", state=State.HANDED_OVER, key="k")
        await books.add("leaves", state=State.HANDED_OVER, key="l", owner_id="living")
        ended = await cli.run("forget", "left", "remote of leaves")
        holders = [await ledger.holder("default", key) for key in "kl"]
    finally:
        await ledger.aclose()
    assert ended.code == 0
    assert [line.split("\t")[1:] for line in ended.out.splitlines()] == [
        ["forgotten", "was handed_over"]
    ] * 2
    assert holders == [None, None]
    assert (await books.row("left")).state is State.DETACHED
    assert cli.emulator.count() == 0


async def test_several(cli: Cli, books: Books) -> None:
    """Of two dead owners' rows of one task nobody can tell which is meant."""
    await books.add("first", remote_id="same")
    await books.add("second", remote_id="same")
    ended = await cli.run("forget", "same")
    assert (ended.code, ended.out) == (1, "")
    assert "say which of first, second" in ended.err
    assert len(await books.read()) == 2


async def test_what_is_not_there(cli: Cli, books: Books, tmp_path: Path) -> None:
    """An unknown id, a finished one, and a missing ledger are told of; none of them is made."""
    ended = await cli.run("forget", "nothing")
    assert (ended.code, ended.out) == (1, "")
    assert "there is no ledger" in ended.err
    assert contents(tmp_path) == {}
    await books.add("done", state=State.CANCELLED, finished_at=time.time())
    ended = await cli.run("forget", "nothing", "done")
    assert ended.code == 1
    assert "nothing: the ledger" in ended.err
    assert "done: is off the books already: it is cancelled" in ended.err


async def test_json(cli: Cli, books: Books) -> None:
    """Each id leads to an object."""
    await books.add("first", remote_id="remote")
    ended = await cli.run("forget", "--json", "remote", "nothing")
    first, second = ended.of_kind("forgotten")
    assert first == {
        "kind": "forgotten",
        "id": "remote",
        "intent_id": "first",
        "asked": "remote",
        "forgotten": True,
        "message": None,
    }
    assert (second["asked"], second["forgotten"], second["id"]) == ("nothing", False, None)
    assert second["message"]
    assert ended.code == 1


async def test_taken_over_meanwhile(
    cli: Cli, books: Books, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A row that somebody takes over between the look and the write stays his."""
    from sigmic_guard.cli import forget as forgetting
    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.ledger.looking import find

    record = await books.add()
    heir = step(record, Event.TAKE_OVER, time.time(), heir=TakeOver("heir", time.time()))

    async def find_and_be_late(path: str, identifier: str) -> object:
        rows = await find(path, identifier)
        ledger = SqliteLedger(books.file)
        await ledger.open("heir")
        assert await ledger.commit([Write(heir, record.version)]) == [None]
        await ledger.aclose()
        return rows

    monkeypatch.setattr(forgetting, "find", find_and_be_late)
    terminal = Terminal()
    assert await forgetting.forget(terminal, ["intent-1"], path=str(books.file)) == 1
    await asyncio.to_thread(terminal.flush)
    assert "changed meanwhile" in capfd.readouterr().err
    assert await books.read() == {"intent-1": heir}


async def test_a_locked_ledger(cli: Cli, books: Books) -> None:
    """A ledger that cannot be written leads to exit code 3, and the row stays."""
    record = await books.add()
    with closing(sqlite3.connect(books.file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        ended = await cli.run("forget", "intent-1")
        connection.execute("ROLLBACK")
    assert ended.code == 3
    assert "was locked for" in ended.err
    assert await books.read() == {"intent-1": record}
