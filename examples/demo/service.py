"""The process that dies, and the one after it: ``python -m demo.service SECONDS``.

Both are one program: it ends what the one before it left, and then starts the tasks that it is
asked for, in lines of JSON on stdin, until there are no more. It listens to no signal. A reporter
prints the metrics, a line of JSON each.

``SECONDS`` is its ``create_timeout``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from itertools import cycle, islice
from typing import Any, Final

import anyio
import msgspec
from prometheus_client import CollectorRegistry

from demo.counts import Report, read_counts
from demo.workload import SCRIPT
from sigmic_guard import SigmicGuardError, Supervisor, TaskPolicy

#: Seconds between two reports.
REPORT_INTERVAL: Final = 0.1


class Order(msgspec.Struct, frozen=True):
    """One line of stdin."""

    tasks: int
    #: How they go, in the emulator's words, by turns.
    scripts: tuple[dict[str, Any], ...]


async def serve(create_timeout: float) -> int:
    """Reap, and start what is asked for; return 1 if an orphan is left."""
    registry = CollectorRegistry()
    supervisor = Supervisor(
        policy=TaskPolicy(confirm="terminal"), create_timeout=create_timeout, registry=registry
    )

    async def report() -> None:
        while True:
            _tell(registry)
            await anyio.sleep(REPORT_INTERVAL)

    async with anyio.create_task_group() as reporting:
        reporting.start_soon(report)
        async with supervisor, anyio.create_task_group() as tasks:
            reaped = await supervisor.reap()
            number = 0
            while order := await _next_order():
                for script in islice(cycle(order.scripts), order.tasks):
                    tasks.start_soon(_start, supervisor, f"Watch the news {number}", script)
                    number += 1
        reporting.cancel_scope.cancel()
    _tell(registry)
    return 0 if reaped.clean else 1


async def _next_order() -> Order | None:
    """Wait for a line. Each is written at once, and the next one only when it has been done."""
    await anyio.wait_readable(0)
    line = os.read(0, 4096)
    return msgspec.json.decode(line, type=Order) if line else None


async def _start(supervisor: Supervisor, message: str, script: dict[str, Any]) -> None:
    with suppress(SigmicGuardError):  # how it ended is what the metrics tell
        await supervisor.start(message, env={SCRIPT: json.dumps(script)})


def _tell(registry: CollectorRegistry) -> None:
    print(msgspec.json.encode(Report(counts=read_counts(registry))).decode(), flush=True)


def main() -> None:
    """Run as a process."""
    logging.basicConfig(level=logging.ERROR)
    sys.exit(anyio.run(serve, float(sys.argv[1])))


if __name__ == "__main__":
    main()
