"""What Prometheus asks of names and help texts: by promtool if it is here, and by our own rules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sigmic_guard.lifecycle import CancelResult, ReapResult
from sigmic_guard.observe import (
    CancellationAcknowledged,
    CancellationEnded,
    DeleteAnswered,
    LedgerCommitted,
    Metrics,
    OrphanReaped,
    OrphansCounted,
    RequestAnswered,
    ShutdownFinished,
)
from tests.observe import lives

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = str(Path(__file__).parents[2])
PROMTOOL = shutil.which("promtool")

#: Written from what operators are promised, not from the code.
SERIES = {
    "tasks_started": ("counter", set()),
    "tasks_live": ("gauge", {"state"}),
    "tasks_finished": ("counter", {"outcome", "reason"}),
    "task_duration_seconds": ("histogram", {"outcome"}),
    "cancellations": ("counter", {"result"}),
    "cancel_attempts": ("counter", {"status"}),
    "cancel_acknowledge_seconds": ("histogram", set()),
    "cancel_confirm_seconds": ("histogram", set()),
    "shutdown_seconds": ("histogram", set()),
    "http_request_seconds": ("histogram", {"method", "route", "status"}),
    "ledger_commit_seconds": ("histogram", set()),
    "ledger_batch_size": ("histogram", set()),
    "orphans": ("gauge", set()),
    "orphan_oldest_age_seconds": ("gauge", set()),
    "orphans_reaped": ("counter", {"how"}),
    "orphan_task_seconds": ("counter", set()),
}

_NO_BASE_UNIT = re.compile(r"_(ms|us|ns|millis|milliseconds|minutes|hours|kb|mb|percent)(_|$)")
#: How a name ends that has a unit, and how its help begins.
_UNITS = {"_seconds": "Seconds ", "_size": "Rows "}
_RESERVED = ("_total", "_created", "_bucket", "_count", "_sum", "_info")


@pytest.fixture
def used(registry: CollectorRegistry) -> CollectorRegistry:
    """Every series with samples."""
    metrics, record = Metrics.on(registry), lives.born()
    lives.live(metrics, *lives.CANCELLED)
    metrics.observe(DeleteAnswered(record, "200"))
    metrics.observe(CancellationAcknowledged(record, 0.1))
    metrics.observe(CancellationEnded(record, CancelResult.CONFIRMED, 0.2))
    metrics.observe(RequestAnswered("GET", "/api/v1/tasks/{id}", "200", 0.1))
    metrics.observe(LedgerCommitted(1, 0.001))
    metrics.observe(ShutdownFinished(0, 0, 1.0))
    metrics.observe(OrphansCounted("me", 2, 3.0))
    metrics.observe(OrphanReaped(record, ReapResult.CANCELLED, 4.0))
    return registry


def complaints(registry: CollectorRegistry) -> Iterator[str]:
    """Yield what is wrong with a registry's names and help texts."""
    families = {family.name: family for family in registry.collect()}
    for name, family in families.items():
        if not re.fullmatch(r"sigmic_guard_[a-z]+(_[a-z]+)*", name):
            yield f"{name}: the prefix, or no snake case"
        if name.endswith(_RESERVED) or any(name == other + "_created" for other in families):
            yield f"{name}: a suffix that the exposition makes itself"
        if _NO_BASE_UNIT.search(name):
            yield f"{name}: not a base unit"
        if len(family.documentation) < 20 or not family.documentation.endswith("."):
            yield f"{name}: the help says nothing"
        unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)
        if unit is not None and not family.documentation.startswith(unit):
            yield f"{name}: the help says another unit"
        if unit is None and family.type == "histogram":
            yield f"{name}: a histogram of what?"
        for sample in family.samples:
            ends = sample.name.removeprefix(name)
            if family.type == "counter" and ends not in {"_total", "_created"}:
                yield f"{name}: a counter without _total"
            if not all(re.fullmatch(r"[a-z]+", label) for label in sample.labels):
                yield f"{name}: labels {set(sample.labels)}"


def test_names_and_help_texts_follow_the_rules(used: CollectorRegistry) -> None:
    assert list(complaints(used)) == []


def test_the_rules_see_what_is_wrong(registry: CollectorRegistry) -> None:
    """Negative control."""
    Counter("other_things_total", "Counts other things, says the help.", registry=registry)
    Gauge("sigmic_guard_thing_count", "Counts things, says the help.", registry=registry)
    Histogram("sigmic_guard_thing_ms", "Milliseconds, says the help.", registry=registry)
    Gauge("sigmic_guard_undocumented", "", registry=registry)
    Gauge("sigmic_guard_oldest_seconds", "The age of things, says the help.", registry=registry)
    Histogram("sigmic_guard_batch", "Rows of things, says the help.", registry=registry)
    Histogram("sigmic_guard_batch_size", "How many, says the help.", registry=registry)
    Gauge("sigmic_guard_shape", "Labels that shout.", ["Shape"], registry=registry).labels("x")
    found = {line.split(":")[0].removeprefix("sigmic_guard_") for line in complaints(registry)}
    names = {"other_things", "thing_count", "thing_ms", "undocumented", "shape"}
    assert found == names | {"oldest_seconds", "batch", "batch_size"}


def test_the_series_are_those_of_the_design(used: CollectorRegistry) -> None:
    found = {
        family.name.removeprefix("sigmic_guard_"): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in used.collect()
    }
    assert found == SERIES


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH")
def test_promtool_is_content(used: CollectorRegistry) -> None:
    assert PROMTOOL is not None
    run = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=generate_latest(used),
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_many_processes_add_up(tmp_path: Path) -> None:
    """Behind several workers prometheus-client adds the processes' series; so do ours."""
    program = """if True:
        import os
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector
        from sigmic_guard.lifecycle import ReapResult
        from sigmic_guard.observe import Metrics, OrphanReaped, OrphansCounted
        from tests.observe import lives
        from tests.observe.sums import sums

        def work():
            metrics = Metrics.on(CollectorRegistry())
            lives.live(metrics, *lives.CANCELLED)
            lives.live(metrics, *lives.CREATED)
            metrics.observe(OrphansCounted(str(os.getpid()), 3, 7.0))  # both see the same ledger
            metrics.observe(OrphanReaped(lives.born(), ReapResult.CANCELLED, 1.0))

        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            work()
            os.write(ready[1], b"x")
            os.read(done[0], 1)  # a process that ended has no live tasks
            os._exit(0)
        work()
        os.read(ready[0], 1)
        both = CollectorRegistry()
        MultiProcessCollector(both)
        found = {}
        for metric in both.collect():
            for sample in metric.samples:
                assert "pid" not in sample.labels
                found[sample.name] = found.get(sample.name, 0) + sample.value
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        names = ("tasks_started_total", "tasks_live", "tasks_finished_total", "orphans",
                 "orphan_oldest_age_seconds", "orphan_task_seconds_total")
        print(*(int(found[f"sigmic_guard_{name}"]) for name in names))
    """
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": ROOT},
        capture_output=True,
        check=True,
        text=True,
    )
    assert run.stdout.split() == ["4", "2", "2", "3", "7", "2"]
