"""What a signal leaves in the records of the tasks that it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Literal

import anyio
import pytest

from sigmic_guard import Supervisor
from tests.backends import ASYNCIO, UVLOOP
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP)

#: More than a drain marks at once.
TASKS = 200


async def test_sigterm_is_the_reason_of_every_task_that_it_ends() -> None:
    """The bodies are cancelled on SIGTERM as well, and their blocks do not name their own cause."""
    lab = Lab()
    with pytest.raises(SystemExit) as end:
        async with lab.open(signals=True) as supervisor, anyio.create_task_group() as group:
            for number in range(TASKS):
                group.start_soon(_hold, supervisor, f"task {number}")
            await lab.fake.until(lambda: len(lab.fake.live) == TASKS)
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.sleep_forever()
    assert end.value.code == 128 + signal.SIGTERM
    assert lab.finished == {("cancelled", "shutdown"): TASKS}


async def test_sigterm_lets_go_of_tasks_that_a_shutdown_detaches() -> None:
    """With ``on_shutdown="detach"`` no DELETE goes out, though the body is cancelled."""
    lab = Lab()
    with pytest.raises(SystemExit):
        async with (
            lab.open(left=1, signals=True) as supervisor,
            supervisor.task("stay", on_shutdown="detach"),
        ):
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.sleep_forever()
    assert lab.finished == {("detached", "none"): 1}
    assert lab.deletes() == 0


async def _hold(supervisor: Supervisor, message: str) -> None:
    async with supervisor.task(message):
        await anyio.sleep_forever()


@pytest.mark.parametrize("on_shutdown", ["cancel", "detach"])
async def test_a_handler_that_cancels_the_body_does_not_change_the_reason(
    on_shutdown: Literal["cancel", "detach"],
) -> None:
    """What stood before may cancel the program at once, as ``asyncio.run`` does on SIGINT."""
    lab = Lab()
    programs: list[asyncio.Task[None]] = []

    async def program() -> None:
        async with (
            lab.open(left=on_shutdown == "detach", signals=True) as supervisor,
            supervisor.task("m", on_shutdown=on_shutdown),
        ):
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep_forever()

    before = signal.signal(signal.SIGINT, lambda *_: programs[0].cancel() and None)
    try:
        programs.append(asyncio.create_task(program()))
        await asyncio.wait(programs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert programs[0].cancelled()
    outcome = ("cancelled", "shutdown") if on_shutdown == "cancel" else ("detached", "none")
    assert lab.finished == {outcome: 1}
    assert lab.deletes() == (on_shutdown == "cancel")
