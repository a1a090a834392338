"""Reaping and finding what was lost, where the server's ids, words and shapes are other ones."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import Outcome
from tests.blackbox.deaths import Home, corpse, gone, heir, held, mortal
from tests.blackbox.lab import sample, until
from tests.blackbox.server import Answer, Manners, Request, Server, ok

IDS = [
    "a/b?c#d%e",
    "../..",
    "...",
    "%2e%2e",
    "tâsk 🌍 \u202e",
    "a b+c&d=e;f",
    "-x",
    "--help",
    "'; DROP TABLE tasks; --",
    "x" * 200,
    base64.b64encode(b"\xfb\xff\xfe id").decode(),
    "NULL",
    "0",
    '"\\',
]


def fast_first(cases: Iterable[object]) -> list[Any]:
    """Leave all but the first to the slow tests."""
    first, *others = cases
    return [first, *(pytest.param(each, marks=pytest.mark.slow) for each in others)]


async def story(home: Home) -> None:
    """Deaths in every state of a create, a key that is taken up, and the command line."""
    server, world = home.server, home.server.world
    async with mortal(home, create_timeout=1.0) as process:
        ids = await process.start(times=2)
        (kept,) = await process.start(key="k", on_crash="reattach")
        await home.known(*ids, kept)
        world.set(world.tasks[ids[0]], "completed")

        async def lose(request: Request, _: Any) -> Answer:
            world.create(request.headers["content-type"], request.body)
            await never.wait()
            raise AssertionError

        never = asyncio.Event()
        server.once("create", lose)
        process.post("start", message="x")
        await until(lambda: len(world.tasks) == 4)
        await process.kill()
    lost = next(reversed(world.tasks))
    registry = CollectorRegistry()
    async with heir(home, registry=registry, create_timeout=1.0) as supervisor:
        await gone(server, *ids, lost)
        task = await supervisor.start("x", timeout=20, **KEYED)
        assert task.id == kept
        assert (await task.cancel()).result in {"acknowledged", "confirmed"}
        assert (await task.wait()).outcome is Outcome.CANCELLED
        await until(lambda: sample(registry, "orphans_reaped_total") == 4)
        if not world.get_lag:
            assert sample(registry, "orphans_reaped_total", how="already_finished") == 1
            assert sample(registry, "orphans_reaped_total", how="cancelled") == 2
        assert sample(registry, "orphans_reaped_total", how="reattached") == 1
    assert world.live == []
    assert server.count("POST") == 4


KEYED: Any = {"key": "k", "on_crash": "reattach"}


@pytest.mark.parametrize("name", fast_first(IDS))
async def test_odd_ids(tmp_path: Path, name: str) -> None:
    """Whatever an id is made of, its orphan is found by it and ended."""
    world = held()
    world.ids = lambda number: f"{name}{number}" if number else name
    async with Server(world=world) as server:
        home = Home(tmp_path, server)
        ids = await corpse(home, times=2)
        assert set(ids) == {name, f"{name}1"}
        async with heir(home) as supervisor:
            await gone(server, *ids)
            assert (await supervisor.reap()).clean
        assert server.count("DELETE") == 2
        assert {remote.deletes for remote in world.tasks.values()} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
async def test_odd_ids_on_the_command_line(tmp_path: Path, name: str) -> None:
    """The command line takes and gives them as they are."""
    world = held()
    world.ids = lambda number: f"{name}{number}" if number else name
    async with Server(world=world) as server:
        home = Home(tmp_path, server)
        await corpse(home, times=2)
        assert {row["id"] for row in await home.rows()} == {name, f"{name}1"}
        told = await home.call("explain", "--json", "--", name)
        assert (told.status, told.rows[0]["id"]) == (0, name), told.err
        assert (await home.call("forget", "--", name)).status == 0
        assert (await home.call("reap")).status == 0
        assert world.live == [name]


WORLDS: dict[str, dict[str, Any]] = {
    "as documented": {},
    "extra fields": {"extra": True},
    "only id, status and env": {"sparse": True},
    "null for the rest": {"nulls": True},
    "other words for being alive": {
        "words": {"pending": "QUEUED", "running": "in_progress", "awaiting_approval": "blocked"}
    },
    "no output": {"output": "none"},
    "no activity": {"activity": "none"},
    "offset, no milliseconds": {"activity": "offset", "millis": False},
    "lag": {"get_lag": 0.3, "list_lag": 0.3},
}


@pytest.mark.parametrize("fields", fast_first(WORLDS.values()), ids=WORLDS)
async def test_shapes(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Other words, unknown fields, missing fields and views that lag change nothing."""
    world = held()
    for name, value in fields.items():
        setattr(world, name, value)
    async with Server(world=world) as server:
        await story(Home(tmp_path, server))


MANNERS: dict[str, Manners] = {
    "a prefix": Manners(prefix="/gateway/v2"),
    "an encoded prefix": Manners(prefix="/a%2Fb/c"),
    "by name": Manners(name="localhost"),
    "chunked, zipped": Manners(framing="chunked", gzip=True),
    "no keep-alive": Manners(keep_alive=False),
    "pages of two, no total": Manners(list_max=2, list_total=False),
    "DELETE says 204": Manners(deleted=Answer(204, b"")),
    "DELETE says something else": Manners(deleted=ok({"state": "stopping"}, status=202)),
}


@pytest.mark.parametrize("manners", fast_first(MANNERS.values()), ids=MANNERS)
async def test_manners(tmp_path: Path, manners: Manners) -> None:
    """Nor do base URLs with a path, other framings, small pages and other answers to DELETE."""
    async with Server(manners, held()) as server:
        await story(Home(tmp_path, server))


@pytest.mark.slow
@pytest.mark.parametrize("slash", [("", "/"), ("/", "")])
async def test_the_same_system_by_another_spelling(tmp_path: Path, slash: tuple[str, str]) -> None:
    """A slash at the end of the base URL makes no other system."""
    async with Server(Manners(prefix="/gateway"), held()) as server:
        home = Home(tmp_path, server, more={"SIGMIC_BASE_URL": server.url + slash[0]})
        ids = await corpse(home)
        async with heir(home, base_url=server.url + slash[1]):
            await gone(server, *ids)


@pytest.mark.slow
async def test_a_list_that_wraps(tmp_path: Path) -> None:
    """An id that GET does not show for a while is looked for again, and not believed to be gone."""
    world = held()
    async with Server(world=world) as server:
        home = Home(tmp_path, server)
        (only,) = await corpse(home)
        broken = [
            Answer(200, b"<html>maintenance</html>", {"content-type": "text/html"}),
            Answer(200, b"{}"),
            ok(None),
            ok([]),
            ok({"id": only}),
            ok({"id": only, "status": None}),
            ok({"id": only, "status": 7}),
        ]
        server.once("get", *[answering(each) for each in broken])
        async with heir(home):
            await gone(server, only, within=40)


def answering(answer: Answer) -> Any:
    async def hook(*_: Any) -> Answer:
        return answer

    return hook


@pytest.mark.slow
@pytest.mark.parametrize("noise", [3, 250])
async def test_a_marker_among_many(tmp_path: Path, noise: int) -> None:
    """The lost create is found on whatever page it is, and no other task is touched."""
    world = held()
    async with Server(Manners(list_max=20), world) as server:
        home = Home(tmp_path, server)

        async def lose(request: Request, _: Any) -> Answer:
            world.create(request.headers["content-type"], request.body)
            for number in range(noise):
                world.add("noise", {"SIGMIC_GUARD_INTENT": str(number)} if number % 2 else None)
            return Answer(0, b"")

        async with mortal(home, create_timeout=1.0) as process:
            server.once("create", lose)
            process.post("start", message="x")
            await until(lambda: len(world.tasks) > noise)
            await process.kill()
        mine = next(iter(world.tasks))
        async with heir(home, create_timeout=1.0):
            await gone(server, mine, within=40)
        assert len(world.live) == noise
        assert server.count("DELETE") == 1


async def test_env_that_is_not_text(tmp_path: Path) -> None:
    """A list whose rows have an odd `env` is read all the same."""
    world = held()
    async with Server(world=world) as server:
        home = Home(tmp_path, server)
        odd: list[Any] = [None, {}, {"A": None}, {"A": 1}, [], "x"]
        for each in odd:
            world.add("odd").env = each

        async def lose(request: Request, _: Any) -> Answer:
            world.create(request.headers["content-type"], request.body)
            return Answer(0, b"")

        server.once("create", lose)
        async with heir(home, create_timeout=1.0) as supervisor:
            task = await supervisor.start("x", timeout=30)
            assert world.tasks[task.id].message == "x"
        assert len(world.live) == 6


@pytest.mark.slow
async def test_the_ledger_does_not_tell_one_tenant_of_another(tmp_path: Path) -> None:
    """Two servers that use the same id: each supervisor ends its own."""
    async with Server(world=held()) as one, Server(world=held()) as two:
        here, there = Home(tmp_path, one), Home(tmp_path, two)
        assert await corpse(here) == await corpse(there)
        async with heir(there) as supervisor:
            await until(lambda: two.world.live == [])
            report = await supervisor.reap()
            assert [row.why for row in report.left] == ["other_system"]
        assert len(one.world.live) == 1
        assert one.count("DELETE") == 0
