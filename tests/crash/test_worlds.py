"""A death at each step, in worlds that make it harder to know what is true."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from sigmic_guard.errors import TaskNotFound
from sigmic_guard.lifecycle import Record, Verdict, judge
from sigmic_guard.supervisor.ground.inbox import Inbox
from sigmic_guard.supervisor.ground.readings import Readings
from sigmic_guard.supervisor.recovery import reaper
from tests.backends import TRIO_VIRTUAL
from tests.crash.network import Late
from tests.crash.story import Plot, tell
from tests.crash.worlds import WORLDS, Gateway

if TYPE_CHECKING:
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

EACH_WORLD = pytest.mark.parametrize("world", WORLDS)


@EACH_WORLD
async def test_some_deaths(world: str) -> None:
    """What the dead left is ended, or found proven gone, in every world."""
    plots = [
        Plot(deaths=(at,), seed=at, claims=at % 2 == 0, world=WORLDS[world])
        for at in range(11, 175, 41)
    ]
    stories = [await tell(plot) for plot in plots]
    assert [str(story) for story in stories if story.problems] == []


@EACH_WORLD
async def test_nobody_dies(world: str) -> None:
    """A life there is as whole as any other."""
    story = await tell(Plot(world=WORLDS[world]))
    assert story.problems == []


@pytest.mark.slow
@pytest.mark.timeout(200)
@EACH_WORLD
async def test_a_death_at_each_second_step(world: str) -> None:
    """So it is wherever one looks, whatever becomes of what was on its way."""
    wrong = []
    for at in count(0, 2):
        late = list(Late)[at % 3]  # no strays: they are of tasks that the rows know nothing of
        plot = Plot(deaths=(at,), seed=at, late=late, claims=at % 4 == 0, world=WORLDS[world])
        story = await tell(plot)
        if story.problems:
            wrong.append(str(story))
        if story.lives[0].alive:
            assert at > 130  # else there is less to die at than is meant
            break
    assert wrong == []


# --- and if it were otherwise -----------------------------------------------------------------


async def finds(problem: str, world: str, *, at: str, claims: bool = False) -> bool:
    """Sweep the steps that are called so until a story has this problem."""
    plot = Plot(claims=claims, world=WORLDS[world])
    whole = await tell(plot)
    if any(problem in found for found in whole.problems):
        return True
    for number, step in enumerate(whole.lives[0].steps):
        if at in step:
            story = await tell(plot.but(deaths=(number,)))
            if any(problem in found for found in story.problems):
                return True
    return False


async def test_a_404_that_is_believed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reads lag, the task that nobody knows yet runs on."""
    monkeypatch.setattr(Readings, "may_lag", lambda *_: False)
    assert await finds(" is live", "lagging", at="having committed running")


async def test_an_answer_about_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes it for an answer believes of a task that runs what is true of another."""
    observe = Readings.observe

    def believe(readings: Readings, task: Entry, info: TaskInfo, turn: int) -> bool:
        mine = replace(info, id=task.record.remote_id or "", env={}, message=None)
        return observe(readings, task, mine, turn)

    monkeypatch.setattr(Readings, "observe", believe)
    assert await finds(" is live", "swapped", at="committed")


@pytest.mark.parametrize(
    "world, believes_404", [("a gateway answers for it", False), ("behind a gateway", True)]
)
async def test_a_page_that_is_believed(
    world: str, believes_404: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes a gateway for the API believes of a task that runs that there is none."""
    gone = TaskNotFound("a page", code="NOT_FOUND", status=404)
    monkeypatch.setattr(Gateway, "page", lambda *_: gone)
    if believes_404:  # else the tasks are so young that the API itself would be asked again
        monkeypatch.setattr(Readings, "may_lag", lambda *_: False)
    assert await finds(" is live", world, at="running")


@pytest.mark.parametrize("world", ["the owner's clock lags", "both clocks are wrong"])
async def test_a_clock_that_is_believed(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes by what the dead owner's clock told last ends what its key is asked for."""

    def believe(record: Record, **asked: Any) -> Verdict:
        return judge(record, **asked | {"dead_for": asked["now"] - asked["orphaned_at"]})

    monkeypatch.setattr(reaper, "judge", believe)
    assert await finds("the key led to another task", world, at="committed running", claims=True)


async def test_a_plain_call_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A note that nobody carries out leaves the caller waiting."""
    leave = Inbox.leave

    def lose(inbox: Inbox, call: Any, *args: Any) -> None:
        if call.__name__ != "cancel":
            leave(inbox, call, *args)

    monkeypatch.setattr(Inbox, "leave", lose)
    with pytest.RaisesGroup(TimeoutError, flatten_subgroups=True, allow_unwrapped=True):
        await tell(Plot(world=WORLDS["plain calls"]))
