"""Wall clocks that lag, run ahead and are set by an hour, in an owner and in its heirs."""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest

from sigmic_guard.lifecycle import Record, Verdict, judge
from tests.schedules.outside import Handle
from tests.schedules.schedule import Step, live_through
from tests.schedules.truth import HOUR
from tests.schedules.world import wall_time

OFF: Final = (-HOUR, 0.0, HOUR)
#: The owner's at first, the owner's before its death, and the heirs', at first and later.
CLOCKS: Final = tuple(itertools.product(OFF, repeat=4))


def schedule(clocks: tuple[float, ...], order: str) -> list[Step]:
    """A process with such clocks dies, and its heirs come 10 s later; one asks for the key."""
    first, then, heirs, later = clocks
    return [
        (0.0, ("clock", 0, first)),
        (0.0, ("create", 0, order)),
        (3.0, ("clock", 0, then)),
        (50.0, ("kill", 0)),
        (0.0, ("clock", 1, heirs)),
        (0.0, ("clock", 2, heirs)),
        (10.0, ("boot all",)),
        (3.0, ("clock", 1, later)),
        (0.0, ("clock", 2, later)),
        (12.0, ("reap all",)),
        (3.0, ("create", 1, "claimable")),
        (3.0, ("kill", 1)),
        (3.0, ("reap all",)),
    ]


#: Some of them: one clock after the other, all the same, and two that differ by two hours.
SOME: Final = (
    (-HOUR, 0.0, 0.0, 0.0),
    (HOUR, 0.0, 0.0, 0.0),
    (0.0, -HOUR, 0.0, 0.0),
    (0.0, HOUR, 0.0, 0.0),
    (0.0, 0.0, -HOUR, 0.0),
    (0.0, 0.0, 0.0, HOUR),
    (HOUR, HOUR, HOUR, HOUR),
    (-HOUR, -HOUR, HOUR, HOUR),
    (HOUR, HOUR, -HOUR, -HOUR),
)


def live_with(clocks: tuple[float, ...], order: str) -> None:
    truth = live_through(schedule(clocks, order))
    assert truth.crimes == []
    if order == "claimable":
        assert len(truth.fake.tasks) == 1, "the heir gets the same task, and creates none"


@pytest.mark.parametrize("order", ["claimable", "claimable late", "plain"])
def test_clocks_that_are_wrong(order: str) -> None:
    """What can be claimed still is, by whatever clock, and what is to end does."""
    for clocks in SOME:
        live_with(clocks, order)


@pytest.mark.slow
@pytest.mark.parametrize("clocks", CLOCKS, ids=str)
def test_all_clocks_that_are_wrong(clocks: tuple[float, ...]) -> None:
    """So it is with every combination."""
    for order in ("claimable", "claimable late", "abandoned", "plain"):
        live_with(clocks, order)


@pytest.mark.parametrize("heirs", OFF)
@pytest.mark.parametrize("provers", OFF)
def test_a_task_that_appears_after_the_proof(provers: float, heirs: float) -> None:
    """Whoever comes after the proof ends the stray, by whatever clocks."""
    truth = live_through(
        [
            (0.0, ("clock", 1, provers)),
            (0.0, ("clock", 2, heirs)),
            (0.0, ("die creating", 0)),
            (0.0, ("create", 1, "plain")),
            (35.0, ("kill", 1)),  # it was proven absent, and arrives in a moment
            (0.0, ("create", 2, "plain")),
        ]
    )
    assert truth.crimes == []


def believes_the_last_sign(record: Record, **asked: Any) -> Verdict:
    """Count how long an owner is dead from what its own clock told last."""
    return judge(record, **asked | {"dead_for": asked["now"] - asked["orphaned_at"]})


class GoesByTheWall(Handle):
    """Counts how long an owner is dead by the wall clock of whoever asks."""

    async def dead_for(self, *args: Any) -> float:
        await super().dead_for(*args)
        seen: dict[str, float] = self.process.world.truth.__dict__.setdefault("by_the_wall", {})
        return wall_time() - seen.setdefault(args[0], wall_time())


def test_who_believes_the_dead_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a lagging owner's task is ended although its key is asked for."""
    monkeypatch.setattr("sigmic_guard.supervisor.recovery.reaper.judge", believes_the_last_sign)
    told = live_through(schedule((-HOUR, -HOUR, 0.0, 0.0), "claimable")).crimes
    assert any("still be claimed" in crime for crime in told)


def test_who_goes_by_the_wall_clock_is_caught() -> None:
    """Negative control: a step in the heir ends the task of who had died seconds before."""
    told = live_through(schedule((0.0, 0.0, 0.0, HOUR), "claimable"), GoesByTheWall).crimes
    assert any("still be claimed" in crime for crime in told)
