"""What is shown in the terminal: tables with medians, spread and ratios; goals, met or missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.core.judging import judge, oriented
from benchmarks.core.model import MEASURES, OURS
from benchmarks.core.stats import median, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.core.judging import Verdict
    from benchmarks.core.model import Goal, Row
    from benchmarks.core.results import Figures, RowResult


def number(value: float) -> str:
    """Return three significant digits, or all of the whole ones."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.1e}"


def columns(result: RowResult) -> list[str]:
    """Return the measures of a row, in the order of :data:`MEASURES`."""
    found = {measure for _, _, figures in result.lines() for measure in figures}
    return [measure for measure in MEASURES if measure in found]


def cells(row: Row, result: RowResult) -> Iterator[list[str]]:
    """Yield the lines of a row's table: case, contestant, figures, ratio."""
    measures = columns(result)
    for case, who, figures in result.lines():
        told = [_told(figures.get(measure)) for measure in measures]
        ratios = [_ratio(measure, result, case, figures) for measure in compared(row, result)]
        yield [case, who, *told, *ratios]


def _told(values: list[float] | None) -> str:
    if not values:
        return ""
    return f"{number(median(values))} ±{spread(values):.0%}"


def compared(row: Row, result: RowResult) -> list[str]:
    """Return by which measures contestants are compared: the headline, and CPU time beside it."""
    return [row.headline, *({"cpu"} & {*columns(result)} - {row.headline})]


def _ratio(measure: str, result: RowResult, case: str, figures: Figures) -> str:
    """Say how many times better ours is."""
    ours, theirs = result.figures(case, OURS, measure), figures.get(measure)
    if not ours or not theirs or ours is theirs:
        return ""
    ratio = oriented(measure, ours, theirs)
    return "" if ratio is None else f"{ratio:.2f}"


def heads(row: Row, result: RowResult) -> list[str]:
    """Return the heads of the columns."""
    ratios = ["ours is better by", "and by CPU"][: len(compared(row, result))]
    return ["", "", *(MEASURES[measure].unit for measure in columns(result)), *ratios]


def goal_cells(verdict: Verdict) -> tuple[str, str, str, str]:
    """Return what was promised, the bound, what was measured, and whether that is enough."""
    goal = verdict.goal
    unit = "" if goal.is_ratio else f" {MEASURES[goal.measure].unit}"
    told = "met" if verdict.met else "missed"
    return f"{goal.text} ({goal.case})", bound(goal), number(verdict.value) + unit, told


def bound(goal: Goal) -> str:
    """Return a goal's bound."""
    if goal.at_least is not None:
        return f"≥ {number(goal.at_least)}"
    return "" if goal.at_most is None else f"≤ {number(goal.at_most)}"


def tables(row: Row, result: RowResult) -> Iterator[Table]:
    """Yield a row's tables."""
    table = Table(title=f"{row.name}: {row.title}", title_justify="left")
    for index, head in enumerate(heads(row, result)):
        table.add_column(head, justify="left" if index < 2 else "right")
    for line in cells(row, result):
        table.add_row(*line)
    yield table
    if verdicts := list(judge(row, result)):
        goals = Table("goal", "bound", "measured", "")
        for verdict in verdicts:
            style = "green" if verdict.met else "yellow"
            goals.add_row(*goal_cells(verdict), style=style)
        yield goals


def remarks(result: RowResult) -> Iterator[str]:
    """Yield a line for each contestant that could not take part."""
    for who, package in result.absent.items():
        yield f"{result.name}: {who} was left out, for {package} is not installed"
