"""Round after round a process creates as fast as it can, and is killed at a random moment."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.crash import victim
from tests.crash.killing import open_scene

if TYPE_CHECKING:
    from pathlib import Path


async def soak(folder: Path, rounds: int, seed: int, *, recover_each: bool) -> None:
    chance = random.Random(seed)
    async with open_scene(folder) as scene:
        for number in range(rounds):
            await scene.kill_after(chance.randrange(1, 600), number)
            if recover_each:
                await scene.recover()
                assert scene.problems() == []
        await scene.recover(within=max(1.0, rounds / 10) * victim.MAX_SECONDS)
        assert scene.problems() == []
        assert len(scene.emulator.tasks) > 20 * rounds  # it was worth it


RESTARTS = pytest.mark.parametrize("recover_each", [False, True], ids=["once", "each"])


@RESTARTS
async def test_five_kills(recover_each: bool, tmp_path: Path) -> None:
    """After one restart nothing is left of what the killed had created."""
    await soak(tmp_path, 5, 1, recover_each=recover_each)


@pytest.mark.slow
@pytest.mark.timeout(300)
@RESTARTS
async def test_fifty_kills(recover_each: bool, tmp_path: Path) -> None:
    """So it is after fifty."""
    await soak(tmp_path, 50, 2, recover_each=recover_each)


async def test_the_soak_finds_tasks_without_a_row(tmp_path: Path) -> None:
    """Who posts before the intent is durable leaves tasks that no restart knows of."""
    chance = random.Random(3)
    unknown = live = False
    async with open_scene(tmp_path) as scene:
        for number in range(40):
            await scene.kill_after(chance.randrange(1, 100), number, target=victim.rashly)
            await scene.recover()
            problems = scene.problems()
            unknown |= any(problem.startswith("nothing is known of") for problem in problems)
            live |= any(problem.endswith("is live") for problem in problems)
            if unknown and live:
                return
    raise AssertionError(f"not seen: {unknown=} {live=}")
