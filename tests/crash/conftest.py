"""What all stories share."""

from __future__ import annotations

import anyio
import pytest

from sigmic_guard.supervisor.ground import timer


@pytest.fixture(autouse=True)
def slices_go_by_the_loops_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no slowness of the machine change the order of events where time is virtual."""
    monkeypatch.setattr(timer, "perf_counter", anyio.current_time)
