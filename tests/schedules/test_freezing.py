"""What SIGSTOP does to the tasks of a virtual process."""

from __future__ import annotations

import anyio
from anyio import create_task_group, move_on_after, sleep
from trio.testing import MockClock

from tests.schedules.freezing import PROCESS, Freezer, Freezing


async def _stopped_and_continued() -> list[str]:
    process, told = Freezer(), list[str]()

    async def count() -> None:
        with move_on_after(10):
            while True:
                await sleep(1)
                told.append(f"{anyio.current_time():g}")
        told.append(f"late {anyio.current_time():g}")

    async def main() -> None:
        async with create_task_group() as group:  # a child of a process is part of it
            group.start_soon(count)

    async with create_task_group() as group:
        token = PROCESS.set(process)
        group.start_soon(main)
        PROCESS.reset(token)
        await sleep(2.5)
        process.freeze()
        await sleep(100)
        told.append("continued")
        process.thaw()
    return told


def test_no_step_while_stopped() -> None:
    """Nothing of it runs until it is continued; then it finds that it is late."""
    told = anyio.run(
        _stopped_and_continued,
        backend="trio",
        backend_options={"clock": MockClock(autojump_threshold=0), "instruments": [Freezing()]},
    )
    assert told == ["1", "2", "continued", "late 102.5"]
