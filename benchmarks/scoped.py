"""Many scoped blocks in one task group, cancelled at once: how the time grows with their number.

    python benchmarks/scoped.py [BLOCKS ...]

Each block waits for its DELETE in a shield of its own, in its caller's task; anyio makes that
quadratic, which is why nothing of the supervisor's own works that way.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

from anyio import Event, create_task_group, sleep_forever
from instant import InstantApi
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor


async def cancel_all(number: int) -> tuple[float, float]:
    """Return the seconds to enter all blocks, and to leave them."""
    api = InstantApi()
    entered, left = Event(), number

    async def block() -> None:
        nonlocal left
        async with supervisor.task("scoped"):
            left -= 1
            if not left:
                entered.set()
            await sleep_forever()

    async with Supervisor(
        client=api, ledger="memory:", registry=CollectorRegistry(), grace=60
    ) as supervisor:
        began = perf_counter()
        async with create_task_group() as group:
            for _ in range(number):
                group.start_soon(block)
            await entered.wait()
            cancelled = perf_counter()
            group.cancel_scope.cancel()
        ended = perf_counter()
        assert not api.live
    return cancelled - began, ended - cancelled


def main() -> None:
    """Run it for each size."""
    for number in [int(word) for word in sys.argv[1:]] or [1_000, 2_000, 4_000, 8_000]:
        entering, leaving = asyncio.run(cancel_all(number))
        print(
            f"{number:>7,} blocks  entered in {entering:5.2f} s  cancelled in {leaving:5.2f} s"
            f"  ({leaving / number * 1e6:5.0f} µs each)"
        )


if __name__ == "__main__":
    main()
