"""A program that owns tasks, and does what it is told, line by line."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from typing import Any

import anyio
from anyio import to_thread
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.ledger import owners

TASKS = 3


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def fork() -> int:
    """Leave a child behind that does nothing, and return its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads; the child has none
        pid = os.fork()
    if pid == 0:
        for fd in (0, 1, 2):
            os.close(fd)  # our pipes; the rest it keeps, as children do
        while True:
            signal.pause()
    return pid


async def main() -> None:
    async with Supervisor(registry=CollectorRegistry()) as supervisor:
        tasks = [await supervisor.start(f"task {n}") for n in range(TASKS)]
        await supervisor.reap()  # the ids are in the ledger by now
        say(ids=[task.id for task in tasks])
        while command := (await to_thread.run_sync(sys.stdin.readline)).strip():
            match command:
                case wait if wait.startswith("wait "):
                    [task] = [task for task in tasks if task.id == wait.split()[1]]
                    say(outcome=(await task.wait()).outcome)
                case "upkeep":
                    await supervisor.reap()
                    say(done=True)
                case "fork":
                    say(child=fork())
                case "fork, and let it inherit":
                    owners._held.clear()
                    say(child=fork())
    say(end=True)


anyio.run(main)
