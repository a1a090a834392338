"""``sigmic-guard reap``: dead owners' tasks end, and nobody else's."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.lifecycle import CancelReason, State, TaskPolicy
from tests.cli.books import DEAD, contents
from tests.cli.conftest import KEY, MAX_SECONDS, NOBODY, Cli, Ended, finish
from tests.cli.exec.watch import Watch, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.books import Books

OTHER_KEY = "sigmic_" + "b0bb1e" * 10 + "beef"


def rows(ended: Ended) -> dict[str, list[str]]:
    """Return the lines by their ids."""
    return {line.split("\t")[0]: line.split("\t")[1:] for line in ended.out.splitlines()}


async def create(emulator: Emulator, env: dict[str, str] | None = None) -> str:
    """Create a task behind everybody's back; return its id."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(emulator.url, headers=headers) as http:
        body: dict[str, Any] = {"message": "hello", "env": env or {}}
        async with http.post("/api/v1/tasks", json=body) as response:
            task_id: str = (await response.json())["data"]["id"]
            return task_id


def deletes(emulator: Emulator) -> int:
    return emulator.count(route="delete")


def seen_dead(books: Books) -> list[float]:
    """Return when deaths were first seen, by the monotonic clock."""
    with closing(sqlite3.connect(books.file)) as shell:
        found = shell.execute("SELECT dead_at FROM owners WHERE dead_at IS NOT NULL").fetchall()
    return [at for (at,) in found]


async def test_corrupt_rows_hinder_no_other(cli: Cli, books: Books) -> None:
    """What nobody can read is named, and is a reason to look; the others are reaped as ever."""
    task_id = await create(cli.emulator)
    await books.add("good", remote_id=task_id)
    await books.add("bad", remote_id="x")
    await books.add("odd", remote_id="y", state=State.FAILED)
    with closing(sqlite3.connect(books.file)) as shell, shell:
        shell.execute("UPDATE tasks SET state='sleeping' WHERE intent_id='bad'")
    ended = await cli.run("ps")
    assert ended.code == 1
    assert task_id in ended.out
    assert "'bad' (" in ended.err
    planned = await cli.run("reap", "--dry-run")
    done = await cli.run("reap")
    again = await cli.run("reap")
    for ended in planned, done, again:
        assert ended.code == 1
        assert "'bad' (" in ended.err
        assert "'odd' (it is failed, and not finished)" in ended.err
    assert rows(planned).keys() == rows(done).keys() == {task_id}
    assert not again.out
    assert cli.emulator.live == 0
    assert (await cli.run("ps", "--json")).of_kind("ledger")[0]["corrupt"].keys() == {"bad"}


# --- what comes of them -------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["default", "other"])
async def test_a_killed_owner(cli: Cli, namespace: str) -> None:
    """The tasks of a process that was killed end, in any namespace; a living one's run on."""
    processes = [
        await asyncio.create_subprocess_exec(
            *program("holds.py", "3", "--namespace", namespace),
            env=Watch(cli.env).environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    theirs: list[set[str]] = []
    for process in processes:
        assert process.stdout is not None
        async with asyncio.timeout(MAX_SECONDS):
            assert await process.stdout.readline()
    ended = await cli.run("ps", "--json")
    by_owner: dict[str, set[str]] = {}
    for row in ended.of_kind("row"):
        by_owner.setdefault(row["owner_id"], set()).add(row["id"])
    theirs = list(by_owner.values())
    assert [len(ids) for ids in theirs] == [3, 3]

    ended = await cli.run("reap")
    assert (ended.code, ended.out) == (0, "")
    assert "no dead owner's task is left" in ended.err
    assert cli.emulator.live == 6

    processes[0].kill()
    await finish(processes[0])
    ended = await cli.run("reap")
    assert (ended.code, deletes(cli.emulator)) == (0, 3)
    assert set(rows(ended)) in theirs
    assert [row[:2] for row in rows(ended).values()] == [["cancelled", "cancelled"]] * 3
    live = set(cli.emulator.state()["live_ids"])
    assert live in theirs
    assert live != set(rows(ended))
    processes[1].kill()
    await finish(processes[1])


async def test_what_comes_of_them(cli: Cli, books: Books) -> None:
    """Each task gets a line: cancelled, finished before, gone, or let go; then the books are clean.

    One that somebody may ask for, or that is out of our reach, is listed, left alone, and no
    failure.
    """
    ids = [await create(cli.emulator) for _ in range(6)]
    cli.emulator.complete(ids[1])
    await books.add("runs", remote_id=ids[0])
    await books.add("completed", remote_id=ids[1])
    await books.add("gone", remote_id="gone")
    await books.add("abandoned", remote_id=ids[2], policy=TaskPolicy(on_crash="abandon"))
    await books.add("kept", remote_id=ids[3], policy=TaskPolicy(on_crash="reattach"), key="k")
    await books.add("other-key", remote_id=ids[4], credential_fingerprint="0123")
    await books.add("nowhere", remote_id=ids[5], base_url="ftp://nowhere")
    ended = await cli.run("reap")
    assert ended.code == 0
    told = {name: row[:2] for name, row in rows(ended).items()}
    assert told == {
        ids[0]: ["cancelled", "cancelled"],
        ids[1]: ["already_finished", "completed"],
        "gone": ["not_found", "cancelled"],
        ids[2]: ["released", "detached"],
        ids[3]: ["wait", "running"],
        ids[4]: ["other_credential", "running"],
        ids[5]: ["other_system", "running"],
    }
    assert "4 of 7 seen to; 3 may still run, 3 of them not ours to end" in ended.err
    assert (await books.read()).keys() == {"kept", "other-key", "nowhere"}
    assert set(cli.emulator.state()["live_ids"]) == set(ids[2:])
    assert (await cli.run("ps")).code == 1, "what is left is left, whoever may end it"


async def test_the_wait_begins_with_the_first_reap(cli: Cli, books: Books) -> None:
    """Where no supervisor runs, `reap` itself puts on record when a death was seen; no look does.

    So one that is called now and again ends a task for whose key nobody asked in time.
    """
    task_id = await create(cli.emulator)
    policy = TaskPolicy(on_crash="reattach", reattach_within=300.0)
    await books.add(remote_id=task_id, policy=policy, key="k")
    for look in (["reap", "--dry-run"], ["ps"], ["explain", task_id]):
        await cli.run(*look)
    assert seen_dead(books) == []
    assert rows(await cli.run("reap"))[task_id][0] == "wait"
    [first] = seen_dead(books)
    assert rows(await cli.run("reap"))[task_id][0] == "wait"
    assert seen_dead(books) == [first], "it was seen once"
    with closing(sqlite3.connect(books.file)) as shell, shell:
        shell.execute("UPDATE owners SET dead_at=dead_at-300")
    assert rows(await cli.run("reap"))[task_id][0] == "cancelled"
    assert cli.emulator.live == 0


async def test_handed_over(cli: Cli, books: Books) -> None:
    """It is left for whoever asks for its key, from when its owner was first seen gone, and ended.

    What was to become of it by a crash plays no part.
    """
    task_id = await create(cli.emulator)
    policy = TaskPolicy(on_crash="abandon", on_shutdown="reattach", reattach_within=300.0)
    row: dict[str, Any] = {
        "state": State.HANDED_OVER,
        "key": "k",
        "policy": policy,
        "remote_id": task_id,
    }
    await books.add(created_at=time.time() - 3600, **row)
    plan = await cli.run("reap", "--dry-run")
    assert (plan.code, rows(plan)[task_id][:2]) == (0, ["wait", "handed_over"])
    ended = await cli.run("reap")
    assert (ended.code, rows(ended)[task_id][:2]) == (0, ["wait", "handed_over"])
    assert deletes(cli.emulator) == 0
    with closing(sqlite3.connect(books.file)) as shell, shell:
        shell.execute("UPDATE owners SET dead_at=dead_at-310")
    ended = await cli.run("reap")
    assert rows(ended)[task_id][:2] == ["cancelled", "cancelled"]
    assert cli.emulator.live == 0
    stored = await books.row()
    assert (stored.state, stored.reason) == (State.CANCELLED, CancelReason.ORPHAN)
    assert stored.finished_at is not None
    assert stored.orphaned_at == pytest.approx(stored.finished_at - 10, abs=9), "no orphan before"


async def test_several_systems(cli: Cli, books: Books) -> None:
    """Tasks are ended where they were made, whatever SIGMIC_BASE_URL says."""
    async with Emulator(api_key=KEY, script=Script(hold=True)) as other:
        here, there = await create(cli.emulator), await create(other)
        await books.add("here", remote_id=here)
        await books.add("there", remote_id=there, base_url=other.url, namespace="there")
        ended = await cli.run("reap")
        assert (ended.code, set(rows(ended))) == (0, {here, there})
        assert (cli.emulator.live, other.live) == (0, 0)


async def test_one_namespace(cli: Cli, books: Books) -> None:
    """With ``--namespace`` others' tasks are left alone."""
    mine, other = await create(cli.emulator), await create(cli.emulator)
    await books.add("mine", remote_id=mine, namespace="mine")
    await books.add("other", remote_id=other, namespace="other")
    ended = await cli.run("reap", "--namespace", "mine")
    assert (ended.code, set(rows(ended))) == (0, {mine})
    assert (await books.read()).keys() == {"other"}


async def test_a_lost_create(cli: Cli, books: Books) -> None:
    """A task whose id its owner never learnt is found by its mark, named, and ended."""
    task_id = await create(cli.emulator, {"SIGMIC_GUARD_INTENT": "intent-1"})
    await books.add(remote_id=None, state=State.CREATING, posted_at=time.time() - 89)
    ended = await cli.run("reap")
    assert (ended.code, rows(ended)[task_id][0]) == (0, "cancelled")
    assert cli.emulator.live == 0


async def test_json(cli: Cli, books: Books) -> None:
    """Each task is an object, the same whether it was only told or done."""
    task_id = await create(cli.emulator)
    await books.add(remote_id=task_id)
    expected = {
        "kind": "orphan",
        "id": task_id,
        "intent_id": "intent-1",
        "namespace": "default",
        "base_url": cli.emulator.url,
        "state": "running",
        "verdict": "reap",
        "result": None,
        "dry_run": True,
        "last_error": None,
    }
    ended = await cli.run("reap", "--dry-run", "--json")
    [told] = ended.lines
    assert told.pop("age") == pytest.approx(90, abs=MAX_SECONDS)
    assert told == expected
    ended = await cli.run("reap", "--json")
    [told] = ended.lines
    assert told.pop("age") == pytest.approx(90, abs=MAX_SECONDS)
    assert told == {**expected, "state": "cancelled", "result": "cancelled", "dry_run": False}
    assert (ended.code, ended.err) == (0, "")


# --- only telling -------------------------------------------------------------------------------


async def test_dry_run(cli: Cli, books: Books, tmp_path: Path) -> None:
    """A dry run tells what would come of each, sends nothing, writes nothing; exit 1 if any."""
    await books.add("runs")
    await books.add("other-key", credential_fingerprint="0123")
    before, requests = contents(tmp_path), len(cli.emulator.requests)
    ended = await cli.run("reap", "--dry-run")
    assert ended.code == 1
    assert {name: row[0] for name, row in rows(ended).items()} == {
        "remote of runs": "reap",
        "remote of other-key": "other_credential",
    }
    assert contents(tmp_path) == before
    assert len(cli.emulator.requests) == requests


async def test_a_dry_run_with_nothing_to_do(cli: Cli, books: Books) -> None:
    """What we may not touch leads to exit 0."""
    await books.add("other-key", credential_fingerprint="0123")
    assert (await cli.run("reap", "--dry-run")).code == 0


async def test_no_ledger(cli: Cli, tmp_path: Path) -> None:
    """Without a ledger there is nothing to do, and none is made."""
    ended = await cli.run("reap")
    assert (ended.code, ended.out) == (0, "")
    assert contents(tmp_path) == {}


# --- what cannot be ended -----------------------------------------------------------------------


async def test_what_may_still_run(cli: Cli, books: Books) -> None:
    """A DELETE that is refused leaves the row for another time, and its error is told; exit 1."""
    task_id = await create(cli.emulator)
    await books.add(remote_id=task_id)
    cli.emulator.fault("delete", Fault("status", status=503, message="out of order"))
    ended = await cli.run("reap", "--wait", "1")
    assert ended.code == 1
    assert rows(ended)[task_id][:2] == ["may_still_run", "unconfirmed"]
    assert "out of order" in ended.out
    [row] = (await books.read()).values()
    assert (row.reason, row.finished_at) == (CancelReason.ORPHAN, None)
    cli.emulator.clear_faults()
    assert (await cli.run("reap")).code == 0
    assert cli.emulator.live == 0


async def test_unreachable(cli: Cli, books: Books) -> None:
    """Where the API cannot be reached it is told so, with exit code 3, and the row stays."""
    await books.add(base_url=NOBODY)
    ended = await cli.run("reap", "--wait", "0.5")
    assert ended.code == 3
    assert rows(ended)["remote of intent-1"][0] == "may_still_run"
    assert f"{NOBODY}: No connection" in ended.err
    assert (await books.read()).keys() == {"intent-1"}


async def test_a_key_that_is_refused(cli: Cli, books: Books) -> None:
    """Where the API refuses the key it is told so, with exit code 3, and the row stays."""
    async with Emulator(api_key=OTHER_KEY) as strict:
        await books.add(base_url=strict.url)
        ended = await cli.run("reap", "--wait", "1")
    assert ended.code == 3
    assert "401" in ended.err
    assert (await books.read()).keys() == {"intent-1"}


async def test_no_key(cli: Cli, books: Books) -> None:
    """Without an API key nothing is done, and nothing is written; exit 3."""
    record = await books.add()
    del cli.env["SIGMIC_API_KEY"]
    ended = await cli.run("reap")
    assert (ended.code, ended.out) == (3, "")
    assert await books.read() == {"intent-1": record}


async def test_ctrl_c(cli: Cli, books: Books) -> None:
    """Ctrl-C ends it within a second or so; the row is left for the next to come."""
    task_id = await create(cli.emulator)
    await books.add(remote_id=task_id)
    cli.emulator.fault("delete", Fault("black_hole"))
    process = await cli.start("reap", "--wait", "1000")
    await cli.emulator.wait_for(lambda state: state["deletes_received"])
    process.send_signal(signal.SIGINT)
    assert (await finish(process)).code == 130
    [row] = (await books.read()).values()
    assert row.owner_id != DEAD
    assert (await cli.run("ps")).code == 1


# --- others, and hands --------------------------------------------------------------------------


async def test_two_reapers(cli: Cli, books: Books) -> None:
    """Two that run at once end each task once, and each waits for what the other took."""
    ids = [await create(cli.emulator) for _ in range(20)]
    for task_id in ids:
        await books.add(f"intent of {task_id}", remote_id=task_id)
    cli.emulator.fault("delete", Fault("latency", seconds=1.0))
    ended = await asyncio.gather(cli.run("reap"), cli.run("reap"))
    assert (cli.emulator.live, deletes(cli.emulator)) == (0, 20)
    assert not await books.read()
    assert [one.code for one in ended] == [0, 0]


async def test_somebody_was_quicker(cli: Cli, books: Books) -> None:
    """A task that a living owner has taken over is nobody's orphan."""
    task_id = await create(cli.emulator)
    await books.add(remote_id=task_id)
    cli.emulator.fault("get", Fault("latency", seconds=3.0, times=1))
    first = await cli.start("reap", "--wait", "100")
    await cli.emulator.wait_for(lambda _: cli.emulator.count(route="get"))
    ended = await cli.run("reap", "--wait", "1")
    assert (ended.code, ended.out) == (0, "")
    assert (await finish(first)).code == 0
    assert cli.emulator.live == 0


async def test_cancelling_by_hand_leaves_the_ledger_alone(
    cli: Cli, books: Books, tmp_path: Path
) -> None:
    """``sigmic-guard cancel`` neither writes into the ledger nor reaps what stands there."""
    orphan, task_id = await create(cli.emulator), await create(cli.emulator)
    await books.add(remote_id=orphan)
    before = contents(tmp_path)
    ended = await cli.run("cancel", task_id)
    assert ended.code == 0
    assert contents(tmp_path) == before
    assert cli.emulator.state()["live_ids"] == [orphan]


async def test_running_keeps_the_ledger(cli: Cli, books: Books) -> None:
    """The control: ``sigmic-guard run`` survives its death by the ledger, and reaps."""
    orphan = await create(cli.emulator)
    await books.add(remote_id=orphan)
    process = await cli.streaming()
    process.kill()
    await finish(process)
    assert (await cli.run("ps")).code == 1
    assert (await cli.run("reap")).code == 0
    assert cli.emulator.live == 0


async def test_the_books_are_kept_meanwhile(cli: Cli, books: Books) -> None:
    """An owner that is alive on the same ledger keeps its rows as they are."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        living = await books.add("living", owner_id="living")
        await books.add("dead", remote_id=await create(cli.emulator))
        assert (await cli.run("reap")).code == 0
        assert await books.read() == {"living": living}
    finally:
        await ledger.aclose()
