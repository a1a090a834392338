"""Many background tasks in one supervisor: memory per task, and how long the loop is blocked.

    python benchmarks/scale.py [TASKS ...]

The remote system answers at once, so that everything seen here is the supervisor's own. The bounds
of the design are 2 KB per idle task, and 5 ms per blocked stretch. Garbage collection blocks too,
and grows with everything that a process keeps: it is shown with and without.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from tempfile import TemporaryDirectory
from time import perf_counter

from instant import InstantApi
from lag import LoopLag
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor


async def start_all(supervisor: Supervisor, number: int) -> float:
    """Start them from 64 callers at once."""
    left = iter(range(number))

    async def caller() -> None:
        for _ in left:
            await supervisor.start("idle", timeout=3600)

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(caller())
    return perf_counter() - began


async def memory(number: int, ledger: str) -> None:
    """Measure what the tasks keep, and not what the API does."""
    api = InstantApi()
    async with Supervisor(
        client=api, ledger=ledger, registry=CollectorRegistry(), grace=60
    ) as supervisor:
        await start_all(supervisor, 2000)  # workers, caches
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await start_all(supervisor, number)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        ids = sum(map(sys.getsizeof, list(api.live)[:number])) + sys.getsizeof(api.live) // 2
        print(f"{number:>7,} tasks  memory per idle task: {(kept - ids) / number:7.0f} bytes")


async def blocking(number: int, ledger: str, *, collect: bool) -> None:
    """Measure snapshot and drain."""
    gc.collect()
    if not collect:
        gc.disable()
    api = InstantApi()
    async with Supervisor(
        client=api, ledger=ledger, registry=CollectorRegistry(), grace=60
    ) as supervisor:
        seconds = await start_all(supervisor, number)
        began = perf_counter()
        snapshot = supervisor.snapshot()
        snapped = (perf_counter() - began) * 1000
        assert len(snapshot) == number
        async with LoopLag() as lag:
            report = await supervisor.shutdown()
    gc.enable()
    assert report.clean
    assert not api.live
    print(
        f"{number:>7,} tasks  started: {number / seconds:8,.0f}/s  snapshot: {snapped:5.2f} ms"
        f"  drained in {report.seconds:5.2f} s  loop blocked: worst {lag.worst:6.2f} ms,"
        f" p99 {lag.p99:5.2f} ms  (collector {'on' if collect else 'off'})"
    )


def main() -> None:
    """Run it for each size."""
    with TemporaryDirectory() as folder:
        ledger = f"sqlite:///{folder}/ledger.db"  # the default kind, and nobody's own
        for number in [int(word) for word in sys.argv[1:]] or [20_000, 100_000]:
            asyncio.run(memory(number, ledger))
            for collect in (False, True):
                asyncio.run(blocking(number, ledger, collect=collect))


if __name__ == "__main__":
    main()
