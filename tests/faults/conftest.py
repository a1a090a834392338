"""Short times, so that what never answers costs a test a fraction of a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that one request may take.
PATIENCE = 0.3
_SHORT = {
    "canceller.ATTEMPT": PATIENCE,
    "core.PATIENCE": PATIENCE,
    "events.PATIENCE": PATIENCE,
    "events.SILENCE": PATIENCE,
    "reconciler.PATIENCE": PATIENCE,
    "watcher.PATIENCE": PATIENCE,
    "watcher.UNSEEN": 0.5,
}
#: More bytes than this are too large an answer.
MAX_JSON = 2**16


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every wait of the library that has a fixed length be a short one."""
    for name, value in _SHORT.items():
        monkeypatch.setattr(f"sigmic_guard.supervisor.{name}", value)
    monkeypatch.setattr("sigmic_guard.sigmic.transport.MAX_JSON", MAX_JSON)


@pytest.fixture
def witness() -> Iterator[Witness]:
    """What is told while the test runs; checked at its end."""
    with Witness() as seen:
        yield seen
        seen.check()
