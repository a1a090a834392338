"""Reads that lag behind writes: a 404 to a new task says nothing, nor does an old end."""

from __future__ import annotations

import pytest
from anyio import current_time

from sigmic_guard import State, TaskNotFound
from sigmic_guard.supervisor.ground.lag import BRAND_NEW, End, is_new
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
GONE = TaskNotFound("no such task", code="NOT_FOUND", status=404)


async def test_a_404_right_after_the_create_is_asked_again() -> None:
    """The DELETE goes out again until the API knows the task."""
    lab = Lab()
    lab.fake.on("delete", GONE, GONE)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert (await task.cancel()).result == "acknowledged"
    assert lab.deletes() == 3


async def test_a_404_counts_as_soon_as_it_may_be_believed() -> None:
    """A task that is really gone holds nobody up for longer than reads may lag."""
    lab = Lab()
    async with lab.open(left=1) as supervisor:
        task = await supervisor.start("m")
        began = current_time()
        lab.fake.on("delete", *[GONE] * 10)
        cancellation = await task.cancel()
        assert cancellation.result == "not_found"
        assert BRAND_NEW <= current_time() - began < BRAND_NEW + 0.1


async def test_a_404_at_the_end_of_the_budget_proves_nothing() -> None:
    """A task that a shutdown ends right after its create is named if the API does not know it."""
    lab = Lab()
    lab.fake.on("delete", *[GONE] * 20)
    async with lab.open(left=1, grace=1.0) as supervisor:
        task = await supervisor.start("m")
        report = await supervisor.shutdown()
        assert [row.id for row in report.unconfirmed] == [task.id]
        assert task.state is State.UNCONFIRMED


async def test_a_404_of_the_look_is_asked_again() -> None:
    """So is the GET of a task whose DELETE was acknowledged otherwise than documented."""
    lab = Lab()
    lab.fake.on("get", GONE, GONE)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", confirm="terminal")
        assert (await task.cancel()).result == "confirmed"


A, B = "2026-01-26T15:50:54.870Z", "2026-01-26T15:50:55.000Z"


@pytest.mark.parametrize(
    "end, before, new",
    [
        (End(A), End(A), False),
        (End(A), End(B), True),
        (End(A, B, "new"), End(A, A, "old"), False),  # when it ended says more than the text
        (End(None, B, "same"), End(None, A, "same"), True),
        (End(None, None, "new"), End(A, A, "old"), True),
        (End(None, None, "same"), End(A, A, "same"), False),
        (End(final_response="new"), End(final_response="old"), True),
        (End(final_response="same"), End(final_response="same"), False),
        (End(final_response="new"), End(A, A, "old"), False),  # not to be compared
        (End(A), None, False),
        (End(), End(), False),
    ],
)
async def test_what_shows_that_an_end_is_new(end: End, before: End | None, new: bool) -> None:
    """The most telling thing that is known of both."""
    assert is_new(end, before) is new
