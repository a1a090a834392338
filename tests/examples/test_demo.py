"""The demo: the verdict on its first act is green only for the truth."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from demo.counts import Counts, read_counts
from demo.display import draw
from demo.screens import last_screen, shutdown_details
from demo.verdict import Act, Truth, Verdict, judge_shutdown
from demo.workload import Size
from prometheus_client import CollectorRegistry

from tests.supervisor.lab import Lab

COUNTS = Counts(
    started=400,
    creates=380,
    live={"running": 0, "intent": 0},
    finished={
        "completed": {"none": 142, "user": 16},
        "failed": {"none": 35},
        "cancelled": {"user": 18, "scope": 17, "error": 17, "shutdown": 120},
        "timed_out": {"deadline": 35},
    },
    cancellations={"confirmed": 187, "already_finished": 16, "unconfirmed": 0},
    deletes={"200": 181, "503": 23, "connection": 5},
)
TRUTH = Truth(created=380, live=0, by_status={"completed": 158, "failed": 35, "cancelled": 187})


def verdict(
    counts: Counts = COUNTS, truth: Truth = TRUTH, *, met_signal: int = 120, exit_code: int = 143
) -> Verdict:
    return judge_shutdown(
        counts, truth, met_signal=met_signal, exit_code=exit_code, expected_code=143
    )


def by_status(**changes: int) -> dict[str, int]:
    return {**TRUTH.by_status, **changes}


def test_the_books_agree() -> None:
    """Equal counts, nothing alive, the right exit code: green."""
    assert verdict().good
    assert all(check.agrees for check in verdict().checks)


@pytest.mark.parametrize(
    "changes",
    [
        {"created": 381},
        {"live": 1},
        {"by_status": by_status(completed=157)},
        {"by_status": by_status(failed=36)},
        {"by_status": by_status(cancelled=186)},
        {"repeated": 1},
    ],
)
def test_a_truth_that_differs(changes: dict[str, Any]) -> None:
    """Any difference on the emulator's side is red."""
    assert not verdict(truth=replace(TRUTH, **changes)).good


@pytest.mark.parametrize(
    "changes",
    [
        {"started": 401},
        {"creates": 379},
        {"live": {"running": 1}},
        {"finished": {**COUNTS.finished, "failed": {"none": 34}}},
        {"finished": {**COUNTS.finished, "timed_out": {"deadline": 36}}},
        {"cancellations": {"confirmed": 186, "unconfirmed": 1}},
    ],
)
def test_counts_that_differ(changes: dict[str, Any]) -> None:
    """Any difference on the supervisor's side is red."""
    assert not verdict(msgspec.structs.replace(COUNTS, **changes)).good


def test_an_end_that_differs() -> None:
    """A worker that ends otherwise is red, and so is a task that gives another reason."""
    assert not verdict(exit_code=0).good
    assert not verdict(met_signal=119).good


def test_nothing_at_all_is_no_success() -> None:
    """Zero tasks, all of them accounted for, are red."""
    nothing = Truth(created=0, live=0, by_status=dict.fromkeys(TRUTH.by_status, 0))
    assert not verdict(Counts(), nothing, met_signal=0).good


def test_repeated_tasks_are_seen() -> None:
    """Two tasks with one intent are one too many."""
    tasks = [{"env": {"SIGMIC_GUARD_INTENT": name}, "status": "running"} for name in "aba"]
    counts = {"total": 3, "live": 1, "completed": 2}
    state = {"tasks": counts, "requests": {"create": 4}, "all": tasks}
    assert Truth.from_state(state) == Truth(
        created=3, live=1, by_status={"completed": 2}, repeated=1, posts=4
    )


async def test_counts_are_what_the_registry_says() -> None:
    """One task completed, one was cancelled, one runs: the counts are those of the metrics."""
    lab = Lab()
    async with lab.open() as supervisor:
        first, second, _ = [await supervisor.start(f"task {number}") for number in range(3)]
        lab.fake.complete(first.id)
        await first.wait()
        await second.cancel()
        counts = read_counts(lab.registry)
        assert (counts.started, counts.ended, counts.alive) == (3, 2, 1)
        assert counts.finished == {"completed": {"none": 1}, "cancelled": {"user": 1}}
        assert counts.cancellations["acknowledged"] == counts.deletes["200"] == 1
    assert read_counts(lab.registry).for_reason("shutdown") == 1
    assert read_counts(CollectorRegistry()) == Counts()


def test_the_picture_is_whole_and_loads_nothing() -> None:
    """The SVG is well-formed, of one width whatever it shows, and names no other place."""
    details = tuple(shutdown_details(COUNTS))
    good, bad = Act("A story.", verdict(), details), Act("Another.", verdict(exit_code=1), ())
    drawn = {draw(last_screen(acts)) for acts in ([good, good], [good, good], [good, bad])}
    assert len(drawn) == 2
    for svg in drawn:
        assert ET.fromstring(svg).tag.endswith("svg")
        assert not re.search(r"url\((?!#)|href|@import|@font-face", svg)
    widths = {width for svg in drawn for width in re.findall(r'viewBox="0 0 (\S+)', svg)}
    assert len(widths) == 1


@pytest.mark.parametrize("tasks", [20, 60, 400])
def test_sizes(tasks: int) -> None:
    """All tasks are dealt out, and some of those that never end have no place."""
    size = Size(tasks)
    assert size.stories + size.endless == tasks
    assert 0 < size.at_once <= size.seats < size.endless
    assert size.stories > 0
