"""DELETE, however it is answered: the block ends, and what is told of the task is the truth."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import CancelReason, Outcome, Supervisor, TaskTimedOut
from tests.blackbox.lab import KEY, SLACK, sample, supervised, until
from tests.blackbox.server import Answer, Hook, Manners, Server, error, ok
from tests.blackbox.world import Plan, Remote, World

HELD = Plan(end="hold")
Confirm = Literal["accepted", "terminal"]

FINISHED = {
    "the documented message": ok({"message": "Task cancelled"}),
    "another message": ok({"message": "Task is not running", "status": "completed"}),
    "null": ok(None),
    "204": Answer(204, b""),
    "400": error(400, "VALIDATION_ERROR", "Task is not running"),
    "404": error(404, "NOT_FOUND"),
    "409": error(409, "CONFLICT", "Task already completed"),
    "410": error(410, "GONE"),
    "422": Answer(422, b"<html>no</html>", {"content-type": "text/html"}),
}


def when_it_completes(server: Server, answer: Answer | None = None) -> Hook:
    """The task completes while the DELETE is under way."""

    async def hook(_: Any, remote: Remote | None) -> Answer | None:
        assert remote is not None
        server.world.say(remote, "content", text="done", isPartial=True)
        server.world.set(remote, "completed")
        return answer

    return hook


@pytest.mark.parametrize("answer", FINISHED.values(), ids=FINISHED)
@pytest.mark.parametrize("confirm", ["accepted", "terminal"])
async def test_it_had_completed(answer: Answer, confirm: Confirm) -> None:
    """A task that completed under its DELETE: nothing raises, nothing hangs, GET is believed."""
    lying = confirm == "accepted" and answer.status < 300
    gone = answer.status == 404
    manners = Manners(finished=answer)
    async with Server(manners, World(HELD)) as server:
        began = time.monotonic()
        async with supervised(server, exact=not (lying or gone)) as supervisor:
            async with supervisor.task("x", confirm=confirm, cancel_wait=60) as task:
                server.once("delete", when_it_completes(server, answer))
            assert time.monotonic() - began < 3 + SLACK
            if not (lying or gone):
                assert task.outcome is Outcome.COMPLETED
                assert (await task.wait()).final_response == "Hello, wörld 🌍\ndone"
        assert server.count("DELETE") == 1


DELETED = {
    "204": Answer(204, b""),
    "empty 200": Answer(200, b""),
    "202": ok({"message": "on its way"}, status=202),
    "another message": ok({"message": "ok", "task": None}),
    "null": ok(None),
    "a string": ok("cancelled"),
    "no envelope": Answer(200, b'{"message": "Task cancelled"}'),
    "text": Answer(200, b"OK", {"content-type": "text/plain"}),
}


@pytest.mark.parametrize("answer", DELETED.values(), ids=DELETED)
@pytest.mark.parametrize("confirm", ["accepted", "terminal"])
async def test_2xx_in_other_words(answer: Answer, confirm: Confirm) -> None:
    """Whatever a 2xx says, the task is told as cancelled, after a DELETE or two."""
    async with Server(Manners(deleted=answer), World(HELD)) as server:
        async with supervised(server) as supervisor:
            async with supervisor.task("x", confirm=confirm) as task:
                pass
            assert task.outcome is Outcome.CANCELLED
        assert 1 <= server.count("DELETE") <= 2


def answers(*statuses: int, **headers: str) -> list[Hook]:
    def make(status: int) -> Hook:
        async def hook(*_: Any) -> Answer:
            if status == 0:
                return Answer(0, b"")
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return Answer(status, b"<html><h1>busy</h1></html>", names)

        return hook

    return [make(status) for status in statuses]


@pytest.mark.parametrize("status", [0, 429, 500, 503, 520])
async def test_trouble_twice(status: int) -> None:
    """What passes is tried again, until it is taken: three DELETEs, one cancellation."""
    registry = CollectorRegistry()
    async with Server(world=World(HELD)) as server:
        server.once("delete", *answers(status, status))
        async with supervised(server, registry=registry) as supervisor:
            async with supervisor.task("x", cancel_wait=5) as task:
                pass
            assert task.outcome is Outcome.CANCELLED
        assert server.count("DELETE") == 3
        if status:  # aiohttp itself repeats a DELETE that met a closed connection, untold
            assert sample(registry, "cancel_attempts_total") == 3
        assert sample(registry, "cancellations_total", result="acknowledged") == 1
        assert sample(registry, "cancellations_total") == 1


@pytest.mark.slow
async def test_retry_after_as_a_date() -> None:
    """`Retry-After` is heeded as a date too."""
    async with Server(world=World(HELD)) as server:
        async with supervised(server) as supervisor:
            task = await supervisor.start("x")
            when = datetime.now(UTC) + timedelta(seconds=2)
            server.once("delete", *answers(429, Retry_After=format_datetime(when, usegmt=True)))
            began = time.monotonic()
            await task.cancel()
            assert 0.8 < time.monotonic() - began < 3.5 + SLACK
            assert task.outcome is Outcome.CANCELLED
        assert server.count("DELETE") == 2


@pytest.mark.parametrize("value", ["soon", "-5", "Mon, 01 Jan 1990 00:00:00 GMT", "", "1e400"])
async def test_retry_after_that_means_nothing(value: str) -> None:
    """A `Retry-After` in the past, or that cannot be read, delays no longer than none."""
    async with Server(world=World(HELD)) as server:
        server.once("delete", *answers(429, Retry_After=value))
        async with supervised(server) as supervisor:
            task = await supervisor.start("x")
            began = time.monotonic()
            await task.cancel()
            assert time.monotonic() - began < 2 + SLACK


@pytest.mark.parametrize("status", [401, 403])
async def test_refused(status: int) -> None:
    """401 and 403 are not tried again within a block; the report names the task."""
    async with Server(world=World(HELD)) as server:

        async def refuse(*_: Any) -> Answer:
            return error(status, "FORBIDDEN" if status == 403 else "INVALID_API_KEY")

        server.always["delete"] = refuse
        registry = CollectorRegistry()
        async with Supervisor(
            api_key=KEY, base_url=server.url, registry=registry, grace=1
        ) as supervisor:
            began = time.monotonic()
            async with supervisor.task("x", cancel_wait=60) as task:
                pass
            assert time.monotonic() - began < 1 + SLACK
            assert server.count("DELETE") == 1
            report = await supervisor.shutdown()
            assert [row.id for row in report.unconfirmed] == [task.id]
        assert sample(registry, "cancellations_total", result="unconfirmed") == 1
        assert sample(registry, "tasks_started_total") == sample(
            registry, "tasks_finished_total"
        ) + sample(registry, "tasks_live")


async def test_slow_delete_that_loses_the_race() -> None:
    """DELETE is under way, the task completes, 409 comes back: completed, with its result."""
    async with Server(world=World(HELD)) as server:
        gate = asyncio.Event()

        async def slow(_: Any, remote: Remote | None) -> Answer:
            assert remote is not None
            await gate.wait()
            server.world.set(remote, "completed")
            return error(409, "CONFLICT")

        server.once("delete", slow)
        async with supervised(server) as supervisor:
            task = await supervisor.start("x")
            cancelling = asyncio.create_task(task.cancel())
            await until(lambda: server.count("DELETE") == 1)
            gate.set()
            cancellation = await cancelling
            assert cancellation.result == "already_finished"
            result = await task.wait()
            assert (result.outcome, result.final_response) == (Outcome.COMPLETED, HELD.text)


async def test_two_buttons() -> None:
    """Two cancels at once send one DELETE, and both are told the same."""
    async with Server(world=World(HELD)) as server:
        async with supervised(server) as supervisor:
            task = await supervisor.start("x")
            first, second = await asyncio.gather(task.cancel(), task.cancel())
            assert first == second
            assert first.reason is CancelReason.USER
        assert server.count("DELETE") == 1


async def test_a_slow_delete_does_not_hold_the_block_for_ever() -> None:
    """The block waits `cancel_wait` and ends; the supervisor goes on with it."""
    async with Server(world=World(HELD)) as server:
        gate = asyncio.Event()

        async def slow(*_: Any) -> None:
            await gate.wait()

        server.once("delete", slow)
        async with supervised(server) as supervisor:
            began = time.monotonic()
            with pytest.raises(TaskTimedOut):
                async with supervisor.task("x", timeout=1, cancel_wait=0.2) as task:
                    await asyncio.Event().wait()
            assert time.monotonic() - began < 2 + SLACK
            gate.set()
            assert (await task.wait()).outcome is Outcome.TIMED_OUT


@pytest.mark.slow
async def test_a_delete_that_lies() -> None:
    """With `confirm="terminal"` a server that says "cancelled" and lets it run is asked again."""
    async with Server(world=World(HELD)) as server:

        async def lie(*_: Any) -> Answer:
            return ok({"message": "Task cancelled"})

        server.once("delete", lie)
        async with supervised(server, grace=8) as supervisor:
            async with supervisor.task("x", confirm="terminal") as task:
                pass
            result = await task.wait()
            assert result.outcome is Outcome.CANCELLED
        assert server.count("DELETE") >= 2
