"""A program that forks a child, and ends it with SIGTERM, as multiprocessing and pools do."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter as Counts

from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.observe import DeleteAnswered


class Counter(Counts[type]):
    """An observer that counts what it is told."""

    def observe(self, event: object) -> None:
        self[type(event)] += 1


async def main(signals: str) -> None:
    counter = Counter()
    supervisor = Supervisor(
        signals=signals == "true" or "auto",
        registry=CollectorRegistry(),
        observers=[counter],
        grace=20,
    )
    async with supervisor:
        task = await supervisor.start("m")
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, b"!")
            time.sleep(3600)
            os._exit(1)
        os.read(reader, 1)  # it lives
        os.kill(child, signal.SIGTERM)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        await task.refresh()  # whatever the signal might have begun has begun by now
        end = {
            "event": "end",
            "child": os.waitstatus_to_exitcode(status),
            "state": task.state,
            "deletes before the end": counter[DeleteAnswered],
        }
    sys.stdout.write(json.dumps(end) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--signals")
    asyncio.run(main(parser.parse_args().signals))
