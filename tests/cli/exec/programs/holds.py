"""Has as many tasks live as it is told, says its pid, and waits to be killed."""

import argparse
import os
from functools import partial
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("tasks", type=int)
parser.add_argument("--namespace", default="default")
parser.add_argument("--early", action="store_true", help="say it before any task is live")
parser.add_argument("--drain", action="store_true", help="end them on SIGTERM")
parser.add_argument("--deploy", action="store_true", help="hand them over on SIGTERM")
parser.add_argument("--leave", action="store_true", help="exit with 3 and leave them")
options = parser.parse_args()


def say_pid() -> None:
    os.write(1, b"%d\n" % os.getpid())


async def main() -> None:
    supervisor = Supervisor(
        namespace=options.namespace,
        registry=CollectorRegistry(),
        signals=options.drain or options.deploy,
    )
    async with supervisor:
        if options.early:
            say_pid()
        async with anyio.create_task_group() as group:
            for number in range(options.tasks):
                terms: Any = {"key": f"key {number}", "on_shutdown": "reattach"}
                start = partial(
                    supervisor.start, f"task {number}", **terms if options.deploy else {}
                )
                group.start_soon(start)
        if options.leave:
            os._exit(3)
        say_pid()
        await anyio.sleep_forever()


anyio.run(main)
