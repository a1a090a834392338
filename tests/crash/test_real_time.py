"""The same stories where time passes: on asyncio, with rows in memory and in a SQLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sigmic_guard.ledger import SqliteLedger
from tests.backends import ASYNCIO, UVLOOP
from tests.crash.story import REAL, Plot, tell
from tests.crash.worlds import PLAIN, WORLDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.worlds import World


async def die_in_file(at: int, path: Path, world: World = PLAIN) -> None:
    plot = Plot(deaths=(at,), claims=True, seed=at, pace=REAL, world=world)
    story = await tell(plot, lambda: SqliteLedger(path))
    assert story.problems == [], str(story)


@pytest.mark.parametrize("at", range(11, 170, 60))
async def test_a_death_with_a_file(at: int, tmp_path: Path) -> None:
    """A ledger in a file is left as one in memory is: with all that somebody needs to know."""
    await die_in_file(at, tmp_path / "ledger.db")


@pytest.mark.parametrize("world", ["both clocks are wrong", "a gateway answers for it"])
async def test_a_death_with_a_file_in_a_world(world: str, tmp_path: Path) -> None:
    """Nor does it go by a wall clock, or by a gateway's word."""
    await die_in_file(91, tmp_path / "ledger.db", WORLDS[world])


@pytest.mark.slow
@pytest.mark.parametrize("world", [name for name, world in WORLDS.items() if not world.read_lag])
async def test_deaths_with_a_file_in_each_world(world: str, tmp_path: Path) -> None:
    """So it is in every world in which time need not pass."""
    for at in range(21, 180, 40):
        await die_in_file(at, tmp_path / f"{at}.db", WORLDS[world])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
async def test_a_death_at_each_third_step_with_a_file(part: int, tmp_path: Path) -> None:
    """So it is wherever one looks."""
    for at in range(3 * part, 180, 9):
        await die_in_file(at, tmp_path / f"{at}.db")


@pytest.mark.backends(ASYNCIO, UVLOOP)
@pytest.mark.parametrize("at", [71, 119])
async def test_a_death_on_asyncio(at: int) -> None:
    """The order of events is another one than on trio."""
    story = await tell(Plot(deaths=(at,), claims=True, seed=at, pace=REAL))
    assert story.problems == [], str(story)
