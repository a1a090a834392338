"""The process that runs the tasks: ``python -m demo.worker TASKS [CONFIRM]``.

It is what a service would be: a supervisor that listens to signals. Beside it runs a reporter that
prints the metrics, a line of JSON each, to the end of the drain and once after it.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec
from prometheus_client import CollectorRegistry

from demo.counts import Report, read_counts
from demo.workload import Size, Workload
from sigmic_guard import Supervisor

if TYPE_CHECKING:
    from sigmic_guard.lifecycle.policy import Confirm

#: Seconds between two reports.
REPORT_INTERVAL = 0.1
#: Seconds that a drain may take.
GRACE = 8.0


async def work(size: Size, confirm: Confirm) -> Any:
    """Run everything until a signal comes; return the exit code that it calls for."""
    registry = CollectorRegistry()
    workload = Workload(size, confirm)
    supervisor = Supervisor(
        policy=workload.policy,
        grace=GRACE,
        max_tasks=size.seats,
        registry=registry,
        signals=True,
    )

    async def report() -> None:
        while True:
            _tell(registry, workload, size)
            await anyio.sleep(REPORT_INTERVAL)

    code: Any = 0
    async with anyio.create_task_group() as group:
        group.start_soon(report)
        try:
            async with supervisor:
                await workload.play(supervisor)
        except SystemExit as end:
            code = end.code
        group.cancel_scope.cancel()
    _tell(registry, workload, size)
    return code


def _tell(registry: CollectorRegistry, workload: Workload, size: Size) -> None:
    counts = read_counts(registry)
    steady = not workload.stories_left and counts.live.get("running") == size.seats
    report = Report(counts=counts, steady=steady)
    print(msgspec.json.encode(report).decode(), flush=True)


def main() -> None:
    """Run as a process."""
    logging.basicConfig(level=logging.ERROR)
    tasks, *confirm = sys.argv[1:]
    size = Size(int(tasks))
    sys.exit(anyio.run(work, size, cast("Confirm", confirm[0] if confirm else "terminal")))


if __name__ == "__main__":
    main()
