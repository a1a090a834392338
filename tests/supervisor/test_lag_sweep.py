"""Reads that lag behind a create or a follow-up, whatever is asked for, and by how much."""

from __future__ import annotations

import pytest
from anyio import current_time, fail_after, sleep

from sigmic_guard import CancelReason, Outcome, RemoteTask, State, Supervisor, TaskCancelled
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.supervisor.ground.lag import BRAND_NEW
from sigmic_guard.testing import FakeSigmic
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import UNAVAILABLE, Lab

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
lags = pytest.mark.parametrize("lag", [0.4, 2.0])


class Partly(FakeSigmic):
    """Only the requests that are named lag."""

    lagging = frozenset({"get", "list", "stream", "delete"})

    async def _answer(self, call, effect):  # type: ignore[no-untyped-def]
        past, lag = self._world.service.past, self.read_lag

        def lagging_if_named():  # type: ignore[no-untyped-def]
            past.lag = lag if call.method in self.lagging else 0.0
            try:
                return effect()
            finally:
                past.lag = lag

        return await super()._answer(call, lagging_if_named)


def lab_of(lag: float, *lagging: str, **options: object) -> Lab:
    lab = Lab()
    lab.fake = fake = Partly(read_lag=lag, **options)  # type: ignore[arg-type]
    if lagging:
        fake.lagging = frozenset(lagging)
    return lab


WHO = [("get",), ("list",), ("stream",), ("delete",), ("get", "stream"), ()]
who = pytest.mark.parametrize("lagging", WHO, ids=lambda names: "+".join(names) or "all")


@lags
@who
async def test_a_task_that_was_created_a_moment_ago_is_ended(
    lag: float, lagging: tuple[str, ...]
) -> None:
    """By its handle, by its block, and by the shutdown: nothing is left, nothing is unconfirmed."""
    lab = lab_of(lag, *lagging)
    async with lab.open() as supervisor:
        task = await supervisor.start("by its handle")
        assert (await task.cancel()).state is State.CANCELLED
        assert not lab.fake.live
        async with supervisor.task("by its block") as task:
            pass
        assert task.state is State.CANCELLED
        assert not lab.fake.live
        await supervisor.start("by the shutdown")
        report = await supervisor.shutdown()
        assert report.clean


@lags
@who
async def test_a_task_that_was_created_a_moment_ago_runs_on(
    lag: float, lagging: tuple[str, ...]
) -> None:
    """Nobody takes it for cancelled by somebody else, and its own answer is what is returned."""
    lab = lab_of(lag, *lagging, duration=5.0)
    async with lab.open() as supervisor:
        background = await supervisor.start("m")
        lab.fake.on("stream", UNAVAILABLE)  # so that GET is asked at once
        assert (await supervisor.run("n")).outcome is Outcome.COMPLETED
        assert (await background.wait()).outcome is Outcome.COMPLETED
    assert lab.deletes() == 0


async def asked_again(supervisor: Supervisor, task: RemoteTask) -> None:
    """Have the first answer, and ask for a second."""
    assert (await task.result()).final_response == "old"
    await task.send("again")


@lags
@who
async def test_a_follow_up_that_runs_on(lag: float, lagging: tuple[str, ...]) -> None:
    """The old end is not the new one; the block's end, or the shutdown, cancels the task."""
    lab = lab_of(lag, *lagging)
    lab.fake.script("m", duration=0.5, answer="old")
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            await asked_again(supervisor, task)
            with pytest.raises(TimeoutError), fail_after(10):
                await task.result()
        assert task.reason is CancelReason.SCOPE
        assert not lab.fake.live
        async with supervisor.task("m") as task:
            await asked_again(supervisor, task)
        assert task.state is State.CANCELLED
        assert not lab.fake.live


@lags
@who
@pytest.mark.parametrize("answer", ["new", "old"])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 4.0])
async def test_a_follow_up_that_is_answered(
    seconds: float, answer: str, lag: float, lagging: tuple[str, ...]
) -> None:
    """Its answer is returned, and by the time that it can be told from the old one."""
    lab = lab_of(lag, *lagging)
    lab.fake.script("m", duration=0.5, answer="old")
    lab.fake.script("again", duration=seconds, answer=answer)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        await asked_again(supervisor, task)
        began = current_time()
        assert (await task.result()).final_response == answer
        assert lab.fake.tasks[task.id].status == "completed"
        assert seconds - 0.01 < current_time() - began < max(seconds, BRAND_NEW) + 1.5 * lag + 2.0
    assert lab.deletes() == 0


async def test_an_answer_at_once_is_not_held_up() -> None:
    """An end with another time is believed at once, though the text is the same."""
    lab = Lab(duration=0.1, answer="same")
    async with lab.open() as supervisor, supervisor.task("m") as task:
        for _ in range(3):
            await task.result()
            await sleep(0)
            await task.send("again")
            began = current_time()
            await task.result()
            assert current_time() - began < 0.5
            await sleep(BRAND_NEW)


class Timeless(FakeSigmic):
    """Tells no times."""

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        info = await super().get(task_id, timeout=timeout)
        return TaskInfo(id=info.id, status=info.status, output=info.output)


async def test_the_same_answer_without_a_time() -> None:
    """It is believed when reads cannot lag any more."""
    lab = Lab()
    lab.fake = Timeless(duration=0.1, answer="same")
    async with lab.open() as supervisor, supervisor.task("m") as task:
        await task.result()
        await task.send("again")
        began = current_time()
        assert (await task.result()).final_response == "same"
        assert current_time() - began < BRAND_NEW + 0.2


async def test_no_old_text_for_a_new_end_without_one() -> None:
    """A follow-up whose end is told without a text has none, and not that of the turn before."""
    lab = Lab(duration=0.1, answer="old")
    async with lab.open() as supervisor, supervisor.task("m") as task:
        await task.result()

        class Silent(type(lab.fake)):  # type: ignore[misc]
            async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
                info = await super().get(task_id, timeout=timeout)
                return TaskInfo(id=info.id, status=info.status, completed_at=info.completed_at)

        lab.fake.__class__ = Silent
        lab.fake.always("stream", UNAVAILABLE)
        await task.send("again")
        assert (await task.result()).final_response is None


async def test_a_follow_up_to_a_task_that_ended_unseen() -> None:
    """Nobody knows its old end, so that none counts before reads cannot lag any more."""
    lab = lab_of(2.0)
    lab.fake.script("m", duration=1.0, answer="old")
    async with lab.open() as supervisor, supervisor.task("m") as task:
        await sleep(1.5)  # nobody reads its events, and the list still shows it running
        assert task.state is State.RUNNING
        await task.send("again")
        with pytest.raises(TimeoutError), fail_after(20):
            await task.result()


async def test_looks_are_few_while_reads_lag() -> None:
    """Not believing means another look soon, and not one look after the other."""
    lab = lab_of(2.0)
    lab.fake.script("m", duration=0.5, answer="old")
    async with lab.open() as supervisor, supervisor.task("m") as task:
        await asked_again(supervisor, task)
        await sleep(10)
        with pytest.raises(TimeoutError), fail_after(10):
            await task.result()
    assert lab.fake.count("get") < 30
    assert lab.fake.count("stream") < 20


async def test_a_task_that_was_cancelled_by_somebody_else_after_a_follow_up() -> None:
    """ "cancelled" was not so before: it is believed at once."""
    lab = Lab()
    lab.fake.script("m", duration=0.5, answer="old")
    async with lab.open() as supervisor:
        with pytest.raises(TaskCancelled):
            async with supervisor.task("m") as task:
                await asked_again(supervisor, task)
                lab.fake.cancel(task.id)
                began = current_time()
                await task.wait()
                await sleep(60)
        assert current_time() - began < 5
