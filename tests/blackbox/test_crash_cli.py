"""`ps`, `explain`, `reap` and `forget`: what they tell, what they exit with, what they send."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.deaths import Home, corpse, heir, mortal, stage
from tests.blackbox.lab import until
from tests.blackbox.server import Answer, error


def contents(home: Home) -> list[str]:
    """All that is in the ledger, as SQL."""
    with closing(sqlite3.connect(home.path / "ledger.db")) as connection:
        return list(connection.iterdump())


@pytest.mark.slow
async def test_looking_sends_and_writes_nothing(tmp_path: Path) -> None:
    """ps, explain and a dry run send nothing and leave the ledger as it is."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home)
        before, requests = contents(home), len(home.server.requests)
        for command in (
            ("ps",),
            ("ps", "--json"),
            ("explain", only),
            ("explain", "--json", only),
            ("reap", "--dry-run"),
            ("reap", "--dry-run", "--json"),
        ):
            called = await home.call(*command, SIGMIC_API_KEY="" if command[0] != "reap" else "-")
            assert only in called.out or command[0] == "reap", (command, called)
        assert contents(home) == before
        assert len(home.server.requests) == requests
        (row,) = await home.rows()
        assert (row["id"], row["state"], row["owner"]) == (only, "running", "dead")
        assert home.server.world.live == [only]


@pytest.mark.slow
async def test_the_dry_run_tells_what_the_run_does(tmp_path: Path) -> None:
    """It lists the same tasks and exits with 1; then the run exits with 0, then both do."""
    async with stage(tmp_path) as home:
        ids = await corpse(home, times=3)
        dry = await home.call("reap", "--dry-run", "--json")
        assert dry.status == 1
        assert {row["id"] for row in dry.rows if "id" in row} == set(ids)
        assert home.server.count("DELETE") == 0
        wet = await home.call("reap", "--json")
        assert wet.status == 0
        assert {row["id"] for row in wet.rows if "id" in row} == set(ids)
        assert home.server.count("DELETE") == 3
        assert (await home.call("reap", "--dry-run")).status == 0
        assert (await home.call("reap")).status == 0
        assert home.server.count("DELETE") == 3


@pytest.mark.slow
async def test_ps(tmp_path: Path) -> None:
    """0 if every owner lives, 1 if a dead owner's task is left; dead ones first."""
    async with stage(tmp_path) as home:
        assert (await home.call("ps")).status == 0
        async with mortal(home) as process:
            (alive,) = await process.start(timeout=500, key="k")
            await home.known(alive)
            called = await home.call("ps")
            assert (called.status, alive in called.out) == (0, True)
            (dead,) = await corpse(home)
            assert (await home.call("ps")).status == 1
            first, second = await home.rows()
            assert (first["id"], first["owner"]) == (dead, "dead")
            assert (second["id"], second["owner"]) == (alive, "alive")
            assert second["key"] == "k"
            assert second["namespace"] == "default"
            assert 300 < second["deadline"] <= 500
            assert second["age"] > 0
            assert second["reason"] is None
            assert (await home.call("ps", "--namespace", "other")).status == 0
        assert {row["owner"] for row in await home.rows()} == {"dead"}


@pytest.mark.slow
async def test_explain(tmp_path: Path) -> None:
    """It knows a task by its id and by its intent's, and says whether it will be reaped."""
    async with stage(tmp_path) as home, mortal(home) as process:
        (alive,) = await process.start()
        await home.known(alive)
        (dead,) = await corpse(home)
        mine = await home.call("explain", "--json", alive)
        assert (mine.status, mine.rows[0]["reapable"]) == (0, False)
        other = await home.call("explain", "--json", dead)
        assert (other.status, other.rows[0]["reapable"]) == (0, True)
        by_intent = await home.call("explain", other.rows[0]["intent_id"])
        assert (by_intent.status, dead in by_intent.out) == (0, True)
        assert (await home.call("explain", "no-such-task")).status == 1
        assert (await home.call("reap")).status == 0
        done = await home.call("explain", "--json", dead)
        assert (done.rows[0]["state"], done.rows[0]["reapable"]) == ("cancelled", False)
        assert "orphan" in (await home.call("explain", dead)).out


@pytest.mark.slow
async def test_forget(tmp_path: Path) -> None:
    """A dead owner's task goes off the books and runs on; a living owner's stays."""
    async with stage(tmp_path) as home, mortal(home) as process:
        (alive,) = await process.start()
        await home.known(alive)
        one, two, three = await corpse(home, times=3)
        requests = len(home.server.requests)
        assert (await home.call("forget", one, SIGMIC_API_KEY="")).status == 0
        assert (await home.call("forget", two, alive)).status == 1
        assert (await home.call("forget", "no-such-task")).status == 1
        assert (await home.call("forget", one)).status == 1
        told = [request.target.rsplit("/", 1)[1] for request in home.server.requests[requests:]]
        assert not {one, two, three} & set(told)
        assert (await home.call("reap")).status == 0
        assert sorted(home.server.world.live) == sorted([alive, one, two])
        assert home.server.count("DELETE") == 1


@pytest.mark.slow
async def test_what_is_out_of_reach_is_no_failure(tmp_path: Path) -> None:
    """Another key's task is listed by `reap`, which exits with 0; by `ps`, which exits with 1."""
    async with stage(tmp_path) as home:
        (other,) = await corpse(home)
        mine = Home(tmp_path, home.server, key="sigmic_" + "ab" * 32)
        called = await mine.call("reap")
        assert (called.status, other in called.out) == (0, True)
        dry = await mine.call("reap", "--dry-run", "--json")
        assert (dry.status, [row["id"] for row in dry.rows if "id" in row]) == (0, [other])
        assert (await mine.call("ps")).status == 1
        assert home.server.world.live == [other]


@pytest.mark.slow
async def test_reap_without_an_api(tmp_path: Path) -> None:
    """1 if a task may still run, 3 for want of an API key, or an API that works; no traceback."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home)
        nobody = await home.call("reap", SIGMIC_API_KEY="")
        assert nobody.status == 3

        async def down(*_: Any) -> Answer:
            return Answer(503, b"")

        home.server.always |= {"get": down, "delete": down, "list": down}
        called = await home.call("reap", "--wait", "1")
        assert called.status in {1, 3}
        assert only in called.out + called.err

        async def wrong(*_: Any) -> Answer:
            return error(401, "INVALID_API_KEY")

        home.server.always |= {"get": wrong, "delete": wrong, "list": wrong}
        assert (await home.call("reap", "--wait", "1")).status in {1, 3}
        for each in (nobody, called):
            assert "Traceback" not in each.err
        home.server.always.clear()
        assert (await home.call("reap")).status == 0
        assert home.server.world.live == []


async def test_reap_goes_where_the_task_was_made(tmp_path: Path) -> None:
    """Each task is ended at the system that its row names, whatever the environment names now."""
    async with stage(tmp_path) as home:
        await corpse(home)
        assert (await home.call("reap", SIGMIC_BASE_URL="http://127.0.0.1:9")).status == 0
        assert home.server.world.live == []


@pytest.mark.slow
async def test_ps_while_others_write(tmp_path: Path) -> None:
    """Looking disturbs nobody, however often."""
    async with stage(tmp_path) as home, mortal(home) as process:
        process.post("rush", message="quick")
        for _ in range(3):
            assert (await home.call("ps")).status == 0
        await process.kill()
        await until(lambda: len(home.server.world.tasks) > 0)


@pytest.mark.slow
async def test_no_secret_is_told(tmp_path: Path) -> None:
    """Neither the key, nor a message, nor env, nor secrets are in the file or in what is told."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(
            home, "the-message", secrets={"PASSWORD": "hunter2"}, env={"NAME": "env-value"}
        )
        texts = [each.read_bytes() for each in tmp_path.glob("ledger.db*") if each.is_file()]
        texts += [(await home.call(*each)).out.encode() for each in (["ps"], ["explain", only])]
        texts += [(await home.call("ps", "--json")).out.encode()]
        for secret in (home.key[8:], "the-message", "hunter2", "env-value"):
            for text in texts:
                assert secret.encode() not in text


@pytest.mark.slow
async def test_an_heir_and_the_command_line(tmp_path: Path) -> None:
    """`reap` beside a running supervisor: whoever comes first, one DELETE each."""
    async with stage(tmp_path) as home:
        ids = await corpse(home, times=10)
        async with heir(home) as supervisor:
            called, report = await asyncio.gather(home.call("reap"), supervisor.reap())
            assert called.status == 0
            assert {row.id for row in report.reaped} <= set(ids)
        assert home.server.world.live == []
        assert home.server.count("DELETE") == 10
