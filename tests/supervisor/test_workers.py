"""Workers come when they are needed, and are gone when they are told to go."""

from __future__ import annotations

import pytest
from anyio import create_task_group, fail_after, sleep_forever

from sigmic_guard.supervisor.ground.workers import Workers
from tests.backends import ASYNCIO, TRIO_VIRTUAL

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def test_stopped_before_the_first_step() -> None:
    """A worker that was started just before the stop never begins, and nobody waits for it."""
    begun = []

    async def loop() -> None:
        begun.append(True)
        await sleep_forever()

    async with create_task_group() as group:
        workers = Workers(group, lambda name, error: None)
        workers.run("late", loop)
        workers.stop()
        with fail_after(5):
            await workers.gone()
    assert not begun
