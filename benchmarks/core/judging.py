"""Goals against medians, the server's books against what must hold, one run against another."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.core.model import MEASURES
from benchmarks.core.stats import slope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.core.model import Goal, Row
    from benchmarks.core.results import RowResult

#: A figure that is worse by this factor than another run's is no noise.
WORSE: Final = 1.5


@dataclass(frozen=True)
class Verdict:
    """A goal, and what was measured."""

    goal: Goal
    value: float

    @property
    def met(self) -> bool:
        """Whether it is within the bound."""
        goal = self.goal
        above = goal.at_least is None or self.value >= goal.at_least
        return above and (goal.at_most is None or self.value <= goal.at_most)


def judge(row: Row, result: RowResult) -> Iterator[Verdict]:
    """Yield the verdicts on all goals of which this run can tell."""
    for goal in row.goals:
        value = figure(goal, result)
        if value is not None:
            yield Verdict(goal, value)


def figure(goal: Goal, result: RowResult) -> float | None:
    """Return a goal's figure or ratio; ``None`` if it was not measured."""
    if goal.grows_with:
        return _exponent(goal, goal.grows_with, result)
    ours = result.median(goal.case, goal.who, goal.measure)
    if ours is None or not goal.is_ratio:
        return ours
    case, who = goal.over_case or goal.case, goal.over or goal.who
    theirs = result.median(case, who, goal.over_measure or goal.measure)
    return ours / theirs if theirs else None


def _exponent(goal: Goal, grows_with: str, result: RowResult) -> float | None:
    points = {
        numbers[grows_with]: median
        for case, numbers in result.numbers.items()
        if (median := result.median(case, goal.who, goal.measure)) and grows_with in numbers
    }
    return slope([*points], [*points.values()]) if len(points) > 1 else None


def check_folder(folder: Path) -> Iterator[str]:
    """Yield how many rows of the ledgers in a contestant's folder are not finished."""
    for file in folder.glob("*.db"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            query = "SELECT count(*) FROM tasks WHERE finished_at IS NULL"
            unfinished = connection.execute(query).fetchone()[0]
        if unfinished:
            yield f"{unfinished} rows of {file.name} are not finished"


def compare(row: Row, before: RowResult, now: RowResult) -> Iterator[str]:
    """Yield where a row got worse: by its goals' figures, and beyond what the rounds differ by."""
    for goal in row.goals:
        was, is_now = figure(goal, before), figure(goal, now)
        if was is None or is_now is None or not was or not is_now:
            continue
        if goal.grows_with:
            factor = 10 ** (is_now - was)  # at ten times the size
        else:
            factor = was / is_now if goal.at_most is None else is_now / was
        if factor > WORSE and _apart(goal, before, now):
            yield f"{row.name}: {goal.text} ({goal.case}): {factor:.1f} times worse"


def _apart(goal: Goal, before: RowResult, now: RowResult) -> bool:
    """Whether no round of the one run was as good, or as bad, as any of the other."""
    if goal.grows_with:
        return True  # over all cases
    one = before.figures(goal.case, goal.who, goal.measure)
    other = now.figures(goal.case, goal.who, goal.measure)
    return max(one) < min(other) or max(other) < min(one)


def oriented(measure: str, ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return how many times better the first median is than the second."""
    one, other = sorted(ours)[len(ours) // 2], sorted(theirs)[len(theirs) // 2]
    if not one or not other:
        return None
    return one / other if MEASURES[measure].more_is_better else other / one
