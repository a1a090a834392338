"""What cannot be right is refused with the words to fix it, before anything is sent."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import ConfigurationError, Supervisor, SupervisorShutdown, TaskPolicy
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.testing import FakeSigmic
from tests.supervisor.lab import Lab

SENSELESS: dict[str, dict[str, Any]] = {
    "no such option": {"time_out": 3},
    "on_exit": {"on_exit": "explode"},
    "on_shutdown": {"on_shutdown": "wait"},
    "on_crash": {"on_crash": True},
    "confirm": {"confirm": "maybe"},
    "negative": {"timeout": -1},
    "nan": {"timeout": float("nan")},
    "infinite": {"timeout": float("inf")},
    "text": {"timeout": "60"},
    "true": {"timeout": True},
    "cancel_wait": {"cancel_wait": -0.1},
    "no cancel_wait": {"cancel_wait": None},
    "empty key": {"key": ""},
    "key of bytes": {"key": b"k"},
}
SENSELESS_CREATES: dict[str, dict[str, Any]] = {
    "one file": {"files": "data.csv"},
    "file of numbers": {"files": [1]},
    "too many files": {"files": ["f"] * 21},
    "files and env": {"files": ["f"], "env": {"A": "1"}},
    "files and secrets": {"files": ["f"], "secrets": {"A": "1"}},
    "name in env": {"env": {"not a name": "1"}},
    "value in env": {"env": {"A": 1}},
    "name in secrets": {"secrets": {"1A": "1"}},
    "the marker": {"env": {MARKER: "mine"}},
}


@pytest.mark.parametrize(
    "options",
    [*SENSELESS.values(), *SENSELESS_CREATES.values()],
    ids=[*SENSELESS, *SENSELESS_CREATES],
)
async def test_options_of_a_create(options: dict[str, Any]) -> None:
    """An option that makes no sense raises ConfigurationError from the call itself."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ConfigurationError):
            supervisor.task("m", **options)
        with pytest.raises(ConfigurationError):
            await supervisor.start("m", **options)
        with pytest.raises(ConfigurationError):
            await supervisor.run("m", **options)
        assert not supervisor.snapshot()
    assert not lab.fake.requests
    assert lab.finished == {}


@pytest.mark.parametrize(
    "options",
    [*SENSELESS.values(), {"files": ["f"]}, {"env": {"A": "1"}}],
    ids=[*SENSELESS, "files", "env"],
)
async def test_options_of_an_adoption(options: dict[str, Any]) -> None:
    """adopt() refuses the same, and whatever only a create can take."""
    lab = Lab()
    theirs = lab.fake.add()
    async with lab.open(left=1) as supervisor:
        with pytest.raises(ConfigurationError):
            await supervisor.adopt(theirs, **options)
    assert not lab.fake.requests


@pytest.mark.parametrize("message", ["", None, b"bytes", "\ud800"], ids=repr)
async def test_messages(message: Any) -> None:
    """A message that is no text, or empty, is refused."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ConfigurationError):
            supervisor.task(message)
    assert not lab.fake.requests


@pytest.mark.parametrize(
    "options",
    [
        {"grace": -1},
        {"grace": float("nan")},
        {"grace": None},
        {"namespace": ""},
        {"max_tasks": 0},
        {"max_tasks": 1.5},
        {"max_tasks": True},
        {"max_cancels": 0},
        {"create_timeout": 0},
        {"create_timeout": float("inf")},
        {"api_key": "sigmic_" + "0" * 64},
        {"base_url": "https://sigmic.test"},
        {"ledger": "carrier-pigeon://"},
    ],
    ids=str,
)
async def test_options_of_the_supervisor(options: dict[str, Any]) -> None:
    """A supervisor that makes no sense is refused when it is made."""
    lab = Lab()
    with pytest.raises(ConfigurationError):
        lab.make(**options)


async def test_policies() -> None:
    """A policy checks its fields when it is made."""
    with pytest.raises(ConfigurationError):
        TaskPolicy(timeout=-1)
    with pytest.raises(ConfigurationError, match="no such task option"):
        TaskPolicy().but(grace=3)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"timout": 5}, "no such task option: timout; did you mean timeout?"),
        ({"on_exist": "wait"}, "no such task option: on_exist; did you mean on_exit?"),
        ({"file": "a", "secret": {}}, "file, secret; did you mean files, secrets?"),
        ({"timout": 5, "xyz": 1}, "no such task option: timout, xyz; there are auto_execute, "),
    ],
)
async def test_an_option_that_does_not_exist(options: dict[str, Any], says: str) -> None:
    """What was meant is named, or what there is; nothing is sent."""
    lab = Lab()
    async with lab.open() as supervisor:
        for call in (supervisor.task, supervisor.run, supervisor.start):
            with pytest.raises(ConfigurationError, match=re.escape(says)):
                await _entered(call("m", **options))
        with pytest.raises(ConfigurationError, match="no such task option: files; there are "):
            await supervisor.adopt("some-id", files=["a"])  # type: ignore[call-arg]
    assert not lab.fake.requests


async def _entered(what: Any) -> None:
    if hasattr(what, "__aenter__"):
        async with what:
            pass
    else:
        await what


async def test_before_entering() -> None:
    """Before it is entered a supervisor takes no task, and says what to do."""
    supervisor = Lab().make()
    with pytest.raises(ConfigurationError, match="async with"):
        supervisor.task("m")
    with pytest.raises(ConfigurationError, match="async with"):
        await supervisor.start("m")
    with pytest.raises(ConfigurationError, match="async with"):
        supervisor.snapshot()
    with pytest.raises(ConfigurationError, match="async with"):
        await supervisor.shutdown()
    supervisor.request_shutdown()
    assert "not entered" in repr(supervisor)


async def test_after_closing() -> None:
    """After its end a supervisor takes no task; shutdown() gives the report again."""
    lab = Lab()
    async with lab.open() as supervisor:
        block = supervisor.task("m")
    with pytest.raises(SupervisorShutdown):
        supervisor.task("m")
    with pytest.raises(SupervisorShutdown):
        await supervisor.run("m")
    with pytest.raises(SupervisorShutdown):
        await supervisor.adopt("some-id")
    with pytest.raises(SupervisorShutdown):
        async with block:
            raise AssertionError
    supervisor.request_shutdown()
    assert (await supervisor.shutdown()).clean
    assert "closed" in repr(supervisor)
    assert not lab.fake.requests


async def test_once_the_shutdown_was_requested() -> None:
    """From request_shutdown() on no task is taken, and a block made before is not entered."""
    lab = Lab()
    async with lab.open() as supervisor:
        block = supervisor.task("m")
        supervisor.request_shutdown()
        with pytest.raises(SupervisorShutdown):
            supervisor.task("m")
        with pytest.raises(SupervisorShutdown):
            await supervisor.start("m")
        with pytest.raises(SupervisorShutdown):
            async with block:
                raise AssertionError
    assert not lab.fake.requests


async def test_entered_twice() -> None:
    """A supervisor is entered once, also after its end."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ConfigurationError, match="once"):
            await supervisor.__aenter__()
        await supervisor.start("m")
    with pytest.raises(ConfigurationError, match="once"):
        async with supervisor:
            raise AssertionError


async def test_a_block_entered_twice() -> None:
    """A block is entered once; the second time raises and creates nothing."""
    lab = Lab()
    async with lab.open() as supervisor:
        block = supervisor.task("m")
        async with block as task:
            with pytest.raises(RuntimeError, match="once"):
                await block.__aenter__()
            assert task.state == "running"
        with pytest.raises(RuntimeError, match="once"):
            async with block:
                raise AssertionError
    assert lab.fake.count("create") == 1


async def test_a_block_that_is_never_entered() -> None:
    """A block that is made and not entered costs nothing and holds nothing."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor:
        for _ in range(3):
            supervisor.task("m", key="k")
        async with supervisor.task("m", key="k"):
            pass
    assert lab.fake.count("create") == 1


async def test_a_handle_without_an_id() -> None:
    """Nobody gets to see a handle that has no id."""
    lab = Lab()
    async with lab.open() as supervisor:
        gate = lab.fake.gate("create")
        gate.open()
        task = await supervisor.start("m")
        assert task.id in supervisor.tasks


def test_outside_of_a_loop() -> None:
    """A supervisor can be made where no loop runs."""
    fake = FakeSigmic()
    supervisor = Supervisor(client=fake, ledger="memory:", registry=CollectorRegistry())
    assert repr(supervisor) == "<Supervisor, not entered>"


@pytest.mark.parametrize("name", ["env", "secrets", "files"])
@pytest.mark.parametrize("value", ["text", 7, b"bytes"])
async def test_variables_and_files_of_the_wrong_kind(name: str, value: Any) -> None:
    """What is no mapping, or no list of paths, is refused before anything is begun."""
    lab, wrong = Lab(), dict[str, Any]({name: value})
    async with lab.open() as supervisor:
        with pytest.raises(ConfigurationError, match=name):
            supervisor.task("m", **wrong)
    assert not lab.fake.requests
