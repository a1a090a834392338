"""Shutdowns of a supervisor, held against the other server's truth."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import (
    CancelReason,
    Outcome,
    State,
    Supervisor,
    SupervisorShutdown,
)
from tests.blackbox.lab import KEY, SLACK, sample, supervised, until
from tests.blackbox.server import Answer, Server
from tests.blackbox.world import Plan, World


def held() -> World:
    return World(Plan(end="hold"), plans={"quick": Plan(), "fail": Plan(end="failed")})


class Ouch(Exception):
    """The body's own."""


async def test_shutdown_from_elsewhere() -> None:
    """Blocks raise SupervisorShutdown, background tasks end with reason `shutdown`."""
    registry = CollectorRegistry()
    async with Server(world=held()) as server:
        async with supervised(server, registry=registry) as supervisor:
            background = await supervisor.start("x")

            async def ask() -> None:
                await until(lambda: len(server.world.tasks) == 2)
                supervisor.request_shutdown()

            asking = asyncio.create_task(ask())
            with pytest.raises(SupervisorShutdown):
                async with supervisor.task("x"):
                    await asyncio.Event().wait()
            await asking
            result = await background.wait()
            assert (result.outcome, result.reason) == (Outcome.CANCELLED, CancelReason.SHUTDOWN)
            with pytest.raises(SupervisorShutdown):
                await supervisor.run("too late")
        assert len(server.world.tasks) == 2
        assert sample(registry, "tasks_finished_total", reason="shutdown") == 2


@pytest.mark.parametrize("how", ["black hole", "503", "hang up", "429 for an hour"])
async def test_the_budget(how: str) -> None:
    """Whatever DELETE does, the exit takes no longer than `grace` + 1 s, and all are named."""
    registry = CollectorRegistry()
    async with Server(world=held()) as server:

        async def refuse(*_: Any) -> Answer:
            match how:
                case "503":
                    return Answer(503, b"<html></html>")
                case "hang up":
                    return Answer(0, b"")
                case "429 for an hour":
                    return Answer(429, b"", {"Retry-After": "3600"})
                case _:
                    await asyncio.Event().wait()
                    return Answer(0, b"")

        server.always["delete"] = refuse
        async with Supervisor(
            api_key=KEY, base_url=server.url, registry=registry, grace=0.3
        ) as supervisor:
            tasks = [await supervisor.start("x") for _ in range(40)]
            began = time.monotonic()
            report = await supervisor.shutdown()
        assert time.monotonic() - began < 1.5 + SLACK
        assert {row.id for row in report.unconfirmed} == {task.id for task in tasks}
        assert {row.state for row in report.unconfirmed} == {State.UNCONFIRMED}
        assert not report.clean
        started = sample(registry, "tasks_started_total")
        finished = sample(registry, "tasks_finished_total")
        assert started == finished + sample(registry, "tasks_live") == 40
        assert sample(registry, "cancellations_total", result="unconfirmed") == 40


async def test_a_create_under_way_at_shutdown() -> None:
    """A POST that is answered during the drain is followed by its DELETE."""
    async with Server(world=held()) as server:
        gate = asyncio.Event()

        async def late(*_: Any) -> None:
            await gate.wait()

        server.once("create", late)
        async with supervised(server) as supervisor:
            starting = asyncio.create_task(supervisor.start("x"))
            await until(lambda: server.count("POST") == 1)
            supervisor.request_shutdown()
            asyncio.get_running_loop().call_later(0.2, gate.set)
            with pytest.raises(SupervisorShutdown):
                await starting
        assert server.count("DELETE") == 1


async def test_the_body_of_the_supervisor_raises() -> None:
    """Everything is ended, and the exception comes out as it was."""
    async with Server(world=held()) as server:
        with pytest.raises(Ouch):
            async with supervised(server) as supervisor:
                for _ in range(10):
                    await supervisor.start("x")
                raise Ouch
        assert server.count("DELETE") == 10
