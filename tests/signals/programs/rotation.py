"""A program that replaces its supervisor, as for a new key: the older one closes first."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor


def supervisor() -> Supervisor:
    return Supervisor(signals=True, registry=CollectorRegistry(), grace=20)


async def main(closed: str) -> int | str | None:
    older, stop = supervisor(), asyncio.Event()
    ready = asyncio.Event()

    async def live() -> int | str | None:
        try:
            async with supervisor() as newer:
                await newer.start("m")
                ready.set()
                await stop.wait()
        except SystemExit as end:  # asyncio warns of a task that raises it
            return end.code
        return None

    async with older:
        await older.start("m")
        task = asyncio.create_task(live())
        await ready.wait()
    if closed == "both":
        stop.set()
        await task
    sys.stdout.write(json.dumps({"event": "ready"}) + "\n")
    sys.stdout.flush()
    if closed == "both":
        await asyncio.sleep(3600)
    return await task


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--closed")
    sys.exit(asyncio.run(main(parser.parse_args().closed)))
