"""A process that dies at any of its steps leaves nothing that the next one does not end."""

from __future__ import annotations

from itertools import count

import pytest

from tests.backends import TRIO_VIRTUAL
from tests.crash.network import Late
from tests.crash.story import Plot, tell
from tests.families import slow_if

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

#: A sweep is cut in so many parts, which take every so manieth step: they run beside each other.
PARTS = 4
EACH_PART = pytest.mark.parametrize("part", range(PARTS))
CLAIMS = pytest.mark.parametrize("claims", [False, True], ids=["reaped", "claimed"])


async def sweep(plot: Plot, part: int) -> None:
    """Die at each of the part's steps until there is none, and fail if anything ever was wrong."""
    wrong = []
    for at in count(part, PARTS):
        story = await tell(plot.but(deaths=(at, *plot.deaths[1:])))
        if story.problems:
            wrong.append(str(story))
        if story.lives[0].alive:
            assert at > 150  # else there is less to die at than is meant
            break
    assert wrong == []


@pytest.mark.parametrize("part", slow_if(lambda part: part > 1, range(PARTS)))
async def test_a_death_at_each_step(part: int) -> None:
    """One life is enough to end, or find proven gone, all that a dead one left."""
    # Two parts of the steps are asked for by their key, two are not; the slow sweep does all.
    await sweep(Plot(claims=part % 2 == 1), part)


@pytest.mark.slow
@EACH_PART
@CLAIMS
@pytest.mark.parametrize("late", list(Late))
async def test_a_death_at_each_step_of_many_stories(late: Late, claims: bool, part: int) -> None:
    """So it is in other orders of events, and whatever becomes of what was on its way."""
    seed = 1 + list(Late).index(late)
    await sweep(Plot(late=late, seed=seed, claims=claims), part)


@pytest.mark.parametrize("late", list(Late))
async def test_an_heir_that_dies_too(late: Late) -> None:
    """What a recovery had begun is as easily taken over as what it recovered."""
    stories = [
        await tell(Plot(deaths=(at, 3 + at % 89), late=late, seed=at, claims=at % 2 == 0))
        for at in range(5, 175, 19)
    ]
    assert [str(story) for story in stories if story.problems] == []
    assert any(not story.lives[1].alive for story in stories)


@pytest.mark.slow
@EACH_PART
@pytest.mark.parametrize("second", range(4, 124, 30))
async def test_a_second_death(second: int, part: int) -> None:
    """Any two steps can be the last ones."""
    plot = Plot(deaths=(0, second + part), seed=second, claims=part % 2 == 0)
    await sweep(plot, part)


async def test_the_program_comes_to_every_kind_of_step() -> None:
    """There is something to die at on either side of each commit, and all along each request."""
    story = await tell(Plot())
    steps = story.lives[0].steps
    for request in "create of 'scoped'", "get", "list", "delete", "follow-up", "stream":
        for moment in "about to send a", "having sent a", "at the answer to a":
            assert f"{moment} {request}" in steps
        assert f"a {request} took effect" in steps
    for moment in "committing", "having committed":
        written = " ".join(step for step in steps if step.startswith(moment))
        for state in (
            "intent",
            "creating",
            "unknown",
            "running",
            "completed",
            "failed",
            "cancelling",
            "handed_over",
        ):
            assert state in written
    assert story.problems == []
