"""Tasks that end in a status that is not documented."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from anyio import current_time, sleep

from sigmic_guard import CancelReason, Outcome, TaskFailed, TaskPolicy
from sigmic_guard.lifecycle import State
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.testing import Answer
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.losses import LossLab, change

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
CONFIRMED = TaskPolicy(confirm="terminal")
WORDS = ["expired", "canceled", "timed_out", "COMPLETED", ""]


def saying(word: str, *, when: str) -> Callable[[TaskInfo], TaskInfo]:
    """Return a bend that has another word for the status ``when``."""
    return lambda info: change(info, status=word) if info.status == when else info


def lab_saying(word: str, *, when: str = "completed", duration: float | None = 3) -> LossLab:
    lab = LossLab(duration=duration)
    lab.fake.bend_get = saying(word, when=when)
    lab.fake.bend_rows(lab.fake.bend_get)
    return lab


@pytest.mark.parametrize("word", WORDS)
async def test_a_background_task_has_ended_in_it(word: str) -> None:
    """With ``completedAt`` it has failed, and the word is told, within a few seconds."""
    lab = lab_saying(word)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        began = current_time()
        result = await task.wait()
        assert current_time() - began < 10
    assert (result.outcome, result.reason) == (Outcome.FAILED, None)
    assert (result.status or "") == word
    assert repr(word) in result.error
    assert lab.deletes() == 0


@pytest.mark.parametrize("word", WORDS)
async def test_a_scoped_task_has_ended_in_it(word: str) -> None:
    """Its stream ends without ``done``, and GET tells."""
    lab = lab_saying(word, duration=None)
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            await sleep(1)
            lab.fake.on("stream", *[Answer(value=Silent())] * 2)
            lab.fake.complete(task.id)
            with pytest.raises(TaskFailed) as caught:
                await task.result()
        assert (caught.value.result.status or "") == word
    assert lab.deletes() == 0


class Silent:
    """A stream that ends at once."""

    async def receive(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("word", WORDS)
async def test_what_was_cancelled_is_cancelled_in_any_word(word: str) -> None:
    """Where we had asked for the end, an end confirms it."""
    lab = lab_saying(word, when="cancelled", duration=None)
    async with lab.open(policy=CONFIRMED) as supervisor:
        task = await supervisor.start("m")
        cancellation = await task.cancel()
        assert cancellation.state is State.CANCELLED
        result = await task.wait()
    assert (result.outcome, result.reason) == (Outcome.CANCELLED, CancelReason.USER)
    assert (result.status or "") == word
    assert lab.deletes() == 1


async def test_without_completed_at_it_runs() -> None:
    """A word that nobody knows is no end: the task may be billed, and is cancelled at the exit."""
    lab = lab_saying("thawing", when="running", duration=None)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(200)
        assert task.state is State.RUNNING
    assert lab.deletes() == 1


@pytest.mark.parametrize("word", ["pending", "running", "awaiting_approval"])
async def test_a_live_word_with_completed_at_runs(word: str) -> None:
    """The time may be that of an earlier turn."""
    lab = LossLab()
    lab.fake.bend_get = lambda info: change(info, status=word, completed_at=info.created_at)
    lab.fake.bend_rows(lab.fake.bend_get)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(200)
        assert task.state is State.RUNNING
    assert lab.deletes() == 1
