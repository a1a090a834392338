"""``sigmic-guard ps``: which rows are shown, in which order, and what fits on a terminal."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.cli import columns
from sigmic_guard.cli.columns import Cell
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.lifecycle import State
from tests.cli.books import on_a_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cli.books import Books
    from tests.cli.conftest import Cli, Ended


@asynccontextmanager
async def five_rows(books: Books) -> AsyncIterator[None]:
    """Three rows of a dead owner, and two of one that lives."""
    now = time.time()
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await books.add("a", created_at=now - 500, state=State.UNKNOWN, remote_id=None)
        await books.add("b", created_at=now - 400, owner_id="living", deadline_at=now + 900)
        await books.add("c", created_at=now - 300, state=State.CANCELLING)
        await books.add("d", created_at=now - 600, owner_id="living")
        await books.add("e", created_at=now - 200, deadline_at=now + 60)
        yield
    finally:
        await ledger.aclose()


def names(ended: Ended) -> str:
    """Return the last letters of the ids."""
    return "".join(line.split("\t")[0][-1] for line in ended.out.splitlines())


CHOICES = {
    "all": ((), "acedb"),
    "the oldest first": (("--sort", "age"), "dabce"),
    "by state": (("--sort", "state"), "cdbea"),
    "by owner": (("--sort", "owner"), "acedb"),
    "the most urgent first": (("--sort", "due"), "ebdac"),
    "dead owners'": (("--dead",), "ace"),
    "one state": (("--state", "running"), "edb"),
    "two states": (("--state", "unknown", "--state", "cancelling"), "ac"),
    "some": (("--limit", "2"), "ac"),
    "some of some": (("--dead", "--state", "running", "--limit", "1"), "e"),
}


async def test_choice(cli: Cli, books: Books) -> None:
    """Rows are chosen and ordered; the exit code and the counts are of all, and say how many."""
    async with five_rows(books):
        for options, expected in CHOICES.values():
            ended = await cli.run("ps", *options)
            assert (ended.code, names(ended)) == (1, expected)
            assert "5 tasks; 3 without a living owner" in ended.err
            assert ("… and 3 more\n" in ended.err) is (options == ("--limit", "2"))
            assert all(len(line.split("\t")) == 9 for line in ended.out.splitlines())


async def test_quiet(cli: Cli, books: Books) -> None:
    """There are ids and nothing else, whole ones on a terminal too."""
    async with five_rows(books):
        ended = await cli.run("ps", "-q", "--dead", "--limit", "2")
        cli.env["COLUMNS"] = "10"
        _, shown = await on_a_terminal(cli, "ps", "--quiet", "--dead", "--limit", "2")
    assert (ended.code, ended.out, ended.err) == (1, "a\nremote of c\n", "")
    assert shown == ended.out


async def test_limit_as_json(cli: Cli, books: Books) -> None:
    """Machines are told how many rows they were not shown."""
    async with five_rows(books):
        ended = await cli.run("ps", "--json", "--limit", "1", "--dead")
    assert len(ended.of_kind("row")) == 1
    [summary] = ended.of_kind("ledger")
    assert (summary["tasks"], summary["shown"], summary["hidden"]) == (5, 1, 2)
    assert ended.of_kind("row")[0]["pid"] is None


@pytest.mark.parametrize(
    "options", [("--state", "asleep"), ("--sort", "colour"), ("-q", "--watch")]
)
async def test_wrong_usage(cli: Cli, options: tuple[str, ...]) -> None:
    """What there is no such of is wrong usage."""
    ended = await cli.run("ps", *options)
    assert (ended.code, ended.out) == (2, "")


# --- terminals ----------------------------------------------------------------------------------


async def test_it_fits_the_width(cli: Cli, books: Books) -> None:
    """On 80 columns what matters least is left out, and ids are cut to what still names them."""
    task_id = "c37c1d78-4d23-4e53-949a-ddd775f25e01"
    await books.add("one", remote_id=task_id, key="夜の集計" * 9, namespace="n" * 99)
    cli.env |= {"COLUMNS": "80", "NO_COLOR": "1"}
    _, shown = await on_a_terminal(cli, "ps")
    head, row, *_ = shown.splitlines()
    assert head.split() == ["task", "state", "key", "pid", "owner", "age", "due"]
    assert row.startswith("c37c1d78-4d23  running      夜の集計…   -")
    assert max(map(columns.cells_of, (head, row))) <= 80
    cli.env["COLUMNS"] = "200"
    _, shown = await on_a_terminal(cli, "ps")
    assert f"{task_id}  running" in shown
    assert f"{'n' * 23}…" in shown


def test_widths() -> None:
    """No line is wider than its terminal, and the most important columns are there first."""
    row = [Cell("x" * 300)] * len(columns.COLUMNS)
    for width in range(13, 220):
        shown = columns.widths(width)
        line = columns.coloured(columns.fitted(row, shown), colours=False)
        assert columns.cells_of(line) <= width
        ranks = {column.rank for column, at in zip(columns.COLUMNS, shown, strict=True) if at}
        assert ranks == set(range(len(ranks)))


async def test_the_same_colours(cli: Cli, books: Books) -> None:
    """A table and a watch have the same colours; ``NO_COLOR`` and a pipe have none."""
    from rich.console import Console

    from sigmic_guard.cli.ps import Choice
    from sigmic_guard.cli.watch import View, screen

    await books.add("dead", state=State.UNCONFIRMED)
    cli.env |= {"TERM": "xterm", "COLUMNS": "80"}
    _, shown = await on_a_terminal(cli, "ps")
    view = await View.take(str(books.file), Choice(), 24)
    console = Console(force_terminal=True, color_system="standard", width=80, record=True)
    with console.capture() as drawn:
        console.print(screen(view, 80))
    for line in (0, 1):
        assert shown.splitlines()[line].rstrip() == drawn.get().splitlines()[line].rstrip()
    assert "\x1b[31munconfirmed\x1b[0m" in shown
    assert "\x1b[1;31mdead for 1m\x1b[0m" in shown
    assert "\x1b[1;31m1 task; 1 without" in drawn.get()
    assert "\x1b[31m\x1b[1m1 task; 1 without" in shown
    assert "\x1b" not in (await cli.run("ps")).out
    cli.env["NO_COLOR"] = "1"
    _, shown = await on_a_terminal(cli, "ps")
    assert "\x1b" not in shown
