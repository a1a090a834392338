"""What all sweeps share."""

from __future__ import annotations

import pytest

from sigmic_guard.supervisor.work import watcher


@pytest.fixture(autouse=True)
def the_list_is_read_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task in the background be seen ended at once: there are hundreds of runs."""
    monkeypatch.setattr(watcher, "MIN_PAUSE_SECONDS", 0.01)
