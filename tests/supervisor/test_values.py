"""A value that is not quite what it should be works, or its own call raises; nobody else pays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from anyio import current_time

from sigmic_guard import ConfigurationError, State, Supervisor, TaskPolicy
from sigmic_guard.observe import Observer
from sigmic_guard.testing import FakeSigmic
from tests.lifecycle.test_values import (
    Hostile,
    HostileFloat,
    HostileInt,
    HostileStr,
    Variables,
    bad,
    each,
)
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Broken:
    """An iterable that breaks off."""

    def __iter__(self) -> Iterator[str]:
        yield "a"
        raise RuntimeError("no more")


WORKS: dict[str, dict[str, Any]] = {
    "message": {"message": HostileStr("m")},
    "system_prompt": {"system_prompt": HostileStr("p")},
    "env": {"env": {"A": HostileStr("x")}},
    "secrets": {"secrets": {"A": HostileStr("x")}},
    "a mapping": {"env": Variables("nothing"), "secrets": Variables("nothing")},
    "key": {"key": HostileStr("k")},
    "timeout": {"timeout": HostileFloat(60)},
    "timedelta": {"timeout": timedelta(minutes=1), "cancel_wait": timedelta(seconds=1)},
    "whole": {"timeout": HostileInt(60), "reattach_within": HostileInt(5)},
    "a choice": {"on_exit": HostileStr("cancel")},
    "late": {"deadline": datetime.max.replace(tzinfo=UTC)},
    "later": {"deadline": datetime.max.replace(tzinfo=UTC)},
}
RAISES: dict[str, dict[str, Any]] = {
    "message": {"message": Hostile()},
    "surrogate": {"message": HostileStr("\ud800")},
    "system_prompt": {"system_prompt": Hostile()},
    "auto_execute": {"auto_execute": Hostile()},
    "1": {"auto_execute": 1},
    "show_in_history": {"show_in_history": "yes"},
    "env value": {"env": {"A": Hostile()}},
    "env": {"env": Variables("change")},
    "secrets": {"secrets": Variables("value")},
    "pairs": {"secrets": [("A", "b")]},
    "files": {"files": Broken()},
    "file": {"files": [Hostile()]},
    "key": {"key": "\ud800"},
    "NUL": {"key": "a\x00b"},
    "timeout": {"timeout": Hostile()},
    "negative": {"timeout": timedelta(seconds=-1)},
    "immense": {"timeout": 10**5000},
    "deadline": {"deadline": 10**400},
    "nan": {"deadline": HostileFloat("nan")},
    "relative": {"deadline": timedelta(seconds=5)},
    "a choice": {"on_exit": Hostile()},
}


@pytest.mark.parametrize("options", WORKS.values(), ids=WORKS)
async def test_what_only_looks_odd_works(options: dict[str, Any]) -> None:
    """The task runs, with exact values, and is cancelled like any other."""
    lab = Lab()
    message = options.get("message", "m")
    options = {name: value for name, value in options.items() if name != "message"}
    async with lab.open() as supervisor:
        other = await supervisor.start("somebody else's")
        task = await supervisor.start(message, **options)
        assert (await task.cancel()).result == "acknowledged"
        async with supervisor.task(message, **options) as task:
            assert task.state is State.RUNNING
        assert other.state is State.RUNNING
        assert [type(created.message) for created in lab.fake.tasks.values()] == [str] * 3


@pytest.mark.parametrize("options", RAISES.values(), ids=RAISES)
async def test_what_cannot_be_right_raises_in_its_own_call(options: dict[str, Any]) -> None:
    """Before anything is begun: no create is sent, and the others do not notice."""
    lab = Lab()
    message = options.get("message", "m")
    options = {name: value for name, value in options.items() if name != "message"}
    async with lab.open() as supervisor:
        other = await supervisor.start("somebody else's")
        calls = [supervisor.run, supervisor.start]
        for call in calls:
            with pytest.raises(ConfigurationError):
                await call(message, **options)
        with pytest.raises(ConfigurationError):
            supervisor.task(message, **options)
        assert lab.fake.count("create") == 1
        assert len(supervisor.snapshot()) == 1
        assert other.state is State.RUNNING


@pytest.mark.parametrize(
    "make",
    each(
        {"grace": HostileFloat(5)},
        {"grace": timedelta(seconds=5), "create_timeout": timedelta(seconds=5)},
        {"max_tasks": HostileInt(5), "max_cancels": HostileInt(5)},
        {"namespace": HostileStr("mine")},
        {"policy": type("Mine", (TaskPolicy,), {"but": bad})(timeout=5)},
        {"observers": iter(())},
    ),
)
async def test_arguments_of_a_supervisor_that_only_look_odd(make: Any) -> None:
    """They are taken for what they are."""
    lab = Lab()
    async with lab.open(**make()) as supervisor:
        task = await supervisor.start("m")
        assert (await task.cancel()).result == "acknowledged"


@pytest.mark.parametrize(
    "make",
    each(
        {"grace": timedelta(seconds=-1)},
        {"grace": 10**400},
        {"create_timeout": Hostile()},
        {"max_tasks": Hostile()},
        {"max_cancels": 2.0},
        {"namespace": 5},
        {"namespace": None},
        {"namespace": "\ud800"},
        {"marker": 1},
        {"watchdog": 1},
        {"signals": "always"},
        {"signals": 1},
        {"signals": Hostile()},
        {"policy": 5},
        {"policy": TaskPolicy},
        {"ledger": 5},
        {"client": 5},
        {"observers": 5},
        {"observers": [5]},
        {"observers": [Observer]},
    ),
)
async def test_arguments_that_cannot_be_right(make: Any) -> None:
    """No supervisor is made of them."""
    with pytest.raises(ConfigurationError):
        Lab().make(**make())


async def test_a_shutdown_takes_a_timedelta() -> None:
    """And refuses what is none, without shutting down."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        for grace in (timedelta(seconds=-1), Hostile(), "5", True):
            with pytest.raises(ConfigurationError):
                await supervisor.shutdown(grace)  # type: ignore[arg-type]
        assert task.state is State.RUNNING
        report = await supervisor.shutdown(timedelta(seconds=5))
        assert report.clean


@pytest.mark.parametrize(
    "make",
    each(
        ("send", ("\ud800",), {}),
        ("send", (Hostile(),), {}),
        ("send", ("",), {}),
        ("send", ("m",), {"files": 5}),
        ("send", ("m",), {"files": [Hostile()]}),
        ("send", ("m",), {"files": Broken()}),
        ("approve", (Hostile(),), {}),
        ("approve", ("..",), {}),
        ("approve", ("call", "maybe"), {}),
        ("approve", ("call", Hostile()), {}),
    ),
)
async def test_arguments_of_a_task_that_cannot_be_right(make: Any) -> None:
    """Nothing is sent, and the task is as it was."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        method, args, options = make()
        with pytest.raises(ConfigurationError):
            await getattr(task, method)(*args, **options)
        assert task.state is State.RUNNING
        assert lab.fake.count("send") == lab.fake.count("approve") == 0


async def test_an_id_that_is_almost_a_string() -> None:
    """It can be adopted; what is no id cannot, and is not asked for."""
    lab = Lab()
    there = lab.fake.add()
    async with lab.open() as supervisor:
        for task_id in ("", "..", 5, None, Hostile(), "\ud800"):
            with pytest.raises(ConfigurationError, match="task_id"):
                await supervisor.adopt(task_id)  # type: ignore[arg-type]
        assert lab.fake.count("get") == 0
        task = await supervisor.adopt(HostileStr(there), timeout=timedelta(minutes=1))
        assert type(task.id) is str
        assert task.deadline == pytest.approx(current_time() + 60, abs=10)
        assert list(supervisor.tasks) == [there]


async def test_a_ledger_may_be_named_by_its_path(tmp_path: Path) -> None:
    """It is that of a SQLite file."""
    lab = Lab(duration=0.1)
    async with lab.open(ledger=tmp_path / "l.db") as supervisor:
        await supervisor.run("m")
    assert (tmp_path / "l.db").exists()


async def test_a_clients_truth_is_not_asked() -> None:
    """It may be a container, and empty."""
    client = type("Empty", (FakeSigmic,), {"__bool__": bad, "__len__": bad})(duration=0.1)
    async with Supervisor(client=client, ledger="memory:", registry=None) as supervisor:
        assert (await supervisor.run("m")).outcome == "completed"
