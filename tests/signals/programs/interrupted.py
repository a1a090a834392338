"""A program whose first DELETE is hit by the KeyboardInterrupt of a second Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import sys

from prometheus_client import CollectorRegistry

from sigmic_guard import SigmicClient, Supervisor


class Interrupted(SigmicClient):
    """Raises what Python's handler would, in the middle of a worker's step, and only once."""

    hit = False

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        if not self.hit:
            self.hit = True
            raise KeyboardInterrupt
        return await super().delete(task_id, timeout=timeout)


async def main() -> None:
    async with (
        Interrupted() as client,
        Supervisor(client=client, registry=CollectorRegistry()) as supervisor,
    ):
        tasks = [await supervisor.start(f"task {number}") for number in range(3)]
        created.extend(task.id for task in tasks)


if __name__ == "__main__":
    created: list[str] = []
    try:
        asyncio.run(main())
    finally:
        sys.stdout.write(json.dumps({"event": "end", "created": len(created)}) + "\n")
