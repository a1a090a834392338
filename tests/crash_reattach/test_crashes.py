"""A process is killed in the middle of its task, and the next one goes on with it."""

from __future__ import annotations

import random
from typing import Final

import anyio
import pytest

from sigmic_guard.emulator import Fault
from tests.crash_reattach.conftest import Stage

HOWS = ("task", "run", "start")
HOUR: Final = 3600.0


@pytest.mark.parametrize("how", HOWS)
async def test_killed_in_the_middle(stage: Stage, how: str) -> None:
    """The next process gets the same id and the full result; one POST was sent."""
    task_id = await stage.killed(how)
    async with stage.process(how) as heir:
        if how == "task":
            await heir.until(lambda run: run.text == "Hello")
        else:
            await stage.emulator.wait_for(lambda _: stage.emulator.count(route="task"))
        assert stage.emulator.complete(task_id, "Hello world")
        end = await heir.end()
    assert end == {"id": task_id, "outcome": "completed", "answer": "Hello world"}
    if how == "task":
        kinds = [kind for kind in heir.events if kind not in {"ready", "task", "status"}]
        assert kinds[:3] == ["history_message", "history_done", "content"]
        assert heir.text.startswith("Hello")
    stage.check()
    assert stage.emulator.count(route="delete") == 0


RIGHT: Final = (0.0, 0.0)
#: The clocks of the owner and of its heir, each before and after it is ready.
CLOCKS: Final = {
    "the owner lagged, and was set right": ((-HOUR, 0.0), RIGHT),
    "the owner lagged": ((-HOUR, -HOUR), RIGHT),
    "the owner was set back": ((0.0, -HOUR), RIGHT),
    "the owner was ahead": ((HOUR, HOUR), RIGHT),
    "the heir is ahead": (RIGHT, (HOUR, HOUR)),
    "the heir lags, and is set right": (RIGHT, (-HOUR, 0.0)),
    "both are wrong": ((-HOUR, -HOUR), (HOUR, HOUR)),
    "both are wrong, the other way": ((HOUR, HOUR), (-HOUR, -HOUR)),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if number > 1 and number != 6 else [])
        for number, case in enumerate(CLOCKS)
    ],
)
async def test_clocks_that_are_wrong(stage: Stage, case: str) -> None:
    """A wall clock that lags, is ahead or is set by an hour leads to the same task."""
    owners, heirs = CLOCKS[case]
    task_id = await stage.killed("start", clock=owners)
    async with stage.process("start", clock=heirs) as heir:
        await heir.until(lambda run: {"task", "end"} & set(run.events))
        assert stage.emulator.complete(task_id, "Hello world")
        end = await heir.end()
    assert end == {"id": task_id, "outcome": "completed", "answer": "Hello world"}
    stage.check()
    assert stage.emulator.count(route="delete") == 0


@pytest.mark.parametrize(
    "how, outcome", [("run", "completed"), ("task", "failed"), ("start", "cancelled")]
)
async def test_it_ended_while_nobody_watched(stage: Stage, how: str, outcome: str) -> None:
    """What became of the task between the two processes is what the second one is told."""
    task_id = await stage.killed(how)
    told: dict[str, str | None]
    match outcome:
        case "completed":
            stage.emulator.complete(task_id, "Hello world")
            told = {"answer": "Hello world"}
        case "failed":
            stage.emulator.fail(task_id, "out of ideas")
            told = {"error": "out of ideas"}
        case _:
            stage.emulator.cancel(task_id)
            told = {"answer": None}  # wait() tells, and raises nothing
    async with stage.process(how) as heir:
        end = await heir.end()
    assert end == {"id": task_id, "outcome": outcome, **told}
    stage.check()


@pytest.mark.parametrize("kind, posts", [("black_hole", 2), ("black_hole_after", 1)])
async def test_killed_around_the_post(stage: Stage, kind: str, posts: int) -> None:
    """A POST that had its effect is not sent again; one that had none is, once."""
    stage.emulator.fault("create", Fault(kind, times=1))  # type: ignore[arg-type]
    async with stage.process("run") as dead:
        await stage.emulator.wait_for(lambda _: stage.emulator.count(route="create"))
        await dead.kill()
    async with stage.process("run") as heir:
        await stage.emulator.wait_for(lambda _: stage.emulator.count(route="stream"))
        [task_id] = stage.emulator.state()["live_ids"]
        stage.emulator.complete(task_id, "Hello world")
        assert (await heir.end())["id"] == task_id
    stage.check(posts=posts)


async def test_two_ask_at_once(stage: Stage) -> None:
    """Of two processes that ask at once one gets the task, and the other is refused."""
    task_id = await stage.killed("start")
    async with stage.process("start") as one, stage.process("start") as two:
        for run in (one, two):
            await run.until(lambda run: {"task", "end"} & set(run.events))
        stage.emulator.complete(task_id, "Hello world")
        ends = [await one.end(), await two.end()]
    assert sorted(end["outcome"] for end in ends) == ["completed", "duplicate"]
    stage.check()


async def test_not_to_be_reattached(stage: Stage) -> None:
    """Negative control: by default the task is ended, and only then is another one paid for."""
    task_id = await stage.killed("start", "cancel")
    async with stage.process("start", "cancel") as heir:
        await stage.emulator.wait_for(lambda state: state["tasks"]["total"] == 2)
        [next_id] = stage.emulator.state()["live_ids"]
        stage.emulator.complete(next_id)
        assert (await heir.end())["id"] == next_id
    old, new = (stage.emulator.tasks[it] for it in (task_id, next_id))
    assert old.status == "cancelled"
    assert old.completed_at is not None
    assert old.completed_at <= new.created_at
    assert stage.emulator.count(route="create") == 2


@pytest.mark.slow
async def test_killed_again_and_again(stage: Stage) -> None:
    """However often and whenever it is killed: one task, one effect, and in the end its result."""
    chance = random.Random(7)
    for _ in range(15):
        async with stage.process(chance.choice(HOWS)) as run:
            await run.until(lambda run: "ready" in run.events)
            await anyio.sleep(chance.choice((0.0, 0.01, 0.05, 0.3)) * chance.random())
            await run.kill()
        assert len(stage.emulator.tasks) <= 1
    async with stage.process("run") as heir:
        await stage.emulator.wait_for(lambda state: state["live_ids"])
        [task_id] = stage.emulator.state()["live_ids"]
        stage.emulator.complete(task_id, "Hello world")
        assert (await heir.end())["answer"] == "Hello world"
    assert len(stage.emulator.tasks) == 1
    assert stage.emulator.live == 0
