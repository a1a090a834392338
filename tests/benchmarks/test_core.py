"""The benchmarks' core: statistics, ratios, goals, tables, and the checks that make a run fail."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from benchmarks import rows
from benchmarks.core import report, stats
from benchmarks.core.books import Books, check_books
from benchmarks.core.child import WriteWatch
from benchmarks.core.judging import check_folder, compare, judge, oriented
from benchmarks.core.model import MEASURES, OURS, Case, Goal, Row
from benchmarks.core.results import RowResult, Run

if TYPE_CHECKING:
    from collections.abc import Mapping


async def nobody(site: object) -> Mapping[str, float]:
    raise NotImplementedError


FASTER: Final = Goal(text="faster", case="10", measure="rate", over="other", at_least=1.5)
QUICK: Final = Goal(text="quick", case="10", measure="p99", at_most=5.0)
FLAT: Final = Goal(text="flat", case="all", measure="seconds", grows_with="n", at_most=1.2)


def row(*goals: Goal) -> Row:
    return Row(
        name="row",
        title="a row",
        headline="rate",
        contestants={OURS: nobody, "other": nobody},
        cases=lambda _: [Case(label="10", numbers={"n": 10}, contestants=(OURS, "other"))],
        goals=goals,
    )


def result(ours: list[float], theirs: list[float], **more: Any) -> RowResult:
    made = RowResult(name="row", **more)
    for who, rates in ((OURS, ours), ("other", theirs)):
        for rate in rates:
            made.note("10", who, {"rate": rate, "p99": 1000 / rate})
    return made


def test_the_statistics_are_right() -> None:
    assert stats.spread([90, 100, 130]) == pytest.approx(0.2)
    assert stats.percentile([*range(100)], 0.99) == 99
    assert stats.percentile([], 0.5) == 0.0
    assert stats.slope([10, 100, 1000], [1, 100, 10_000]) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="two sizes"):
        stats.slope([10, 10], [1, 2])


@pytest.mark.parametrize("rate, met", [(299, False), (300, True), (900, True)])
def test_a_ratio_is_that_of_the_medians(rate: float, met: bool) -> None:
    (verdict,) = judge(row(FASTER), result([1, rate, 10_000], [10, 200, 5000]))
    assert verdict.value == pytest.approx(rate / 200)
    assert verdict.met is met


def test_a_figure_by_itself_has_a_unit_in_its_verdict() -> None:
    (verdict,) = judge(row(QUICK), result([500], [1]))
    assert report.goal_cells(verdict) == ("quick (10)", "≤ 5", "2 ms p99", "met")


def test_an_exponent_is_judged_over_all_cases() -> None:
    measured = RowResult(name="row")
    for size in (10, 100):
        measured.numbers[str(size)] = {"n": size}
        measured.note(str(size), OURS, {"seconds": size**2})
    (verdict,) = judge(row(FLAT), measured)
    assert verdict.value == pytest.approx(2.0)
    assert not verdict.met


def test_a_goal_of_another_size_is_not_judged() -> None:
    assert not list(judge(row(FASTER, FLAT), RowResult(name="row")))


@pytest.mark.parametrize("measure, ratio", [("rate", 3.0), ("p99", 1 / 3)])
def test_more_is_better_only_where_it_is(measure: str, ratio: float) -> None:
    assert oriented(measure, [300, 300], [100, 100]) == pytest.approx(ratio)
    assert oriented(measure, [0], [100]) is None


def test_the_table_tells_medians_spread_and_ratio() -> None:
    told = result([100, 200, 300], [50, 50, 50])
    assert report.heads(row(), told) == ["", "", "/s", "ms p99", "ours is better by"]
    assert list(report.cells(row(), told)) == [
        ["10", OURS, "200 ±50%", "5 ±67%", ""],
        ["10", "other", "50 ±0%", "20 ±0%", "4.00"],
    ]
    assert [*report.tables(row(FASTER), told)]


def test_only_what_got_worse_beyond_its_rounds_is_named() -> None:
    before = result([200, 210], [100, 100])
    assert [*compare(row(FASTER), before, result([90, 100], [100, 100]))] == [
        "row: faster (10): 2.2 times worse"
    ]
    assert not [*compare(row(FASTER), before, before)]
    assert not [*compare(row(FASTER), before, result([80, 205], [100, 300]))]


def test_an_exponent_gets_worse_by_what_it_costs_at_ten_times_the_size() -> None:
    runs = []
    for exponent in (1.0, 1.1, 1.8):
        measured = RowResult(name="row")
        for size in (10, 100):
            measured.numbers[str(size)] = {"n": size}
            measured.note(str(size), OURS, {"seconds": size**exponent})
        runs.append(measured)
    linear, noisy, steep = runs
    assert not [*compare(row(FLAT), linear, noisy)]
    assert [*compare(row(FLAT), linear, steep)] == ["row: flat (all): 6.3 times worse"]


@pytest.mark.parametrize(
    "books, told",
    [
        (Books(posts=3, deletes=3), []),
        (Books(running=2), ["2 tasks still run: the server saw no DELETE for them"]),
        (Books(twice=1), ["1 DELETEs of tasks that had been deleted"]),
        (Books(unknown=4), ["4 DELETEs of tasks that never were"]),
    ],
)
def test_the_books_must_balance(books: Books, told: list[str]) -> None:
    assert [*check_books(books)] == told


def test_no_row_of_a_ledger_may_be_unfinished(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("CREATE TABLE tasks (intent_id TEXT, finished_at REAL)")
        connection.execute("INSERT INTO tasks VALUES ('a', 1.0)")
        connection.commit()
        assert not [*check_folder(tmp_path)]
        connection.execute("INSERT INTO tasks VALUES ('b', NULL)")
        connection.commit()
        assert [*check_folder(tmp_path)] == ["1 rows of ledger.db are not finished"]


def test_writes_outside_of_the_folder_are_noticed(tmp_path: Path) -> None:
    """By the events that the interpreter audits; a hook that is added would stay for ever."""
    watch, outside = WriteWatch(tmp_path), "/nowhere/file"
    fine: list[tuple[str, tuple[Any, ...]]] = [
        ("open", (str(tmp_path / "in"), "w", 0)),
        ("open", (outside, "r", os.O_RDONLY)),
        ("open", (3, "w", 0)),
        ("sqlite3.connect", (":memory:",)),
    ]
    for event, args in fine:
        watch.hook(event, args)
    assert not watch.written
    wrong: list[tuple[str, tuple[Any, ...]]] = [
        ("open", (outside, "a", 0)),
        ("open", (outside.encode(), None, os.O_RDWR)),
        ("open", (f"{tmp_path}/../file", "w", 0)),
        ("sqlite3.connect", (f"file:{outside}?mode=rwc",)),
        ("os.mkdir", (outside, 0o777, -1)),
    ]
    for event, args in wrong:
        watch.hook(event, args)
    assert watch.written == [outside, outside, str(tmp_path.parent / "file"), outside, outside]


def test_a_run_fails_by_its_rows_failures() -> None:
    run = Run(facts={}, quick=True, rounds=1, rows=[result([1], [1], failures=["unsound"])])
    assert run.failures == ["row: unsound"]


@pytest.mark.parametrize("fastest, limited", [(6_000.0, False), (8_000.0, True)])
def test_a_run_fails_that_the_server_was_the_limit_of(fastest: float, limited: bool) -> None:
    run = Run(facts={}, quick=True, rounds=1, fastest=fastest, limit=10_000.0)
    assert bool(run.failures) is limited


def test_every_row_is_in_the_list_and_names_what_it_has() -> None:
    """Goals and plots of a row name its own contestants and cases."""
    folder = Path(rows.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(rows.NAMES)
    for name in rows.NAMES:
        it = rows.load(name)
        assert it.name == name
        cases = {case.label: case for quick in (True, False) for case in it.cases(quick)}
        for case in cases.values():
            assert set(case.contestants) <= it.contestants.keys()
        for goal in it.goals:
            assert goal.measure in MEASURES
            assert goal.grows_with or goal.who in cases[goal.case].contestants
            assert goal.over is None or goal.over in it.contestants
            assert goal.over_case is None or goal.over_case in cases
        for plot in it.plots:
            assert plot.measure in MEASURES
            assert set(plot.cases or ()) <= cases.keys()
