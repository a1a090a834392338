"""Answers about another task: none is believed, and each task is ended by its own id."""

from __future__ import annotations

import pytest
from anyio import create_task_group, fail_after, sleep

from sigmic_guard import (
    CancelReason,
    ConnectionFailed,
    ProtocolError,
    RemoteTask,
    State,
    TaskNotFound,
    TaskTimedOut,
)
from sigmic_guard.sigmic.models import CreateRequest, TaskInfo
from sigmic_guard.testing import FakeSigmic
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
GONE = TaskNotFound("no such task", code="NOT_FOUND", status=404)


class Swapped(FakeSigmic):
    """Answers every GET with another task's record."""

    other = ""

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        return await super().get(self.other or task_id, timeout=timeout)


async def swapped() -> tuple[Lab, Swapped]:
    lab = Lab()
    lab.fake = fake = Swapped(duration=None)
    fake.other = fake.add("another user's")
    fake.complete(fake.other, "another user's answer")
    return lab, fake


async def test_an_answer_about_another_task_is_no_end() -> None:
    """GET shows another task as completed: nobody gets its answer, and the DELETE is sent."""
    lab, fake = await swapped()
    fake.on("stream", *[GONE] * 100)
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut):
            await supervisor.run("m", timeout=10)
        background = await supervisor.start("m", timeout=200)
        await sleep(150)  # past the looks at what no list showed
        assert background.state is State.RUNNING
        await background.cancel()
        assert background.reason is CancelReason.USER
    assert lab.deletes() == 2


async def test_an_answer_about_another_task_is_not_adopted() -> None:
    """Neither adopt() nor refresh() take one task for another."""
    lab, fake = await swapped()
    mine = fake.add("mine")
    async with lab.open(left=1) as supervisor:
        with pytest.raises(ProtocolError, match="another task"):
            await supervisor.adopt(mine)
        task = await supervisor.start("m")
        with pytest.raises(ProtocolError, match="another task"):
            await task.refresh()
        assert task.state is State.RUNNING


async def test_a_create_answered_with_the_id_of_a_live_task() -> None:
    """It is not believed: the mark tells which task it was, and each is ended by its own id."""
    lab = Lab()
    async with lab.open() as supervisor:
        first = await supervisor.start("first")

        class Twice(type(lab.fake)):  # type: ignore[misc]
            async def create(self, request: CreateRequest, *, timeout: float) -> str:
                await super().create(request, timeout=timeout)
                return first.id

        lab.fake.__class__ = Twice
        second = await supervisor.start("second")
        assert second.id != first.id
        assert lab.fake.tasks[second.id].message == "second"
        await second.cancel()
        assert first.state is State.RUNNING
        assert lab.fake.live == {first.id}


class CrossedAndLost(FakeSigmic):
    """Answers the second create with the id of the first, whose own answer is lost."""

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        task_id = await super().create(request, timeout=timeout)
        if task_id != self.created[0]:
            return self.created[0]
        await self.until(lambda: len(self.created) > 1)
        raise ConnectionFailed("reset", sent=True)


@pytest.mark.parametrize("lag", [0.0, 2.4])
async def test_an_answer_that_is_lost_and_another_that_is_mixed_up(lag: float) -> None:
    """The marks give both their own tasks, and no task gets a DELETE."""
    lab = Lab()
    lab.fake = CrossedAndLost(read_lag=lag)
    async with lab.open() as supervisor:
        got: dict[str, RemoteTask] = {}

        async def ask(message: str) -> None:
            got[message] = await supervisor.start(message)

        async with create_task_group() as group:
            group.start_soon(ask, "first")
            await sleep(2.3)
            group.start_soon(ask, "second")
        for message, task in got.items():
            with fail_after(20):
                while task.state is not State.RUNNING:
                    await sleep(0.1)
            assert lab.fake.tasks[task.id].message == message
            lab.fake.complete(task.id, message)
            assert (await task.result()).final_response == message
        assert lab.deletes() == 0
