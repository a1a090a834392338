"""The same stories where time passes: on asyncio, with rows in memory and in a SQLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sigmic_guard.ledger import SqliteLedger
from tests.backends import ASYNCIO, UVLOOP
from tests.crash.story import REAL, Plot, tell

if TYPE_CHECKING:
    from pathlib import Path


async def die_in_file(at: int, path: Path) -> None:
    plot = Plot(deaths=(at,), claims=True, seed=at, pace=REAL)
    story = await tell(plot, lambda: SqliteLedger(path))
    assert story.problems == [], str(story)


@pytest.mark.parametrize("at", range(11, 170, 60))
async def test_a_death_with_a_file(at: int, tmp_path: Path) -> None:
    """A ledger in a file is left as one in memory is: with all that somebody needs to know."""
    await die_in_file(at, tmp_path / "ledger.db")


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
