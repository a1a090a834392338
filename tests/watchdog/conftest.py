"""The stage on which processes die."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sigmic_guard.emulator import Emulator, Script
from tests.watchdog.stage import KEY, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Tasks there run until they are cancelled."""
    async with Emulator(script=Script(duration=0.0, hold=True), api_key=KEY) as emulator:
        yield Stage(emulator, tmp_path)
