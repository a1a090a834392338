"""The beginning of an id stands for the task, where it fits one only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import aiohttp

from sigmic_guard.lifecycle import State
from tests.cli.conftest import KEY

if TYPE_CHECKING:
    from tests.cli.books import Books
    from tests.cli.conftest import Cli

FIRST: Final = "c37c1d78-4d23-4e53-949a-ddd775f25e01"
SECOND: Final = "c37c1d79-4d23-4e53-949a-ddd775f25e02"


async def create(cli: Cli) -> str:
    """Create a task behind the ledger's back; return its id."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(cli.emulator.url, headers=headers) as http,
        http.post("/api/v1/tasks", json={"message": "hello"}) as response,
    ):
        task_id: str = (await response.json())["data"]["id"]
        return task_id


async def test_explain(cli: Cli, books: Books) -> None:
    """It may be of either id, of a finished task too, and is of four characters at least."""
    await books.add("intent-1", remote_id=FIRST)
    await books.add("other", remote_id=SECOND, state=State.CANCELLED, finished_at=time.time())
    for told, intent_id in (
        ("c37c1d78", "intent-1"),
        ("inte", "intent-1"),
        ("c37c1d79-4", "other"),
    ):
        ended = await cli.run("explain", told)
        assert f"intent\t{intent_id}\n" in ended.out
    for told in ("int", "c37c1d78-5", "%", "c37_1d78"):
        ended = await cli.run("explain", told)
        assert (ended.code, ended.out) == (1, "")
        assert f"has no task {told}; " in ended.err


async def test_a_whole_id_goes_first(cli: Cli, books: Books) -> None:
    """An id that others begin with means its own task."""
    await books.add("task")
    await books.add("task-2")
    assert "intent\ttask\n" in (await cli.run("explain", "task")).out


async def test_several(cli: Cli, books: Books) -> None:
    """Where it fits several tasks they are named, a few of them, and nothing is done."""
    await books.add("one", remote_id=FIRST)
    await books.add("two", remote_id=SECOND, state=State.CANCELLED, finished_at=time.time())
    for command in ("explain", "forget", "cancel", "status"):
        ended = await cli.run(command, "c37c1d7")
        assert (ended.code, ended.out) == (1, "")
        assert f"fits several tasks: say which of {FIRST}, {SECOND}" in ended.err
    assert (await books.read()).keys() == {"one"}
    assert cli.emulator.count() == 0
    for number in range(9):
        await books.add(f"many-{number}", remote_id=None, state=State.UNKNOWN)
    ended = await cli.run("explain", "many-")
    assert "many-4 and more" in ended.err
    assert "many-5" not in ended.err


async def test_forget(cli: Cli, books: Books) -> None:
    """The one task that it fits is forgotten."""
    await books.add("one", remote_id=FIRST)
    await books.add("two", remote_id=SECOND)
    ended = await cli.run("forget", "c37c1d78")
    assert (ended.code, ended.out) == (0, "c37c1d78\tforgotten\twas running\n")
    assert (await books.read()).keys() == {"two"}


async def test_cancel_and_status(cli: Cli, books: Books) -> None:
    """Of a task that the ledger knows it is made whole; of any other it is asked for as it is."""
    ours, other = await create(cli), await create(cli)
    await books.add(remote_id=ours)
    assert f"id\t{ours}\n" in (await cli.run("status", ours[:8])).out
    ended = await cli.run("cancel", ours[:8], other[:8], ours)
    assert ended.code == 1
    assert ended.out == f"{ours}\tconfirmed\tcancelled\n"
    assert f"no task '{other[:8]}'" in ended.err
    assert cli.emulator.state()["live_ids"] == [other]


async def test_an_id_that_is_no_part_of_one(cli: Cli, books: Books) -> None:
    """Only a part of what an id of the API is can mean another task: none ends for another one."""
    await books.add(remote_id="abcd-1")
    await books.add("two", remote_id="task-10")
    for told in ("abcd", "task-1"):
        ended = await cli.run("cancel", told, "--wait", "1")
        assert ended.code == 1
        assert f"no task '{told}'" in ended.err
    cli.env["SIGMIC_GUARD_LEDGER"] = "memory:"
    assert "no task 'c37c1d78'" in (await cli.run("status", "c37c1d78")).err
