"""Many deadlines within 100 ms, and at one instant: how late each is met.

A deadline is met when the decision to end its task falls. The peer whose work compares has an
asyncio task for each, with a time-out after which it deletes. A timer of the event loop for each,
which does no more than note the time, shows the floor. Blocks are measured apart, for whoever
watches the loop takes a share of it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.core.instant import InstantApi
from benchmarks.core.lag import LoopLag
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import Clock, Unsound, callers
from benchmarks.core.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.core.site import Site
    from sigmic_guard.observe import ObservedEvent

WATCHED: Final = "sigmic_guard, watched"
#: Starts by which is told how long all of them take. ``allowed`` times as long is allowed for.
SAMPLE: Final = 500


def lateness(met: list[float], due: list[float]) -> Mapping[str, float]:
    """Tell how late the deadlines were met, each in its turn."""
    if len(met) != len(due):
        raise Unsound(f"{len(met)} of {len(due)} deadlines were met")
    late = [(at - when) * 1000 for at, when in zip(sorted(met), sorted(due), strict=True)]
    return {"p50": percentile(late, 0.5), "p99": percentile(late, 0.99)}


def instants(site: Site, base: float) -> list[float]:
    """Return when they are due, from a moment on."""
    number, within = site["n"], site["within"] / 1000
    return [base + within * index / number for index in range(number)]


class Noted:
    """An observer that notes when each task began to be cancelled."""

    def __init__(self) -> None:
        self.met: list[float] = []
        self.all = asyncio.Event()
        self.number = 0

    def observe(self, event: ObservedEvent) -> None:
        from sigmic_guard.lifecycle import Event
        from sigmic_guard.observe import TaskChanged

        if type(event) is TaskChanged and event.event is Event.CANCEL:
            self.met.append(asyncio.get_running_loop().time())
            if len(self.met) == self.number:
                self.all.set()


async def ours(site: Site, *, watched: bool = False, timed: bool = False) -> Mapping[str, float]:
    """Let them pass; ``watched`` for blocks, ``timed`` for the CPU seconds of all."""
    from prometheus_client import CollectorRegistry

    from sigmic_guard import Supervisor

    api, noted, loop = InstantApi(), Noted(), asyncio.get_running_loop()
    number = noted.number = site["n"]
    async with Supervisor(
        client=api,
        ledger="memory:",
        registry=CollectorRegistry(),
        grace=300,
        observers=[noted],
    ) as supervisor:
        began = perf_counter()
        samples = [await supervisor.start("first", timeout=3600) for _ in range(SAMPLE)]
        allowed = (perf_counter() - began) / SAMPLE * number * site["allowed"]
        due = instants(site, loop.time() + allowed)

        await callers(64, (partial(supervisor.start, "idle", deadline=at) for at in due))
        if loop.time() > due[0]:
            raise Unsound("the first deadline was over before the last task had started")
        if watched:
            await asyncio.sleep(due[0] - loop.time() - 0.05)
            async with LoopLag() as lag:
                await noted.all.wait()
            result: Mapping[str, float] = {"block": lag.worst}
        else:
            with Clock() as clock:
                await noted.all.wait()
            result = {"seconds": clock.cpu} if timed else lateness(noted.met, due)
        for task in samples:
            task.request_cancel()
    api.check()
    return result


async def call_at(site: Site) -> Mapping[str, float]:
    loop = asyncio.get_running_loop()
    met: list[float] = []
    all_met = asyncio.Event()

    def note() -> None:
        met.append(loop.time())
        if len(met) == site["n"]:
            all_met.set()

    due = instants(site, loop.time() + 1 + site["n"] * 1e-5)
    timers = [loop.call_at(at, note) for at in due]
    await all_met.wait()
    del timers
    return lateness(met, due)


async def timeouts(site: Site) -> Mapping[str, float]:
    """An asyncio task for each, with a time-out, which deletes when that is over."""
    loop, api = asyncio.get_running_loop(), InstantApi()
    met: list[float] = []

    async def one(at: float) -> None:
        name = await api.create(None, timeout=30)
        try:
            async with asyncio.timeout_at(at):
                await asyncio.Event().wait()
        except TimeoutError:
            met.append(loop.time())
            await api.delete(name, timeout=30)

    due = instants(site, loop.time() + 1 + site["n"] * 1e-4)
    async with asyncio.TaskGroup() as group:
        for at in due:
            group.create_task(one(at))
    api.check()
    return lateness(met, due)


def cases(quick: bool) -> list[Case]:
    number = 5_000 if quick else 100_000
    spread = {"within 100 ms": 100} if quick else {"within 100 ms": 100, "at one instant": 0}
    return [
        Case(
            label=f"{number:,} {text}{', watched' if watched else ''}",
            numbers={"n": number, "within": within, "allowed": 4 if quick else 2},
            contestants=(WATCHED,) if watched else (OURS, "call_at", "asyncio.timeout"),
            rounds=2 if watched else None,  # CPU time is much the same each time
            seconds=400,
        )
        for text, within in spread.items()
        for watched in (False, True)
    ]


ROW = Row(
    name="deadlines",
    title="how late deadlines are met",
    headline="p99",
    contestants={
        OURS: ours,
        WATCHED: partial(ours, watched=True),
        "call_at": call_at,
        "asyncio.timeout": timeouts,
    },
    cases=cases,
    goals=tuple(
        goal
        for case, at_most in (
            ("5,000 within 100 ms", 1.0),  # the peer keeps up with these
            ("100,000 within 100 ms", 0.5),
            ("100,000 at one instant", 0.5),
        )
        for goal in (
            Goal(
                text="p99 against a time-out each",
                case=case,
                measure="p99",
                over="asyncio.timeout",
                at_most=at_most,
            ),
            Goal(
                text="the longest block while they are met",
                case=f"{case}, watched",
                who=WATCHED,
                measure="block",
                at_most=5.0,
            ),
        )
    ),
    plots=(Plot(measure="p99", title="How late deadlines are met, p99 in ms"),),
)
