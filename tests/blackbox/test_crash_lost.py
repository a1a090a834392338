"""Creates whose answers are lost, while the process lives on: none is paid for twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import ConnectionFailed, Outcome, ProtocolError, ServerError, SigmicGuardError
from tests.blackbox.deaths import Home, heir, stage
from tests.blackbox.lab import sample, until
from tests.blackbox.server import Answer, Request, error


def losing(home: Home, every: int, how: str = "hang up") -> None:
    """From now on the answer of every so many a POST is lost, after its effect."""
    numbers: Iterator[int] = itertools.count(1)

    async def lose(request: Request, _: Any) -> Answer | None:
        if next(numbers) % every:
            return None
        home.server.world.create(request.headers["content-type"], request.body)
        match how:
            case "502":
                return Answer(502, b"<html>bad gateway</html>", {"content-type": "text/html"})
            case "nonsense":
                return Answer(200, b'{"success": true, "data": null}')
            case "hang":
                await asyncio.Event().wait()
        return Answer(0, b"")

    home.server.always["create"] = lose


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hang up", "502", "nonsense"])
async def test_every_fifth(tmp_path: Path, how: str) -> None:
    """100 at once, every 5th answer lost: each task is had by one caller, or is ended."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        losing(home, 5, how)
        async with heir(home, registry=registry, create_timeout=2.0) as supervisor:
            results = await asyncio.gather(
                *(supervisor.run("quick", timeout=20) for _ in range(100)), return_exceptions=True
            )
            assert len(home.server.world.tasks) == home.server.count("POST") == 100
            for each in results:
                assert not isinstance(each, BaseException), each
            ids = {each.id for each in results if not isinstance(each, BaseException)}
            assert ids == set(home.server.world.tasks)
        assert home.server.world.live == []
        assert sample(registry, "tasks_started_total") == 100
        assert sample(registry, "tasks_finished_total", outcome="completed") == 100
        assert await home.rows() == []


async def test_every_fifth_of_those_that_hold(tmp_path: Path) -> None:
    """The same with tasks that would run for ever, and a shutdown: 100 DELETEs, none twice."""
    async with stage(tmp_path) as home:
        losing(home, 5)
        async with heir(home, create_timeout=2.0) as supervisor:
            tasks = await asyncio.gather(*(supervisor.start("x") for _ in range(100)))
            assert {task.id for task in tasks} == set(home.server.world.live)
        assert home.server.world.live == []
        assert home.server.count("POST") == home.server.count("DELETE") == 100


async def test_every_fifth_and_killed_callers(tmp_path: Path) -> None:
    """The callers are cancelled meanwhile: whatever was created is ended."""
    async with stage(tmp_path) as home:
        losing(home, 5)
        async with heir(home, create_timeout=2.0) as supervisor:
            starts = [asyncio.create_task(supervisor.start("x")) for _ in range(100)]
            await until(lambda: len(home.server.world.tasks) > 50)
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await until(lambda: not home.server.world.live and not supervisor.tasks, within=20)
        assert home.server.world.live == []
        assert home.server.count("POST") == len(home.server.world.tasks)


@pytest.mark.slow
async def test_every_fifth_times_out(tmp_path: Path) -> None:
    """No answer at all: past the create's time-out the list tells."""
    async with stage(tmp_path) as home:
        losing(home, 5, "hang")
        async with heir(home, create_timeout=1.0) as supervisor:
            tasks = await asyncio.gather(*(supervisor.start("x", timeout=30) for _ in range(100)))
            assert {task.id for task in tasks} == set(home.server.world.live)
        assert home.server.world.live == []
        assert home.server.count("POST") == 100


@pytest.mark.slow
async def test_nothing_was_created(tmp_path: Path) -> None:
    """The request was lost and not the answer: the caller is told, and no second POST is sent."""
    async with stage(tmp_path) as home:

        async def lose(*_: Any) -> Answer:
            return Answer(0, b"")

        home.server.once("create", lose)
        async with heir(home, create_timeout=0.5) as supervisor:
            with pytest.raises(ConnectionFailed) as caught:
                await supervisor.run("x", timeout=30)
            assert caught.value.sent
        assert home.server.count("POST") == 1
        assert await home.rows() == []


@pytest.mark.slow
@pytest.mark.parametrize("on_lost", ["report", "cancel"])
@pytest.mark.parametrize("files", [True, False])
async def test_without_a_marker(
    tmp_path: Path, on_lost: Any, files: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Candidates are those of the same message and time: reported, or cancelled if so asked."""
    async with stage(tmp_path) as home:
        (tmp_path / "data.csv").write_text("1,2\n")
        bystander = home.server.world.add("another message")
        losing(home, 1)
        options: Any = {"files": [tmp_path / "data.csv"]} if files else {}
        async with heir(home, create_timeout=0.5, marker=files) as supervisor:
            with pytest.raises((ConnectionFailed, ServerError, ProtocolError)) as caught:
                await supervisor.run("mine", timeout=30, on_lost=on_lost, **options)
            assert getattr(caught.value, "sent", True)
            mine = home.server.world.tasks[next(reversed(home.server.world.tasks))]
            assert mine is not bystander
            if on_lost == "cancel":
                await until(lambda: home.server.world.live == [bystander.id])
            else:
                await until(lambda: "task.candidates" in caplog.text)
                assert mine.id in caplog.text
                assert bystander.id not in caplog.text
        left = [bystander.id] if on_lost == "cancel" else [bystander.id, mine.id]
        assert home.server.world.live == left
        assert home.server.count("POST") == 1


async def test_a_marker_of_ones_own(tmp_path: Path) -> None:
    """The marker joins the caller's env, and `marker=False` leaves that as it is."""
    async with stage(tmp_path) as home:
        async with heir(home) as supervisor:
            one = await supervisor.start("x", env={"A": "1"})
            env = home.server.world.tasks[one.id].env
            assert env["A"] == "1"
            assert len(env["SIGMIC_GUARD_INTENT"]) >= 16
            assert set(env) == {"A", "SIGMIC_GUARD_INTENT"}
            two = await supervisor.start("x")
            assert set(home.server.world.tasks[two.id].env) == {"SIGMIC_GUARD_INTENT"}
        async with heir(home, marker=False) as supervisor:
            three = await supervisor.start("x", env={"A": "1"})
            assert home.server.world.tasks[three.id].env == {"A": "1"}
            four = await supervisor.start("x")
            assert home.server.world.tasks[four.id].env == {}


@pytest.mark.slow
async def test_refusals_are_no_losses(tmp_path: Path) -> None:
    """A 4xx in the API's words is a clean failure: nothing is looked for, no row stays."""
    async with stage(tmp_path) as home:

        async def refuse(*_: Any) -> Answer:
            return error(422, "UNPROCESSABLE")

        home.server.once("create", refuse)
        async with heir(home) as supervisor:
            with pytest.raises(SigmicGuardError):
                await supervisor.run("x")
        assert [request.method for request in home.server.requests] == ["POST"]
        assert await home.rows() == []


async def test_the_task_of_another_intent(tmp_path: Path) -> None:
    """Another process's marker on a task of the same message is no match."""
    async with stage(tmp_path) as home:
        other = home.server.world.add("x", {"SIGMIC_GUARD_INTENT": "somebody-elses"})
        losing(home, 1)
        async with heir(home, create_timeout=0.5) as supervisor:
            task = await supervisor.start("x", timeout=30)
            assert task.id != other.id
            assert (await task.cancel()).result == "acknowledged"
            assert (await task.wait()).outcome is Outcome.CANCELLED
        assert home.server.world.live == [other.id]
