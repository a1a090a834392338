"""The demo: the verdict on its second act is green only for the truth."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from demo.counts import Counts, read_counts
from demo.death import Scene
from demo.display import WIDTH
from demo.screens import death_details, last_screen
from demo.verdict import Act, Killed, Truth, Verdict, judge_death
from rich.console import Console

from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.work.creating import MAX_CREATES
from tests.supervisor.lab import Lab
from tests.supervisor.orphanage import left

KILLED = Killed(live=200, in_flight=25, effective=12, exit_code=-9)
COUNTS = Counts(
    started=225,
    live={"running": 0},
    finished={
        "completed": {"none": 6},
        "failed": {"none": 13},
        "cancelled": {"orphan": 206},
    },
    cancellations={"confirmed": 206, "unconfirmed": 0},
    deletes={"200": 206},
    reaped={"cancelled": 206, "already_finished": 6, "never_created": 13, "released": 0},
    orphan_seconds=546.7,
)
TRUTH = Truth(
    created=212,
    live=0,
    by_status={"completed": 6, "failed": 0, "cancelled": 206},
    posts=225,
    last_cancelled_at=1e9,
)


def verdict(
    counts: Counts = COUNTS, truth: Truth = TRUTH, killed: Killed = KILLED, *, exit_code: int = 0
) -> Verdict:
    return judge_death(counts, truth, killed, expected=KILLED, exit_code=exit_code)


def reaped(**changes: int) -> dict[str, int]:
    return {**COUNTS.reaped, **changes}


def by_status(**changes: int) -> dict[str, int]:
    return {**TRUTH.by_status, **changes}


def test_the_books_agree() -> None:
    """All that was sent was reaped, nothing is alive, nothing was created again: green."""
    assert verdict().good


@pytest.mark.parametrize(
    "changes",
    [
        {"created": 213},
        {"live": 1},
        {"posts": 226},
        {"by_status": by_status(completed=7)},
        {"by_status": by_status(cancelled=205)},
        {"repeated": 1},
    ],
)
def test_a_truth_that_differs(changes: dict[str, Any]) -> None:
    """Any difference on the emulator's side is red."""
    assert not verdict(truth=replace(TRUTH, **changes)).good


@pytest.mark.parametrize(
    "changes",
    [
        {"started": 224},
        {"creates": 1},
        {"live": {"running": 1}},
        {"finished": {**COUNTS.finished, "cancelled": {"orphan": 205}}},
        {"cancellations": {"confirmed": 205, "unconfirmed": 1}},
        {"reaped": reaped(cancelled=205)},
        {"reaped": reaped(already_finished=5)},
        {"reaped": reaped(never_created=12)},
        {"reaped": reaped(released=1)},
        {"reaped": {}},
    ],
)
def test_counts_that_differ(changes: dict[str, Any]) -> None:
    """Any difference on the supervisor's side is red."""
    assert not verdict(msgspec.structs.replace(COUNTS, **changes)).good


@pytest.mark.parametrize(
    "changes", [{"live": 199}, {"in_flight": 24}, {"effective": 11}, {"exit_code": 0}]
)
def test_a_kill_that_met_less(changes: dict[str, int]) -> None:
    """A kill that met fewer tasks than it was to meet proves too little, and is red."""
    assert not verdict(killed=replace(KILLED, **changes)).good


def test_a_next_start_that_failed() -> None:
    """One that left a task, and says so by its exit code, is red."""
    assert not verdict(exit_code=1).good


def test_the_details_add_up() -> None:
    """Creates in flight had an effect or none; a DELETE that never came has no time."""
    told = dict(death_details(COUNTS, TRUTH, KILLED, seconds=1.23))
    assert told["in flight: a task was made"] == "12"
    assert told["in flight: none was made"] == "13"
    assert told["task-seconds without an owner"] == "546.7"
    assert told["seconds to the last DELETE"] == "1.2"
    assert "seconds to the last DELETE" not in dict(
        death_details(COUNTS, TRUTH, KILLED, seconds=None)
    )


def test_both_tables_fit_side_by_side() -> None:
    """The picture is wide enough for the books and what is behind them, whatever they say."""
    details = tuple(death_details(COUNTS, TRUTH, KILLED, seconds=1.23))
    console = Console(width=WIDTH, file=io.StringIO(), record=True)
    console.print(last_screen([Act("A story.", verdict(Counts()), details)]))
    lines = console.export_text().splitlines()
    assert any("supervisor" in line and "behind the numbers" in line for line in lines)


def test_the_truth_knows_the_last_cancellation() -> None:
    """The moment is that of the last task that was cancelled, whatever else ended later."""
    ends = {"cancelled": ("01.500", "03.250"), "completed": ("09.000",)}
    tasks = [
        {"env": {}, "status": status, "completedAt": f"1970-01-01T00:00:{end}Z"}
        for status, times in ends.items()
        for end in times
    ]
    counts = {"total": 3, "live": 0, "cancelled": 2, "completed": 1}
    truth = Truth.from_state({"tasks": counts, "requests": {}, "all": tasks})
    assert truth.last_cancelled_at == 3.25


async def test_counts_tell_of_orphans() -> None:
    """What came of a dead owner's task, and how long it ran on, are read from the metrics."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        counts = read_counts(lab.registry)
    assert (counts.started, counts.ended, counts.creates) == (1, 1, 0)
    assert {how: number for how, number in counts.reaped.items() if number} == {"cancelled": 1}
    assert counts.orphan_seconds == pytest.approx(100, abs=5)


@pytest.mark.parametrize("tasks", [20, 40, 400, 5000])
def test_sizes(tasks: int) -> None:
    """All creates in flight are sent at once, and some of them have an effect."""
    scene = Scene.of(tasks, "memory:")
    assert scene.live == tasks // 2
    assert 0 < scene.expected.effective < scene.in_flight <= MAX_CREATES
    assert scene.posts == scene.live + scene.in_flight
