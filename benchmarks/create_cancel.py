"""Create a task and cancel it, over real HTTP: the supervisor beside what one would write by hand.

    python benchmarks/create_cancel.py [--tasks 4000] [--concurrency 256] [--rounds 5]
        [--uvloop] [--folder FOLDER]

The emulator runs as a process of its own. The hand-written way has no deadline, no retry, no ledger
and no metrics, and forgets the task if it dies. The supervised way is tried with the memory ledger
and with a SQLite file, which is what costs to survive a crash. All take turns in one run; medians
count.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

KEY = "sigmic_" + "0" * 64


async def at_once(number: int, concurrency: int, work: Callable[[], Awaitable[None]]) -> float:
    """Return how many pieces of work a second got done."""
    left = iter(range(number))

    async def caller() -> None:
        for _ in left:
            await work()

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(caller())
    return number / (perf_counter() - began)


async def by_hand(url: str, number: int, concurrency: int) -> float:
    """Do it the way most people would."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(limit=concurrency)
    ) as session:

        async def one() -> None:
            body = {"message": "bench", "env": {}}
            async with session.post(f"{url}/api/v1/tasks", json=body) as answer:
                task_id = (await answer.json())["data"]["id"]
            async with session.delete(f"{url}/api/v1/tasks/{task_id}") as answer:
                assert (await answer.json())["success"]

        return await at_once(number, concurrency, one)


async def supervised(ledger: str, url: str, number: int, concurrency: int) -> float:
    """Do it with the supervisor."""
    async with Supervisor(
        api_key=KEY, base_url=url, ledger=ledger, registry=CollectorRegistry()
    ) as supervisor:

        async def one() -> None:
            async with supervisor.task("bench", timeout=60):
                pass

        return await at_once(number, concurrency, one)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--folder", help="where the ledger's file is; default: the system's")
    options = parser.parse_args()
    factory = None
    if options.uvloop:
        import uvloop  # noqa: PLC0415 - only where asked for

        factory = uvloop.new_event_loop
    with TemporaryDirectory(dir=options.folder) as folder:
        measure(options, factory, f"sqlite:///{Path(folder).resolve() / 'ledger.db'}")


def measure(
    options: argparse.Namespace,
    factory: Callable[[], asyncio.AbstractEventLoop] | None,
    ledger: str,
) -> None:
    """Let all ways take turns."""
    ways: dict[str, Callable[[str, int, int], Coroutine[Any, Any, float]]] = {
        "by hand": by_hand,
        "memory": partial(supervised, "memory:"),
        "sqlite": partial(supervised, ledger),
    }
    command = [sys.executable, "-m", "sigmic_guard.emulator", "--script", '{"hold": true}']
    with Popen(command, stdout=PIPE, text=True) as emulator:  # noqa: S603 - our own module
        try:
            assert emulator.stdout is not None
            url = emulator.stdout.readline().split()[-1]
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(options.rounds + 1):
                for name, way in ways.items():
                    with asyncio.Runner(loop_factory=factory) as runner:
                        rate = runner.run(way(url, options.tasks, options.concurrency))
                    if turn:  # the first warms up
                        rates[name].append(rate)
        finally:
            emulator.terminate()
    for name, measured in rates.items():
        print(
            f"{name:>12}: {median(measured):7,.0f} tasks/s  (of {options.rounds}: "
            f"{min(measured):,.0f} to {max(measured):,.0f})"
        )
    for ours, theirs in (("memory", "by hand"), ("sqlite", "memory")):
        ratios = [one / other for one, other in zip(rates[ours], rates[theirs], strict=True)]
        print(f"{ours} / {theirs}: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
