"""The same with a real SIGKILL, a real ledger file and a real server, at a sample of the steps."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.sigmic import CreateRequest, SigmicClient
from tests.crash import victim
from tests.crash.killing import ended, open_scene
from tests.crash.program import DEPLOYED, KEY

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = range(4, 94, 10)


async def die(folder: Path, at: int) -> bool:
    """Die at this step, and let another process look after it; ``False`` if there is no such."""
    async with open_scene(folder) as scene:
        client = SigmicClient(victim.KEY, scene.emulator.url)
        stranger = await client.create(CreateRequest(message="adopted"), timeout=5)
        await client.aclose()
        async with scene.process(victim.step_by_step, stranger, at) as process:
            exit_code = await ended(process)
        assert exit_code in {0, -signal.SIGKILL}
        adopted = scene.knows(stranger)
        await scene.recover(KEY, DEPLOYED)
        may_live = {"detached", "abandoned"} | (set() if adopted else {"adopted"})
        assert scene.problems(may_live) == []
    return exit_code != 0


@pytest.mark.parametrize("at", SAMPLE)
async def test_a_kill_at_a_step(at: int, tmp_path: Path) -> None:
    """What a killed process left, the next one ends, or finds proven gone."""
    assert await die(tmp_path, at)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
async def test_a_kill_at_each_step(part: int, tmp_path: Path) -> None:
    """There is no step at which SIGKILL leaves more than that."""
    for at in range(part, 1000, 8):
        if not await die(tmp_path / str(at), at):
            assert at > 90
            break
