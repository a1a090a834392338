"""A server whose GET and list lag behind what it did: patience, and no task lost or misjudged."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sigmic_guard import Outcome, State, TaskFailed
from tests.blackbox.lab import SLACK, supervised, texts, until
from tests.blackbox.server import Answer, Manners, Server, error, ok
from tests.blackbox.streams import StreamManners
from tests.blackbox.world import Plan, World

SLOW = Plan(gap=0.03)


@pytest.mark.parametrize("lag, done", [(0.3, "full"), (0.1, "empty"), (0.3, "missing")])
async def test_get_lags(lag: float, done: str) -> None:
    """404 right after the create, `running` after the end: no cancellation, the right result."""
    manners = Manners(stream=StreamManners(done=done))
    async with Server(manners, World(SLOW, get_lag=lag)) as server:
        async with supervised(server) as supervisor:
            result = await supervisor.run("x", timeout=5)
            assert (result.outcome, result.final_response) == (Outcome.COMPLETED, SLOW.text)
        assert server.count("DELETE") == 0


async def test_the_stream_is_late() -> None:
    """A stream that is not found right after the create is opened again; the task lives on."""
    async with Server(world=World(Plan(gap=0.1), get_lag=0.1)) as server:
        async with (
            supervised(server) as supervisor,
            supervisor.task("x", timeout=5) as task,
        ):
            assert await texts(task) == SLOW.text
        assert server.count("DELETE") == 0


async def test_the_list_lags_and_get_too() -> None:
    """Background tasks end when their end is to be seen, and not before."""
    world = World(SLOW, get_lag=0.15, list_lag=0.3, plans={"fail": Plan(end="failed")})
    async with Server(world=world) as server:
        async with supervised(server) as supervisor:
            tasks = [await supervisor.start("x") for _ in range(5)]
            failing = await supervisor.start("fail")
            results = [await task.wait() for task in tasks]
            assert {result.outcome for result in results} == {Outcome.COMPLETED}
            with pytest.raises(TaskFailed):
                await failing.result()
        assert server.count("DELETE") == 0


@pytest.mark.slow
async def test_get_lags_behind_the_list() -> None:
    """What the list shows as ended and GET does not yet is looked at again, soon."""
    async with Server(world=World(SLOW, get_lag=0.5)) as server, supervised(server) as supervisor:
        began = time.monotonic()
        task = await supervisor.start("x")
        assert (await task.wait()).final_response == SLOW.text
        assert time.monotonic() - began < 4 + SLACK


async def test_a_list_that_ignores_the_limit() -> None:
    """All tasks on one page, however few were asked for."""
    async with Server(world=World(Plan(end="hold"))) as server:

        async def everything(*_: Any) -> Answer:
            return ok([server.world.row(each, output=False) for each in server.world.listed()])

        server.always["list"] = everything
        async with supervised(server) as supervisor:
            tasks = [await supervisor.start("x") for _ in range(150)]
            for remote in server.world.tasks.values():
                server.world.set(remote, "completed")
            assert {(await task.wait()).outcome for task in tasks} == {Outcome.COMPLETED}


async def test_confirm_terminal_where_get_lags() -> None:
    """`confirm="terminal"` is patient with a GET that still says `running`."""
    world = World(Plan(end="hold"), get_lag=0.4)
    async with Server(world=world) as server, supervised(server, grace=8) as supervisor:
        async with supervisor.task("x", confirm="terminal") as task:
            pass
        assert (await task.wait()).outcome is Outcome.CANCELLED


@pytest.mark.slow
@pytest.mark.parametrize(
    "list_max, total, activity",
    [
        (1, False, "Z"),
        (7, True, "offset"),
        (1, False, "none"),
    ],
)
async def test_short_pages(list_max: int, total: bool, activity: str) -> None:
    """A server that gives shorter pages than asked for hides no task."""
    world = World(Plan(end="hold"), activity=activity)
    manners = Manners(list_max=list_max, list_total=total)
    async with Server(manners, world) as server, supervised(server, grace=4) as supervisor:
        tasks = [await supervisor.start("x", timeout=10) for _ in range(12)]
        await until(lambda: server.count("GET") >= 3)
        for remote in list(world.tasks.values())[:6]:
            world.set(remote, "completed")
        for task in tasks[:6]:
            assert (await task.wait()).outcome is Outcome.COMPLETED
        assert {task.state for task in tasks[6:]} == {State.RUNNING}


async def test_pages_shift_under_the_reader() -> None:
    """Tasks that become active while the list is read push others over the page's edge."""
    world = World(Plan(end="hold"), plans={"noise": Plan(start=False)})
    async with Server(Manners(list_max=4), world) as server:
        others = [world.add("noise") for _ in range(8)]

        async def shift(request: Any, _: Any) -> None:
            remote = others.pop(0)
            others.append(remote)
            world.set(remote, "running")

        server.always["list"] = shift
        registry_free: list[Any] = []
        try:
            async with asyncio.timeout(8):
                async with supervised(server, exact=False) as supervisor:
                    tasks = [await supervisor.start("x") for _ in range(10)]
                    for remote in list(world.tasks.values())[8:]:
                        world.set(remote, "completed")
                    registry_free = [await task.wait() for task in tasks]
        except AssertionError:
            pass  # the noise lives on: it is nobody's
        assert {result.outcome for result in registry_free} == {Outcome.COMPLETED}
        assert server.count("DELETE") == 0


async def test_the_answer_to_the_create_is_lost_and_the_list_lags() -> None:
    """The marker finds the task, though the list shows it late: one POST, one DELETE, none left."""
    async with Server(world=World(Plan(end="hold"), list_lag=0.3)) as server:

        async def lose(request: Any, _: Any) -> Answer:
            server.world.create(request.headers["content-type"], request.body)
            return Answer(0, b"")

        server.once("create", lose)
        async with (
            supervised(server, grace=6) as supervisor,
            supervisor.task("x", timeout=10) as task,
        ):
            assert task.id in server.world.tasks
        assert server.count("POST") == 1


async def test_a_task_that_is_gone() -> None:
    """A task that is 404 everywhere for good is not waited for for ever."""
    async with Server(world=World(Plan(end="hold"))) as server:

        async def gone(*_: Any) -> Answer:
            return error(404, "NOT_FOUND")

        async with supervised(server, exact=False) as supervisor:
            task = await supervisor.start("x", timeout=5)
            began = time.monotonic()
            for route in ("get", "delete", "stream"):
                server.always[route] = gone
            cancellation = await task.cancel()
            assert cancellation.result == "not_found"
            assert time.monotonic() - began < 3 + SLACK
            server.world.set(server.world.only, "cancelled")
