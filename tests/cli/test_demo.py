"""``sigmic-guard demo``: its verdict is green only for the truth."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard.cli.demo.counts import Counts, read_counts
from sigmic_guard.cli.demo.display import draw, last_screen
from sigmic_guard.cli.demo.verdict import Truth, Verdict, judge
from sigmic_guard.cli.demo.workload import Size
from tests.cli.conftest import Ended, finish
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path

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
    return judge(counts, truth, met_signal=met_signal, exit_code=exit_code, expected_code=143)


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
    tasks = [{"env": {"SIGMIC_GUARD_INTENT": name}} for name in ("a", "b", "a")]
    state = {"tasks": {"total": 3, "live": 1, "completed": 2}, "all": tasks}
    assert Truth.from_state(state) == Truth(
        created=3, live=1, by_status={"completed": 2}, repeated=1
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
    drawn = {draw(last_screen(COUNTS, judged, "A story.")) for judged in (verdict(), verdict())}
    drawn |= {draw(last_screen(COUNTS, verdict(exit_code=1), "Another."))}
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


# --- the real thing -------------------------------------------------------------------------------


async def demo(*arguments: str) -> Ended:
    process = await _start(*arguments)
    return await finish(process)


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sigmic_guard.cli", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.slow
async def test_the_demo(tmp_path: Path) -> None:
    """Sixty tasks, faults, a SIGTERM: the books agree, nothing runs, and a picture is drawn."""
    ended = await demo("--tasks", "60", "--svg", str(tmp_path / "demo.svg"))
    assert ended.code == 0, ended
    assert ended.err == ""
    assert "SIGTERM came with 15 running" in ended.out
    assert "0 tasks left running. The books agree." in ended.out
    assert "\x1b" not in ended.out
    assert "books&#160;agree" in (tmp_path / "demo.svg").read_text()


@pytest.mark.slow
async def test_the_demo_finds_lies_out() -> None:
    """The negative control: where each DELETE lies and is believed, the demo ends red."""
    ended = await demo("--tasks", "20", "--lie")
    assert ended.code == 1
    assert "The books differ." in ended.out
    left = re.search(r"(\d+) tasks left running", ended.out)
    assert left is not None
    assert int(left[1]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_to_the_demo(number: signal.Signals, code: int) -> None:
    """A demo that is interrupted takes its processes with it."""
    process = await _start("--tasks", "20")
    assert process.stdout is not None
    async for line in process.stdout:
        if b"at most" in line:
            break
    process.send_signal(number)
    assert (await finish(process)).code == code  # its pipes are closed: nobody holds them any more
