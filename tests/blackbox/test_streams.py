"""Streams in other dialects: the text once, the result right, the end found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sigmic_guard import Outcome, State, TaskCancelled, TaskFailed, TaskTimedOut
from tests.blackbox.lab import supervised, texts, until
from tests.blackbox.server import Manners, Server
from tests.blackbox.streams import StreamManners
from tests.blackbox.world import Plan, World

#: Slow enough for a stream to be there before the first word.
SLOW = Plan(gap=0.015)
WHOLE = SLOW.text

DIALECTS = {
    "plain": {},
    "CRLF": {"newline": "\r\n"},
    "CR": {"newline": "\r"},
    "BOM": {"bom": True},
    "no names": {"named": False, "wrapped": True},
    "wrapped": {"wrapped": True},
    "type beside the fields": {"typed": True},
    "only a type beside the fields": {"typed": True, "named": False},
    "comments": {"comments": True},
    "single bytes": {"chunk": 1},
    "single bytes, CRLF, BOM": {"chunk": 1, "newline": "\r\n", "bom": True, "comments": True},
    "single bytes, CR": {"chunk": 1, "newline": "\r", "wrapped": True},
    "many data lines": {"multiline": True, "newline": "\r\n"},
    "catch-up in one": {"catch_up": "one"},
    "done without finalResponse": {"done": "empty"},
    "done with null": {"done": "null"},
    "no done": {"done": "missing"},
    "the whole again": {"whole": True},
}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
async def test_dialects(dialect: dict[str, Any]) -> None:
    """In each dialect the text comes once and in order, and the result is right."""
    framing = "length" if dialect.get("newline") else "chunked"
    manners = Manners(stream=StreamManners(**dialect), framing=framing)
    async with Server(manners, World(SLOW)) as server, supervised(server) as supervisor:
        async with supervisor.task("x", timeout=10) as task:
            assert await texts(task) == WHOLE
            assert task.state is State.COMPLETED
            assert (await task.result()).final_response == WHOLE
        assert (await supervisor.run("x", timeout=10)).final_response == WHOLE


@pytest.mark.parametrize(
    "cut, catch_up",
    [(0, "one"), (2, "chunks"), (3, "one"), (4, "chunks"), (5, "one"), (6, "chunks")],
)
async def test_cut_once(cut: int, catch_up: str) -> None:
    """Cut after any number of events and opened anew, the text comes once."""
    manners = Manners(stream=StreamManners(catch_up=catch_up))
    first = StreamManners()
    plan = Plan(chunks=["ab", "ab", "a", "b", "\n"], end="hold")
    async with Server(manners, World(plan)) as server, supervised(server) as supervisor:
        server.cuts.append(cut)
        server.stream_manners.append(first)
        async with supervisor.task("x", timeout=10) as task:

            async def finish() -> None:
                await until(lambda: server.count("GET", ends="/stream") == 2)
                server.world.say(server.world.only, "content", text="end", isPartial=True)
                server.world.set(server.world.only, "completed")

            finishing = asyncio.create_task(finish())
            assert await texts(task) == "abababab"[:6] + "\n" + "end"
            await finishing


@pytest.mark.slow
@pytest.mark.parametrize("first, then", [("chunks", "one"), ("one", "chunks")])
async def test_cut_again_and_again(first: str, then: str) -> None:
    """The catch-up may come in other pieces each time."""
    plan = Plan(chunks=list("aaabbbaaabab"), gap=0.04)
    async with Server(world=World(plan)) as server, supervised(server) as supervisor:
        server.stream_manners.extend(StreamManners(catch_up=kind) for kind in [first, then] * 8)
        server.cuts.extend([4, 5, 6, 7])
        async with supervisor.task("x", timeout=10) as task:
            assert await texts(task) == plan.text


@pytest.mark.parametrize("cut", range(5))
async def test_the_task_ends_while_the_stream_is_down(cut: int) -> None:
    """What the stream could not bring any more comes at the end."""
    plan = Plan(chunks=["one ", "two "], end="hold")
    async with Server(world=World(plan)) as server, supervised(server) as supervisor:
        server.cuts.append(cut)

        async def finish(request: Any, remote: Any) -> None:
            server.world.say(remote, "content", text="three", isPartial=True)
            server.world.set(remote, "completed")

        async with supervisor.task("x", timeout=10) as task:
            server.once("get", finish)
            said = await texts(task)
            result = await task.result()
        assert result.final_response == "one two three"
        assert said == "one two three"


async def test_pending_and_not_streaming() -> None:
    """`isStreaming: false` of a task that has not begun is not its end."""
    plan = Plan(start=False)
    async with Server(world=World(plan)) as server, supervised(server) as supervisor:
        early = StreamManners(early_false=True)
        server.stream_manners.extend([early, early])
        async with supervisor.task("x", timeout=10) as task:

            async def begin() -> None:
                await until(lambda: server.count("GET", ends="/stream") == 2)
                remote = server.world.only
                remote.player = asyncio.create_task(server.world._play(remote, SLOW.chunks))
                remote.plan.gap = 0.1

            beginning = asyncio.create_task(begin())
            assert await texts(task) == WHOLE
            await beginning
            assert (await task.result()).outcome is Outcome.COMPLETED


async def test_streams_that_close_early() -> None:
    """A stream that ends while the task runs on is opened anew."""
    plan = Plan(chunks=["a", "b", "c"], gap=0.1)
    async with Server(world=World(plan)) as server, supervised(server) as supervisor:
        server.stream_manners.extend([StreamManners(closes_early=True)] * 2)
        async with supervisor.task("x", timeout=10) as task:
            assert await texts(task) == "abc"


async def test_error_before_the_end() -> None:
    """An `error` event of a task that fails is an event; the failure is told by `result()`."""
    plan = Plan(gap=0.03, end="failed")
    async with Server(world=World(plan)) as server, supervised(server) as supervisor:
        async with supervisor.task("x", timeout=10) as task:
            kinds = [event.type async for event in task.events()]
            assert kinds.count("error") == 1
            with pytest.raises(TaskFailed) as caught:
                await task.result()
        assert caught.value.result is not None
        assert "sandbox" in str(caught.value.error)


async def test_error_before_done() -> None:
    """An `error` event before a `done` does not fail a task that completed."""
    plan = Plan(chunks=["a"], end="hold")
    async with (
        Server(world=World(plan)) as server,
        supervised(server) as supervisor,
        supervisor.task("x", timeout=10) as task,
    ):

        async def trouble() -> None:
            await until(lambda: server.count("GET", ends="/stream") == 1)
            server.world.say(server.world.only, "error", message="retrying")
            server.world.say(server.world.only, "content", text="b", isPartial=True)
            server.world.set(server.world.only, "completed")

        troubling = asyncio.create_task(trouble())
        assert await texts(task) == "ab"
        await troubling
        assert (await task.result()).final_response == "ab"


async def test_cancelled_elsewhere_while_it_is_read() -> None:
    """The stream just ends: the body is cancelled, and the reason is `remote`."""
    async with Server(world=World(Plan(end="hold"))) as server, supervised(server) as supervisor:
        with pytest.raises(TaskCancelled) as caught:
            async with supervisor.task("x", timeout=10) as task:
                async for event in task.events():
                    if event.text.endswith("\n"):
                        server.world.set(server.world.only, "cancelled")
                await asyncio.Event().wait()
        assert caught.value.reason == "remote"
        assert server.count("DELETE") == 0


async def test_heartbeats_only() -> None:
    """A stream that says nothing but heartbeats does not hide the deadline."""
    async with Server(world=World(Plan(end="hold"))) as server, supervised(server) as supervisor:
        server.stream_manners.append(StreamManners(silent=True))
        with pytest.raises(TaskTimedOut):
            async with supervisor.task("x", timeout=1) as task:
                async for _ in task.events():
                    pass
        assert server.count("DELETE") == 1


async def test_two_readers() -> None:
    """Two consumers of one task each get the whole text."""
    async with Server(world=World(SLOW)) as server, supervised(server) as supervisor:
        async with supervisor.task("x", timeout=10) as task:
            both = await asyncio.gather(texts(task), texts(task))
        assert list(both) == [WHOLE, WHOLE]
