"""What observers cost: each step of a task through the metrics, and through the logs.

The events are those of real lives, told again. A log line that its level filters out must cost
next to nothing; one that is written costs what the host's logging does. The peers are the same
thing by hand: labels looked up each time, and a logger asked.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter

from benchmarks.core.instant import InstantApi
from benchmarks.core.model import Case, Goal, Plot, Row
from benchmarks.core.site import Unsound
from sigmic_guard import Supervisor
from sigmic_guard.observe import Logs, Metrics, TaskChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.core.site import Site
    from sigmic_guard.observe import ObservedEvent

METRICS, FILTERED, WRITTEN = "metrics", "logs, filtered out", "logs, written"
METRICS_BY_HAND, FILTERED_BY_HAND = "labels() by hand", "logger by hand, filtered out"
LIVES: Final = 200


class Recorder:
    def __init__(self) -> None:
        self.events: list[ObservedEvent] = []

    def observe(self, event: ObservedEvent) -> None:
        self.events.append(event)


async def lives() -> list[ObservedEvent]:
    """Return what observers are told of some tasks, from beginning to end."""
    recorder, api = Recorder(), InstantApi()
    async with Supervisor(
        client=api, ledger="memory:", registry=None, observers=[recorder]
    ) as supervisor:
        for _ in range(LIVES):
            async with supervisor.task("bench", timeout=60):
                pass
    api.check()
    return [event for event in recorder.events if isinstance(event, TaskChanged)]


def nothing(_: ObservedEvent) -> None:
    """What an observer costs that does nothing."""


def each(
    observe: Callable[[ObservedEvent], object], events: list[ObservedEvent], times: int
) -> float:
    """Return the microseconds that one event takes."""
    if not events:
        raise Unsound("nothing was observed")
    began = thread_time()
    for _ in range(times):
        for event in events:
            observe(event)
    return (thread_time() - began) / times / len(events) * 1e6


async def measure(
    make: Callable[[Site], Callable[[ObservedEvent], object]], site: Site
) -> Mapping[str, float]:
    events = await lives()
    observe = make(site)
    each(observe, events, 3)
    idle = each(nothing, events, site["times"])
    return {"each": each(observe, events, site["times"]) - idle}


def metrics(_: Site) -> Callable[[ObservedEvent], object]:
    return Metrics.on(CollectorRegistry()).observe


def logs(level: int, site: Site) -> Callable[[ObservedEvent], object]:
    logging.basicConfig(filename=Path(site.folder) / "log", level=level)
    return Logs().observe


def labels_by_hand(_: Site) -> Callable[[ObservedEvent], object]:
    registry = CollectorRegistry()
    counter = Counter("steps", "Steps.", ["state", "reason"], registry=registry)

    def observe(event: ObservedEvent) -> None:
        assert isinstance(event, TaskChanged)
        after = event.after
        counter.labels(after.state.value, after.reason.value if after.reason else "none").inc()

    return observe


def logger_by_hand(_: Site) -> Callable[[ObservedEvent], object]:
    logging.basicConfig(level=logging.ERROR)
    logger = logging.getLogger("by hand")

    def observe(event: ObservedEvent) -> None:
        assert isinstance(event, TaskChanged)
        logger.info("task %s is %s", event.after.remote_id, event.after.state.value)

    return observe


def cases(quick: bool) -> list[Case]:
    who = (METRICS, METRICS_BY_HAND, FILTERED, FILTERED_BY_HAND, WRITTEN)
    return [Case(label="a step", numbers={"times": 20 if quick else 200}, contestants=who)]


ROW = Row(
    name="overhead",
    title="what is told of each step",
    headline="each",
    contestants={
        METRICS: partial(measure, metrics),
        METRICS_BY_HAND: partial(measure, labels_by_hand),
        FILTERED: partial(measure, partial(logs, logging.ERROR)),
        FILTERED_BY_HAND: partial(measure, logger_by_hand),
        WRITTEN: partial(measure, partial(logs, logging.INFO)),
    },
    cases=cases,
    goals=(
        Goal(text="metrics", case="a step", who=METRICS, measure="each", at_most=3.0),
        Goal(text="a log filtered out", case="a step", who=FILTERED, measure="each", at_most=0.3),
    ),
    plots=(Plot(measure="each", title="What a step of a task costs its observers, µs"),),
)
