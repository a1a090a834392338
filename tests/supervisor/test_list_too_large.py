"""Answers that are too large to be read: of GET, and pages of the list."""

from __future__ import annotations

import pytest
from anyio import Event, create_task_group, current_time, fail_after, sleep

from sigmic_guard import (
    CancelReason,
    ConnectionFailed,
    Outcome,
    ProtocolError,
    TaskFailed,
    TaskPolicy,
)
from sigmic_guard.lifecycle import State
from sigmic_guard.supervisor.work.listing import MAX_SKIPPED
from sigmic_guard.testing import LOST, Answer
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.losses import GONE
from tests.supervisor.odd_lists import TOO_LARGE, FatRemote, OddLab
from tests.supervisor.test_list_unknown_statuses import Silent

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)


def lab_of(**weights: float) -> OddLab:
    fake = FatRemote()
    fake.weights = weights
    return OddLab(fake)


# --- GET ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["complete", "fail", "cancel"])
async def test_the_list_tells_the_end_of_a_background_task(how: str) -> None:
    """GET's answer is asked for once; what the list says counts."""
    lab = lab_of()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(1)
        getattr(lab.fake, how)(task.id)
        lab.fake.always("get", TOO_LARGE)
        began = current_time()
        result = await task.wait()
        assert current_time() - began < 5
        assert lab.fake.count("get") == 1
    ends = {"complete": "completed", "fail": "failed", "cancel": "cancelled"}
    assert (result.outcome, result.status) == (Outcome(ends[how]), ends[how])
    assert result.final_response is None


@pytest.mark.parametrize(
    "error",
    [
        TOO_LARGE,
        ProtocolError("The answer is not of the documented shape: x", status=200),
        ProtocolError("The answer is empty.", status=204),
    ],
)
async def test_the_list_tells_the_end_of_a_scoped_task(error: ProtocolError) -> None:
    """Its stream ends without ``done``, and GET cannot be read, whatever is wrong with it."""
    lab = lab_of()
    async with lab.open() as supervisor, supervisor.task("m") as task:
        await sleep(1)
        lab.fake.always("get", error)
        lab.fake.always("stream", _answer_silent)
        lab.fake.fail(task.id, "no")
        began = current_time()
        with pytest.raises(TaskFailed):
            await task.result()
        assert current_time() - began < 5


BROKEN = ProtocolError("no envelope", status=200, unreadable=True, broken=True)
EMPTY = ProtocolError("The answer is empty.", status=200)


@pytest.mark.parametrize("error", [BROKEN, EMPTY])
@pytest.mark.parametrize("times", [1, 4])
async def test_what_makes_no_sense_is_asked_for_again(error: ProtocolError, times: int) -> None:
    """What the agent said is not given up for a few bad answers."""
    lab = lab_of()
    lab.fake.script("m", duration=1, answer="the answer")
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        for _ in range(times):
            lab.fake.on("get", error)
        began = current_time()
        assert (await task.result()).final_response == "the answer"
        assert current_time() - began < 6
        assert lab.fake.count("get") == times + 1


@pytest.mark.parametrize("error", [BROKEN, EMPTY])
async def test_the_list_is_believed_if_no_attempt_makes_sense(error: ProtocolError) -> None:
    """The end of a completed task is learnt within a few seconds, without its output."""
    lab = lab_of()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(1)
        lab.fake.always("get", error)
        lab.fake.complete(task.id)
        began = current_time()
        assert (await task.result()).final_response is None
        assert current_time() - began < 6


def _answer_silent(_: object) -> Answer:
    return Answer(value=Silent())


async def test_the_list_confirms_a_cancellation() -> None:
    """DELETE was acknowledged, and the proof that was asked for is too large."""
    lab = lab_of()
    async with lab.open(policy=TaskPolicy(confirm="terminal")) as supervisor:
        task = await supervisor.start("m")
        lab.fake.always("get", TOO_LARGE)
        cancellation = await task.cancel()
        assert cancellation.state is State.CANCELLED
    assert lab.deletes() == 1


async def test_a_follow_up_is_not_answered_by_the_turn_before() -> None:
    """The list has no answer, and the last turn's is none."""
    lab = lab_of()
    lab.fake.script("m", duration=1, answer="the first")
    lab.fake.script("more", duration=1, answer="the second")
    async with lab.open() as supervisor, supervisor.task("m") as task:
        assert (await task.result()).final_response == "the first"
        lab.fake.always("get", TOO_LARGE)
        lab.fake.always("stream", _answer_silent)
        await task.send("more")
        result = await task.result()
    assert (result.outcome, result.final_response) == (Outcome.COMPLETED, None)


async def test_a_large_answer_is_not_asked_for_in_a_loop() -> None:
    """Where the list does not tell the end either, GET is asked once a minute."""
    lab = lab_of()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        async with create_task_group() as group:
            group.start_soon(task.wait)
            lab.fake.always("get", TOO_LARGE)
            await sleep(600)
            assert lab.fake.count("get") <= 12
            lab.fake.complete(task.id)
            with fail_after(20):
                await task.wait()


# --- pages of the list ----------------------------------------------------------------------------


@pytest.mark.parametrize("number, weight", [(120, 20), (300, 90), (60, 400), (30, 900)])
async def test_a_lost_create_is_found_in_smaller_pages(number: int, weight: float) -> None:
    """Many are fat: no page of a hundred can be read."""
    lab = lab_of(fat=weight)
    for _ in range(number):
        lab.fake.complete(lab.fake.add("fat"))
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor:
        began = current_time()
        task = await supervisor.start("m")
        assert current_time() - began < 10
        assert task.state is State.RUNNING
    assert lab.deletes() == 1


@pytest.mark.parametrize("place", [0, 3, 40, 99, 100])
async def test_one_task_that_is_too_large_is_passed_over(place: int) -> None:
    """It takes one place, wherever it is, and what is behind it is found."""
    lab = lab_of(fat=5000)
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("list")
        started = Event()

        async def start() -> None:
            await supervisor.start("m")
            started.set()

        group.start_soon(start)
        await gate.entered.wait()
        for at in range(100, -1, -1):
            lab.fake.add("fat" if at == place else "other")
        gate.open()
        with fail_after(10):
            await started.wait()
        for task_id in lab.fake.live:
            if lab.fake.tasks[task_id].message != "m":
                lab.fake.complete(task_id)


async def test_the_smaller_size_is_remembered_for_a_while() -> None:
    """Within a minute no page is asked for that could not be read, and later one is tried again."""
    lab = lab_of(fat=30)
    for _ in range(100):
        lab.fake.complete(lab.fake.add("fat"))
    async with lab.open() as supervisor:
        await supervisor.start("m")
        await sleep(50)
        failed = [limit for limit, _, readable in lab.fake.pages if not readable]
        assert failed == [100, 50]
        lab.fake.weights.clear()
        await sleep(30)
        assert lab.fake.pages[-1][0] == 100


@pytest.mark.parametrize("times, least", [(1, 100), (2, 50)])
async def test_a_broken_page_is_asked_for_again_as_it_is(times: int, least: int) -> None:
    """Only one that stays broken is a matter of size."""
    lab = lab_of()
    for _ in range(100):
        lab.fake.complete(lab.fake.add("other"))
    async with lab.open() as supervisor:
        await supervisor.start("m")
        for _ in range(times):
            lab.fake.on("list", BROKEN)
        await sleep(20)
        assert min(limit for limit, _, _ in lab.fake.pages) == least


async def test_a_reading_of_tasks_that_are_all_too_large_is_bounded() -> None:
    """It gives up after a few, and who is watched is looked at all the same."""
    lab = lab_of(fat=5000)
    lab.fake.weights["m"] = 5000
    for _ in range(300):
        lab.fake.complete(lab.fake.add("fat"))
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(100)
        assert len(lab.fake.pages) < 100 * (MAX_SKIPPED + 1)
        lab.fake.complete(task.id)
        with fail_after(20):
            assert (await task.wait()).outcome is Outcome.COMPLETED


async def test_what_is_too_large_may_be_anybody() -> None:
    """A lost create is not called absent while one place of the list was not read."""
    lab = lab_of(fat=5000)
    fat = lab.fake.add("fat")
    lab.fake.on("create", GONE)
    async with lab.open(create_timeout=2) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        await sleep(300)
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]
        lab.fake.weights.clear()
        lab.fake.complete(fat)
        await sleep(100)
        assert not supervisor.snapshot()


async def test_pages_that_take_too_long_are_asked_for_in_parts() -> None:
    """A page that does not come in time may be too large for the way it has to come."""
    lab = lab_of()

    def slow(_: object) -> float | None:
        return 11.0 if lab.fake.asked > 30 else None

    lab.fake.asked = 100
    plain = lab.fake.list

    async def listing(*, limit: int = 100, offset: int = 0, timeout: float) -> object:
        lab.fake.asked = limit
        return await plain(limit=limit, offset=offset, timeout=timeout)

    lab.fake.list = listing
    lab.fake.always("list", slow)
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor:
        with fail_after(60):
            await supervisor.start("m")


async def test_a_task_cancelled_by_somebody_else_is_told_by_the_list() -> None:
    """And the reason is ``remote``."""
    lab = lab_of()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.fake.always("get", TOO_LARGE)
        lab.fake.cancel(task.id)
        assert (await task.wait()).reason is CancelReason.REMOTE
    assert lab.deletes() == 0
