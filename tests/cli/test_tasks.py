"""``sigmic-guard cancel``, ``status``, ``list`` and ``emulator``."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

import sigmic_guard
from sigmic_guard.emulator import Fault, Script
from tests.cli.conftest import KEY, MAX_SECONDS, finish

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


async def create(cli: Cli, message: str = "hello", number: int = 1) -> list[str]:
    """Create tasks behind the command line's back; return their ids."""
    ids = []
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(cli.emulator.url, headers=headers) as http:
        for _ in range(number):
            async with http.post("/api/v1/tasks", json={"message": message}) as response:
                ids.append((await response.json())["data"]["id"])
    return ids


# --- cancel -------------------------------------------------------------------------------------


async def test_cancel(cli: Cli) -> None:
    """Each id gets a line that says what came of it; exit 0 if all have ended."""
    first, second, third, other = await create(cli, number=4)
    cli.emulator.complete(third)
    ended = await cli.run("cancel", first, second, third, first)
    assert ended.code == 0
    assert sorted(line.split("\t") for line in ended.out.splitlines()) == sorted(
        [
            [first, "confirmed", "cancelled"],
            [second, "confirmed", "cancelled"],
            [third, "already_finished", "completed"],
        ]
    )
    assert cli.emulator.state()["live_ids"] == [other]


async def test_cancel_goes_on_in_spite_of_faults(cli: Cli) -> None:
    """Refused and lost requests are sent again, those that look as well."""
    [task_id] = await create(cli)
    cli.emulator.fault("get", Fault("status", status=503, times=2))
    cli.emulator.fault("delete", Fault("status", status=503, times=1))
    cli.emulator.fault("delete", Fault("lie", times=1))
    ended = await cli.run("cancel", task_id)
    assert (ended.code, ended.out) == (0, f"{task_id}\tconfirmed\tcancelled\n")
    assert cli.emulator.live == 0


async def test_cancel_without_proof(cli: Cli) -> None:
    """A task that may still run is told as unconfirmed, with the reason why, and exit code 1."""
    [task_id] = await create(cli)
    cli.emulator.fault("delete", Fault("status", status=403, message="not yours"))
    ended = await cli.run("cancel", task_id, "--json")
    [line] = ended.of_kind("cancellation")
    assert (ended.code, line["id"], line["result"]) == (1, task_id, "unconfirmed")
    assert "not yours" in line["error"]
    ended = await cli.run("cancel", task_id)
    assert (ended.code, ended.out[:49]) == (1, f"{task_id}\tunconfirmed\t")
    assert "not yours" in ended.out


async def test_cancel_what_is_not_there(cli: Cli) -> None:
    """An unknown id does not keep the others from being cancelled, and leads to exit code 1."""
    [task_id] = await create(cli)
    ended = await cli.run("cancel", "nothing", task_id)
    assert (ended.code, ended.out) == (1, f"{task_id}\tconfirmed\tcancelled\n")
    assert ended.err.startswith("sigmic-guard: nothing: no task 'nothing'")


async def test_cancel_what_is_no_id(cli: Cli) -> None:
    """What can be no id is wrong usage, and is not sent."""
    ended = await cli.run("cancel", "..")
    assert ended.code == 2
    assert cli.emulator.count() == 0


async def test_a_signal_while_it_cancels(cli: Cli) -> None:
    """The command ends at once, with the signal's code, when the DELETE is not answered."""
    [task_id] = await create(cli)
    cli.emulator.fault("delete", Fault("black_hole"))
    process = await cli.start("cancel", task_id)
    await cli.emulator.wait_for(lambda state: state["deletes_received"])
    process.send_signal(signal.SIGTERM)
    ended = await finish(process)
    assert ended.code == 143
    assert ended.out.startswith(f"{task_id}\tunconfirmed\t")


# --- status and list ----------------------------------------------------------------------------


async def test_status(cli: Cli) -> None:
    """A task is shown a field a line; text of more lines is put into one."""
    [task_id] = await create(cli, "two\nlines")
    cli.emulator.complete(task_id, "the answer")
    ended = await cli.run("status", task_id)
    assert ended.code == 0
    fields = dict(line.split("\t") for line in ended.out.splitlines())
    assert fields.keys() == {
        *("id", "status", "created", "started", "completed", "message", "output")
    }
    assert (fields["id"], fields["status"]) == (task_id, "completed")
    assert fields["message"] == "two lines"
    assert fields["output"].endswith("the answer")


async def test_status_as_json(cli: Cli) -> None:
    """A task is one object, with the API's names."""
    [task_id] = await create(cli)
    ended = await cli.run("status", task_id, "--json")
    [task] = ended.of_kind("task")
    assert (task["id"], task["status"]) == (task_id, "running")
    assert task["createdAt"].endswith("Z")


async def test_status_of_nothing(cli: Cli) -> None:
    """An unknown task leads to one line on stderr, and exit code 1."""
    ended = await cli.run("status", "nothing")
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1


async def test_list(cli: Cli) -> None:
    """Tasks are listed a line each, the latest first: as many as asked for, or all of them."""
    ids = await create(cli, "hello\tthere", number=130)
    ended = await cli.run("list", "--limit", "3")
    assert ended.code == 0
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [(row[1], row[3]) for row in rows] == [("running", "hello there")] * 3
    ended = await cli.run("list", "--all", "--json")
    assert {line["id"] for line in ended.of_kind("task")} == set(ids)
    assert len(ended.lines) == 130
    ended = await cli.run("list", "--limit", "110")
    assert len(ended.out.splitlines()) == 110


async def test_list_into_a_closed_pipe(cli: Cli) -> None:
    """A reader who has seen enough is no reason for a traceback."""
    cli.emulator.set_script(Script(duration=0.0))
    await create(cli, "x" * 5000, number=100)
    reading, writing = os.pipe()
    process = await cli.start("list", "--all", stdout=writing)
    os.close(writing)
    await asyncio.to_thread(os.read, reading, 1)
    os.close(reading)
    ended = await finish(process)
    assert (ended.code, ended.err) == (1, "")


# --- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_emulator(cli: Cli, number: signal.Signals) -> None:
    """The emulator prints its URL, takes its own options, serves, and ends on a signal."""
    process = await cli.start("emulator", "--port", "0", "--script", '{"duration": 0}')
    assert process.stdout is not None
    async with asyncio.timeout(MAX_SECONDS):
        line = (await process.stdout.readline()).decode()
    assert line.startswith("listening on http://127.0.0.1:")
    cli.env["SIGMIC_BASE_URL"] = line.split()[-1]
    assert (await cli.run("run", "hello")).out == "Hello world\n"
    process.send_signal(number)
    assert (await finish(process)).code == 0


async def test_version(cli: Cli) -> None:
    """The version is the package's."""
    ended = await cli.run("--version")
    assert (ended.code, ended.out) == (0, f"sigmic-guard {sigmic_guard.__version__}\n")


async def test_help(cli: Cli) -> None:
    """The help names every command, in plain text."""
    ended = await cli.run("--help")
    assert ended.code == 0
    ledger = ("ps", "explain", "reap", "forget")
    rest = ("exec", "help", "emulator", "demo")
    for command in ("run", "cancel", "status", "list", *ledger, *rest):
        assert f"\n  {command} " in ended.out
    assert ended.out.isascii()
    assert "..." not in ended.out.partition("Commands:")[2], "each says what it does in a line"
    for again in (("-h",), ("help",)):
        assert await cli.run(*again) == ended


async def test_help_for_a_command(cli: Cli) -> None:
    """In each of the ways in which people ask for it."""
    ended = await cli.run("reap", "--help")
    assert ended.code == 0
    assert "--wait TIME" in ended.out
    assert "default: 60s." in ended.out
    for again in (("reap", "-h"), ("help", "reap")):
        assert await cli.run(*again) == ended
    ended = await cli.run("help", "nonsense")
    assert ended.code == 2
    assert "No such command 'nonsense'" in ended.err


async def test_the_demo_in_a_checkout(cli: Cli) -> None:
    """The demo is a command of a checkout; elsewhere the command says where it is to be had."""
    ended = await cli.run("demo", "--help")
    if (Path(sigmic_guard.__path__[0]).parent / "examples").is_dir():
        assert ended.code == 0
        assert "--lie" in ended.out
    else:
        assert ended.code == 2
        assert "in a checkout" in ended.err


async def test_no_command(cli: Cli) -> None:
    """No command is wrong usage; the help is shown."""
    ended = await cli.run()
    assert ended.code == 2
    assert "Commands:" in ended.out + ended.err
