"""Many background tasks, of which one in a hundred finishes each second: what is asked, and when
an end is seen.

The supervisor reads the list, which is sorted by activity. The peer asks for each task every five
seconds, as one would write it.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.core import peers
from benchmarks.core.books import task_id
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import KEY, Unsound, start_all
from benchmarks.core.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.core.books import Books
    from benchmarks.core.site import Site
    from sigmic_guard.observe import ObservedEvent

FINISHING: Final = 0.01
#: Seconds between two looks at one task.
EVERY: Final = 5.0


def told(
    before: Books, after: Books, seen: Mapping[str, float], seconds: float
) -> Mapping[str, float]:
    """Tell the requests a second, and how late the ends were seen; one that was not is as late."""
    end = perf_counter()
    late = [(seen.get(name, end) - at) * 1000 for name, at in after.finished.items()]
    if not late:
        raise Unsound("no task finished")
    return {
        "requests": (after.reads - before.reads) / seconds,
        "p50": percentile(late, 0.5),
        "p99": percentile(late, 0.99),
    }


class Noted:
    """An observer that notes when each task was seen to have completed."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def observe(self, event: ObservedEvent) -> None:
        from sigmic_guard.lifecycle import State
        from sigmic_guard.observe import TaskChanged

        if type(event) is TaskChanged and event.after.state is State.COMPLETED:
            self.seen.setdefault(event.after.remote_id or "", perf_counter())


async def ours(site: Site) -> Mapping[str, float]:
    from prometheus_client import CollectorRegistry

    from sigmic_guard import Supervisor

    noted = Noted()
    async with Supervisor(
        api_key=KEY,
        base_url=site.base,
        ledger=site.sqlite,
        registry=CollectorRegistry(),
        grace=60,
        observers=[noted],
    ) as supervisor:
        await start_all(supervisor, site["n"])
        site.script(keep=True, finishing=FINISHING)
        before = site.books()
        await asyncio.sleep(site["seconds"])
        site.script(keep=True)
        after = site.books()
        await asyncio.sleep(3)  # for the last ones to be seen
        result = told(before, after, noted.seen, site["seconds"])
    site.check()
    return result


async def polling(site: Site) -> Mapping[str, float]:
    number, seen = site["n"], dict[str, float]()
    site.script(seed=number)
    site.script(keep=True, finishing=FINISHING)
    before = site.books()
    async with peers.aiohttp_session(peers.AT_ONCE) as session:

        async def poll(offset: int) -> None:
            names = [task_id(index) for index in range(offset, number, peers.AT_ONCE)]
            next_look = perf_counter()
            while names:
                pause = EVERY / len(names)
                for name in [*names]:
                    async with session.get(f"{site.tasks}/{name}") as answer:
                        if (await answer.json())["data"]["status"] == "completed":
                            seen[name] = perf_counter()
                            names.remove(name)
                    next_look += pause
                    await asyncio.sleep(max(0.0, next_look - perf_counter()))

        workers = [asyncio.create_task(poll(offset)) for offset in range(peers.AT_ONCE)]
        await asyncio.sleep(site["seconds"])
        site.script(keep=True)
        after = site.books()
        await asyncio.sleep(EVERY + 1)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return told(before, after, seen, site["seconds"])


def cases(quick: bool) -> list[Case]:
    number, seconds = (1_000, 4) if quick else (10_000, 20)
    return [
        Case(
            label=f"{number:,}",
            numbers={"n": number, "seconds": seconds},
            contestants=(OURS, "polling"),
            rounds=1 if quick else None,
        )
    ]


ROW = Row(
    name="watch",
    title="background tasks, 1 % finishing a second",
    headline="requests",
    contestants={OURS: ours, "polling": polling},
    cases=cases,
    goals=tuple(
        goal
        for case in ("1,000", "10,000")
        for goal in (
            Goal(
                text="requests, against polling each every 5 s",
                case=case,
                measure="requests",
                over="polling",
                at_most=1 / 50,
            ),
            Goal(text="an end is seen", case=case, measure="p99", at_most=2000),
        )
    ),
    plots=(Plot(measure="requests", title="Requests a second to watch so many tasks"),),
)
