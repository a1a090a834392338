"""Read the three series that must add up, as a scrape would."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Sums(NamedTuple):
    started: int
    live: int
    finished: int
    least: int  # of the live series: none may be negative


def sums(registry: CollectorRegistry) -> Sums:
    names = ["tasks_started_total", "tasks_live", "tasks_finished_total"]
    found: dict[str, list[int]] = {name: [] for name in names}
    wanted = registry.restricted_registry([f"sigmic_guard_{name}" for name in names])
    for metric in wanted.collect():
        for sample in metric.samples:
            found[sample.name.removeprefix("sigmic_guard_")].append(int(sample.value))
    started, live, finished = (found[name] for name in names)
    return Sums(sum(started), sum(live), sum(finished), min(live))


def add_up(registry: CollectorRegistry) -> Sums:
    """Fail unless started = finished + live."""
    now = sums(registry)
    assert now.started == now.finished + now.live, now
    assert now.least >= 0, now
    return now
