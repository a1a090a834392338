"""Durations on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sigmic_guard.cli.durations import parse_duration
from sigmic_guard.emulator import Script

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    "text, seconds",
    [
        *[("0", 0), ("90", 90), ("0.5", 0.5), (".5", 0.5), ("5.", 5), (" 7 ", 7)],
        *[("90s", 90), ("5m", 300), ("1.5h", 5400), ("2d", 172_800), ("5M", 300)],
        *[("1h30m", 5400), ("1d2h3m4.5s", 93_784.5), ("1m0s", 60)],
    ],
)
def test_what_is_one(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "-1", "-5m", "+5", "5x", "m", "5 m", "30m1h", "5m5m", "1:30"],
        *["nan", "inf", "1e3", "\u0665", "five", "5min", "."],
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 5m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("option", [("run", "hi", "--timeout"), ("reap", "--wait")])
async def test_a_command_says_what_is_wrong(cli: Cli, option: tuple[str, ...]) -> None:
    """In the words of its option, with exit code 2, and nothing was sent."""
    ended = await cli.run(*option, "5 fortnights")
    assert ended.code == 2
    assert f"Invalid value for '{option[-1]}': '5 fortnights' is no duration" in ended.err
    assert not cli.emulator.requests


async def test_a_command_takes_it(cli: Cli) -> None:
    cli.emulator.set_script(Script(hold=True))
    ended = await cli.run("run", "hi", "--timeout", "0.005m")
    assert ended.code == 124
