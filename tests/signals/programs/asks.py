"""A program that shuts its supervisor down by a plain call, in the way it is told, on SIGUSR1."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor, SupervisorShutdown

if TYPE_CHECKING:
    from sigmic_guard import RemoteTask


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def arrange(supervisor: Supervisor, way: str) -> None:
    """Have SIGUSR1 lead to the call."""
    loop = asyncio.get_running_loop()
    match way:
        case "handler":
            signal.signal(signal.SIGUSR1, lambda *_: supervisor.request_shutdown())
        case "callback":
            loop.add_signal_handler(signal.SIGUSR1, supervisor.request_shutdown)
        case "thread":

            def wait() -> None:
                signal.sigwait({signal.SIGUSR1})
                supervisor.request_shutdown()

            threading.Thread(target=wait).start()


async def main(way: str) -> None:
    supervisor = Supervisor(registry=CollectorRegistry(), grace=20)
    if way == "thread":
        # Before there are threads, of the ledger for one: the signal would come to one of these.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    async with supervisor:
        arrange(supervisor, way)
        tasks: list[RemoteTask] = [await supervisor.start(f"task {n}") for n in range(3)]
        say(event="ready")
        results = [await task.wait() for task in tasks]
        try:
            await supervisor.start("too late")
        except SupervisorShutdown:
            refused = True
        else:
            refused = False
    summary = await supervisor.shutdown()
    say(
        event="end",
        way=way,
        outcomes=[result.outcome for result in results],
        reasons=[result.reason for result in results],
        unconfirmed=len(summary.unconfirmed),
        refused=refused,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runner")
    parser.add_argument("--way")
    options = parser.parse_args()
    if options.runner == "asyncio":
        asyncio.run(main(options.way))
    else:
        anyio.run(main, options.way, backend_options={"use_uvloop": options.runner == "uvloop"})
