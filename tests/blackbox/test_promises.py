"""The promises of the README, held against the other server's truth."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import (
    CancelReason,
    ConnectionFailed,
    DuplicateKey,
    Outcome,
    State,
    Supervisor,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskTimedOut,
    ValidationError,
)
from tests.blackbox.lab import KEY, SLACK, books, sample, supervised, truth, until
from tests.blackbox.server import Answer, Server, error
from tests.blackbox.world import Plan, World


def held() -> World:
    return World(Plan(end="hold"), plans={"quick": Plan(), "fail": Plan(end="failed")})


class Ouch(Exception):
    """The body's own."""


async def test_body_raises() -> None:
    """DELETE, reason `error`, and the exception goes on unchanged."""
    registry = CollectorRegistry()
    async with Server(world=held()) as server:
        async with supervised(server, registry=registry) as supervisor:
            ouch = Ouch()
            with pytest.raises(Ouch) as caught:
                async with supervisor.task("x") as task:
                    raise ouch
            assert caught.value is ouch
            assert (ouch.__cause__, ouch.__context__) == (None, None)
            assert (task.reason, task.outcome) == (CancelReason.ERROR, Outcome.CANCELLED)
        assert sample(registry, "tasks_finished_total", outcome="cancelled", reason="error") == 1
        assert server.count("DELETE") == 1


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("use", ["task", "run", "start"])
async def test_native_cancellation(times: int, use: str) -> None:
    """However often the caller is cancelled natively: cancelled it is, and so is the task."""
    exact = use == "task"  # of the others none may have been sent yet: counted here, not there
    async with Server(world=held()) as server, supervised(server, exact=exact) as supervisor:
        entered = asyncio.Event()

        async def body() -> None:
            if use == "task":
                async with supervisor.task("x"):
                    entered.set()
                    await asyncio.Event().wait()
            elif use == "run":
                entered.set()
                await supervisor.run("x")
            else:
                entered.set()
                await supervisor.start("x")
                await asyncio.Event().wait()

        caller = asyncio.create_task(body())
        await entered.wait()
        for _ in range(times):
            caller.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert caller.cancelled()


async def test_asyncio_timeout_around_a_block() -> None:
    """`asyncio.timeout` sees its own cancellation, and no TaskTimedOut of ours."""
    async with Server(world=held()) as server, supervised(server) as supervisor:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.2):
                async with supervisor.task("x") as task:
                    await asyncio.Event().wait()
        assert not isinstance(caught.value, TaskTimedOut)
        assert task.reason is CancelReason.SCOPE


async def test_wait_for_around_run() -> None:
    """So does `asyncio.wait_for`."""
    async with Server(world=held()) as server, supervised(server) as supervisor:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(supervisor.run("x"), 0.2)
        assert server.count("DELETE") == 1


async def test_move_on_after_around_a_block() -> None:
    """An anyio scope outside moves on as ever."""
    async with Server(world=held()) as server, supervised(server) as supervisor:
        with anyio.move_on_after(0.2) as scope:
            async with supervisor.task("x") as task:
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert task.reason is CancelReason.SCOPE


async def test_siblings_in_a_task_group() -> None:
    """A sibling's failure cancels a block's body, and its DELETE goes out."""
    async with Server(world=held()) as server, supervised(server) as supervisor:

        async def fail() -> None:
            await until(lambda: len(server.world.tasks) == 2)
            raise Ouch

        async def hold() -> None:
            async with supervisor.task("x"):
                await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(hold())
                group.create_task(hold())
                group.create_task(fail())
        assert [type(each) for each in caught.value.exceptions] == [Ouch]
        assert server.count("DELETE") == 2


async def test_deadline() -> None:
    """A task's own deadline is a TimeoutError with the id and the result; reason `deadline`."""
    registry = CollectorRegistry()
    async with Server(world=held()) as server:
        async with supervised(server, registry=registry) as supervisor:
            began = time.monotonic()
            with pytest.raises(TimeoutError) as caught:
                await supervisor.run("x", timeout=1)
            assert 0.95 < time.monotonic() - began < 2 + SLACK
            failure = caught.value
            assert isinstance(failure, TaskTimedOut)
            assert failure.task_id == server.world.only.id
            assert failure.result is not None
            assert failure.result.outcome is Outcome.TIMED_OUT
            again = pickle.loads(pickle.dumps(failure))
            assert (again.task_id, str(again)) == (failure.task_id, str(failure))
        assert sample(registry, "tasks_finished_total", outcome="timed_out", reason="deadline") == 1


async def test_deadline_while_the_create_hangs() -> None:
    """The create counts: the id comes late, and the DELETE follows it."""
    async with Server(world=held()) as server:
        gate = asyncio.Event()

        async def late(*_: Any) -> None:
            await gate.wait()

        server.once("create", late)
        async with supervised(server) as supervisor:
            began = time.monotonic()
            with pytest.raises(TaskTimedOut):
                async with supervisor.task("x", timeout=0.2, cancel_wait=0.3):
                    pytest.fail("no task, no body")
            assert time.monotonic() - began < 2 + SLACK
            gate.set()
            await until(lambda: server.count("DELETE") == 1)
        assert server.count("POST") == 1


@pytest.mark.parametrize("before", [True, False])
async def test_the_answer_to_the_create_is_lost(before: bool) -> None:
    """One POST whatever happens; a task that exists after all is found and ended."""
    async with Server(world=held()) as server:

        async def lose(request: Any, _: Any) -> Answer:
            if not before:
                server.world.create(request.headers["content-type"], request.body)
            return Answer(0, b"")

        server.once("create", lose)
        registry = CollectorRegistry()
        async with Supervisor(
            api_key=KEY, base_url=server.url, registry=registry, grace=4, create_timeout=0.3
        ) as supervisor:
            try:
                async with supervisor.task("x", timeout=10) as task:
                    assert task.id == server.world.only.id
            except ConnectionFailed:
                assert before
        assert server.world.live == []
        assert server.count("POST") == 1


@pytest.mark.parametrize(
    "status, code, kind",
    [(400, "VALIDATION_ERROR", ValidationError), (404, "NOT_FOUND", TaskNotFound)],
)
async def test_a_create_that_is_refused(status: int, code: str, kind: type[Exception]) -> None:
    """A refusal is raised as what it is, and counted as started and finished."""
    registry = CollectorRegistry()
    async with Server(world=held()) as server:

        async def refuse(*_: Any) -> Answer:
            return error(status, code, "not this")

        server.once("create", refuse)
        async with Supervisor(api_key=KEY, base_url=server.url, registry=registry) as supervisor:
            with pytest.raises(kind, match="not this"):
                await supervisor.run("x")
        assert sample(registry, "tasks_started_total") == sample(registry, "tasks_finished_total")
        assert server.count("POST") == 1


async def test_on_exit() -> None:
    """`wait` waits, `detach` lets go, and neither sends a DELETE."""
    async with Server(world=held()) as server, supervised(server, exact=False) as supervisor:
        async with supervisor.task("quick", on_exit="wait") as waited:
            pass
        assert waited.outcome is Outcome.COMPLETED
        async with supervisor.task("x", on_exit="detach") as detached:
            pass
        assert detached.outcome is Outcome.DETACHED
        assert server.count("DELETE") == 0
        server.world.set(server.world.tasks[detached.id or ""], "completed")


async def test_keys() -> None:
    """A key is held by one live task at a time."""
    async with Server(world=held()) as server, supervised(server) as supervisor:
        async with supervisor.task("x", key="nightly"):
            with pytest.raises(DuplicateKey):
                await supervisor.start("y", key="nightly")
        assert len(server.world.tasks) == 1
        await supervisor.start("x", key="nightly")


async def test_places() -> None:
    """No more than `max_tasks` live remotely at any time, and all get their turn."""
    world = World(Plan(gap=0.01))
    most = 0
    async with Server(world=world) as server:

        async def count(*_: Any) -> None:
            nonlocal most
            most = max(most, len(world.live) + 1)

        server.always["create"] = count
        async with supervised(server, max_tasks=3) as supervisor:
            results = await asyncio.gather(*(supervisor.run("x", timeout=10) for _ in range(12)))
        assert [result.outcome for result in results] == [Outcome.COMPLETED] * 12
        assert most == 3


async def test_a_follow_up_to_a_cancelled_task() -> None:
    """It raises TaskCancelled and sends nothing."""
    async with Server(world=held()) as server, supervised(server) as supervisor:
        task = await supervisor.start("x")
        await task.cancel()
        posts = server.count("POST")
        with pytest.raises(TaskCancelled):
            await task.send("more")
        assert server.count("POST") == posts


async def test_one_failure_touches_no_other() -> None:
    """Tasks that fail, time out, are cancelled or refused leave their neighbours alone."""
    async with Server(world=held()) as server, supervised(server, exact=False) as supervisor:
        steady = [await supervisor.start("x") for _ in range(5)]
        with pytest.raises(TaskFailed):
            await supervisor.run("fail")
        with pytest.raises(TaskTimedOut):
            await supervisor.run("x", timeout=1)
        server.once("create", *[lambda *_: refused()] * 2)
        for _ in range(2):
            with pytest.raises(ValidationError):
                await supervisor.start("x")
        assert {task.state for task in steady} == {State.RUNNING}
        assert len(supervisor.tasks) == len(supervisor.snapshot()) == 5


async def refused() -> Answer:
    return error(400, "VALIDATION_ERROR")


async def test_a_crowd(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred tasks that end in every way: both sets of books agree, at every look."""
    caplog.set_level(logging.DEBUG)
    registry = CollectorRegistry()
    world = World(
        Plan(end="hold"), plans={"quick": Plan(gap=0.01), "fail": Plan(gap=0.01, end="failed")}
    )

    async def one(server: Server, supervisor: Supervisor, number: int) -> None:
        match number % 5:
            case 0:
                await supervisor.run("quick", timeout=20)
            case 1:
                await supervisor.run("fail", timeout=20)
            case 2:
                await supervisor.run("x", timeout=3)  # a slow machine has created it by then
            case 3:
                task = await supervisor.start("x")
                await task.cancel()
            case _:
                async with supervisor.task("x", secrets={"PASSWORD": "hunter2"}):
                    raise Ouch

    async with Server(world=world) as server:
        async with supervised(server, registry=registry) as supervisor:
            crowd = asyncio.gather(
                *(one(server, supervisor, number) for number in range(100)), return_exceptions=True
            )
            while not crowd.done():
                await asyncio.sleep(0.02)
                started = sample(registry, "tasks_started_total")
                finished = sample(registry, "tasks_finished_total")
                assert started == finished + sample(registry, "tasks_live")
            kinds = [type(each) for each in await crowd]
            assert kinds[:5] == [type(None), TaskFailed, TaskTimedOut, type(None), Ouch]
        assert books(registry) == truth(world) == {"completed": 20, "failed": 20, "cancelled": 60}
        assert sample(registry, "cancellations_total") == 60
    assert KEY not in caplog.text
    assert "hunter2" not in caplog.text
