"""Other hosts, other framings, other ids, other shapes of the same answers: one story each."""

from __future__ import annotations

import base64
import socket
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from sigmic_guard import Outcome, Supervisor, TaskFailed
from tests.blackbox.lab import supervised, texts
from tests.blackbox.server import Manners, Server
from tests.blackbox.world import Plan, World


def plans() -> dict[str, Plan]:
    return {
        "hold": Plan(end="hold"),
        "slow": Plan(gap=0.02),
        "fail": Plan(end="failed"),
        "wait": Plan(start=False),
        "ask": Plan(approval=True),
    }


async def story(server: Server, supervisor: Supervisor) -> None:
    """One call, a failure, a block, the cancel button, an adoption, a follow-up, an approval."""
    whole = server.world.plan.text
    result = await supervisor.run("complete", timeout=10)
    assert result.outcome is Outcome.COMPLETED
    assert result.final_response == (whole if server.world.tells_output else None)
    with pytest.raises(TaskFailed):
        await supervisor.run("fail", timeout=10)
    async with supervisor.task("hold", timeout=10) as held:
        server.world.tasks[held.id or ""]  # the id came through
    assert held.outcome is Outcome.CANCELLED
    background = await supervisor.start("hold", env={"A": "1"}, timeout=10)
    cancellation = await background.cancel()
    assert cancellation.result in {"acknowledged", "confirmed"}
    assert (await background.wait()).outcome is Outcome.CANCELLED
    waiting = await supervisor.start("wait", timeout=10)
    await waiting.cancel()
    adopted = await supervisor.adopt(server.world.add("hold").id, timeout=10)
    await adopted.cancel()
    async with supervisor.task("slow", timeout=10) as task:
        assert await texts(task) == whole
        await task.result()
        await task.send("more?")
        assert (await task.result()).final_response == "about more?: yes"
    async with supervisor.task("ask", timeout=10) as task:
        async for event in task.events():
            if event.type == "tool_call" and event.data["status"] == "awaiting_approval":
                assert await task.approve(event.data["callId"]) is True
        assert (await task.result()).final_response == whole
    assert len(server.world.tasks) == 8
    for request in server.requests:
        assert request.target.startswith(f"{server.manners.prefix}/api/v1/tasks")


async def tell(manners: Manners | None = None, world: World | None = None) -> None:
    world = world or World()
    world.plans = plans()
    async with (
        Server(manners, world) as server,
        supervised(server, grace=4.0) as supervisor,
    ):
        await story(server, supervisor)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "host, name",
    [
        ("127.0.0.2", ""),
        ("127.0.0.1", "localhost"),
        pytest.param("::1", "", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6")),
    ],
)
async def test_other_hosts(host: str, name: str) -> None:
    """The base URL may name the host by another address, by name, or in brackets."""
    await tell(Manners(host=host, name=name))


@pytest.mark.parametrize("prefix, slash", [("/gateway", ""), ("/gateway", "/"), ("/a/b%2Fc~x", "")])
async def test_a_base_url_with_a_path(prefix: str, slash: str) -> None:
    """A path in the base URL comes before every path, with or without its last slash."""
    world = World(plans=plans())
    async with Server(Manners(prefix=prefix), world) as server:

        class Slashed(Server):
            url = server.url + slash

        slashed = Slashed(server.manners, world)
        slashed.requests = server.requests
        async with supervised(slashed) as supervisor:
            await story(server, supervisor)


@pytest.mark.parametrize(
    "framing, keep_alive, zipped",
    [
        ("length", True, True),
        ("length", False, False),
        ("chunked", True, False),
        ("chunked", False, True),
        ("close", False, True),
    ],
)
async def test_framings(framing: str, keep_alive: bool, zipped: bool) -> None:
    """Length, chunks, or the end of the connection; kept alive or not; zipped or not."""
    await tell(Manners(framing=framing, keep_alive=keep_alive, gzip=zipped))


WORLDS = {
    "extra fields": {"extra": True},
    "only id, status and env": {"sparse": True},
    "null for the rest": {"nulls": True},
    "null for the rest, and more": {"nulls": True, "extra": True},
    "no milliseconds": {"millis": False},
    "offset": {"activity": "offset"},
    "no activity": {"activity": "none"},
    "no output": {"output": "none"},
    "queued": {"words": {"pending": "queued"}},
    "other words for being alive": {
        "words": {"pending": "QUEUED", "running": "in_progress", "awaiting_approval": "blocked"}
    },
}


@pytest.mark.parametrize("fields", WORLDS.values(), ids=WORLDS)
async def test_shapes(fields: dict[str, Any]) -> None:
    """Unknown fields, missing fields, nulls, other times and other words change nothing."""
    await tell(world=World(**fields))


async def test_no_total() -> None:
    """The list need not tell how many there are."""
    await tell(Manners(list_total=False))


def base64_id(number: int) -> str:
    return base64.b64encode(b"\xfb\xff\xfe%d" % number).decode()


IDS = {
    "base64": base64_id,
    "colons": lambda n: f"projects:eu:tasks:{n}",
    "slashes": lambda n: f"projects/eu/tasks/{n}",
    "200 characters": lambda n: f"{n:0>200}",
    "unicode": lambda n: f"tâche-{n}-日本",
    "query": lambda n: f"a?b={n}&c#d",
    "percent": lambda n: f"%2e%2e%2f{n}",
    "plus and space": lambda n: f"a+b c {n}",
    "dots inside": lambda n: f"../..;/{n}",
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
async def test_ids(ids: Any) -> None:
    """An id is one path segment, whatever is in it."""
    world = World(ids=ids, plans=plans())
    async with Server(world=world) as server:
        async with supervised(server) as supervisor:
            await story(server, supervisor)
        segments = {
            urlsplit(request.target).path.split("/")[4]
            for request in server.requests
            if request.target.count("/") > 3
        }
        assert segments == {quote(each, safe="") for each in world.tasks}


async def test_the_story_finds_a_server_that_lets_a_task_run() -> None:
    """Negative control: where a DELETE has no effect, the books do not agree."""

    async def lie(request: Any, remote: Any) -> Any:
        from tests.blackbox.server import ok

        return ok({"message": "Task cancelled"})

    with pytest.raises(AssertionError, match=r"^$|live"):
        async with Server(world=World(plans=plans())) as server:
            server.always["delete"] = lie
            async with supervised(server) as supervisor:
                await supervisor.start("hold")
