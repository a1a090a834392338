"""A program with a supervisor that does what it is told, line by line, until somebody kills it.

``python -m tests.blackbox.mortal '{"grace": 2}'`` takes the supervisor's arguments. Each line on
its stdin is ``[number, verb, arguments]``; the answer is ``[number, what came of it]``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from prometheus_client import CollectorRegistry

from sigmic_guard import SigmicGuardError, Supervisor, TaskBlock, TaskPolicy


def say(number: int, answer: Any) -> None:
    sys.stdout.write(json.dumps([number, answer]) + "\n")
    sys.stdout.flush()


class Mortal:
    def __init__(self, supervisor: Supervisor, registry: CollectorRegistry) -> None:
        self.supervisor = supervisor
        self.registry = registry
        self.blocks: list[TaskBlock] = []

    async def start(self, message: str, times: int = 1, **options: Any) -> list[str]:
        starts = (self.supervisor.start(message, **options) for _ in range(times))
        return [task.id for task in await asyncio.gather(*starts)]

    async def enter(self, message: str, **options: Any) -> str:
        block = self.supervisor.task(message, **options)
        self.blocks.append(block)
        return (await block.__aenter__()).id

    async def run(self, message: str, **options: Any) -> dict[str, Any]:
        result = await self.supervisor.run(message, **options)
        return {"id": result.id, "outcome": result.outcome, "text": result.final_response}

    async def rush(self, message: str, **options: Any) -> None:
        """Create as fast as it goes, and never stop."""
        while True:
            await asyncio.gather(*(self.supervisor.start(message, **options) for _ in range(20)))

    async def adopt(self, task_id: str, **options: Any) -> str:
        return (await self.supervisor.adopt(task_id, **options)).id

    async def cancel(self, task_id: str) -> str:
        return (await self.supervisor.tasks[task_id].cancel()).result

    async def live(self) -> list[str]:
        return sorted(self.supervisor.tasks)

    async def reap(self) -> dict[str, Any]:
        report = await self.supervisor.reap()
        return {each: [row.id for row in getattr(report, each)] for each in ("reaped", "left")}

    async def fork(self) -> int:
        """A child that has everything that we have but our pipes, and lives until it is killed."""
        child = os.fork()
        if not child:
            os.close(0)
            os.close(1)
            signal.pause()
            os._exit(0)
        return child

    async def tell(self, line: str) -> None:
        number, verb, arguments = json.loads(line)
        try:
            answer = await getattr(self, verb)(**arguments)
        except SigmicGuardError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        say(number, answer)


async def main() -> None:
    options = json.loads(sys.argv[1])
    if "policy" in options:
        options["policy"] = TaskPolicy(**options["policy"])
    registry = CollectorRegistry()
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    doing = set()
    try:
        async with Supervisor(registry=registry, **options) as supervisor:
            mortal = Mortal(supervisor, registry)
            say(0, os.getpid())
            while line := await lines.readline():
                doing.add(asyncio.create_task(mortal.tell(line.decode())))
            for each in doing:
                each.cancel()
    except SigmicGuardError as error:
        say(0, {"error": type(error).__name__, "message": str(error)})


if __name__ == "__main__":
    asyncio.run(main())
