"""A process is told to leave in the middle of its task, and the next one goes on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.crash_reattach.conftest import Stage

HOWS = ("task", "run", "start")


@pytest.mark.parametrize("how", HOWS)
async def test_deployed_in_the_middle(stage: Stage, how: str) -> None:
    """The next process gets the same id and the full result; one POST was sent, and no DELETE."""
    task_id = await stage.deployed(how)
    async with stage.process(how, "cancel", "reattach") as heir:
        await stage.is_in_the_middle(heir, how)
        assert stage.emulator.complete(task_id, "Hello world")
        end = await heir.end()
    assert end == {"id": task_id, "outcome": "completed", "answer": "Hello world"}
    stage.check()
    assert stage.emulator.count(route="delete") == 0


async def test_deployed_again_and_again(stage: Stage) -> None:
    """Through any number of deploys, and a crash of somebody who keeps it, it is one task."""
    hows = ("task", "start", "task")
    task_ids = {await stage.deployed(how) for how in hows} | {await stage.killed("start")}
    [task_id] = task_ids
    stage.emulator.complete(task_id, "Hello world")
    async with stage.process("run") as heir:
        assert (await heir.end())["answer"] == "Hello world"
    stage.check()


async def test_detached(stage: Stage) -> None:
    """Negative control: a key that is freed leads to a second task, and both are paid for."""
    task_id = await stage.deployed("start", "detach")
    async with stage.process("start") as heir:
        await stage.emulator.wait_for(lambda state: state["tasks"]["total"] == 2)
        assert len(stage.emulator.state()["live_ids"]) == 2
        for live in (task_id, *stage.emulator.state()["live_ids"]):
            stage.emulator.complete(live)
        assert (await heir.end())["id"] != task_id
