"""Short times, so that what never answers costs a test a fraction of a second."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.lifecycle import Backoff
from tests.faults.witness import Witness
from tests.transports import transport  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Constants of the library, wherever in it they stand. Numbers are seconds, the last one bytes.
SHORT = {
    "RETRY_PAUSE": Backoff(first=0.02, most=0.1),
    "SLOWLY": Backoff(first=0.1, most=0.3),
    "BRAND_NEW": 0.3,
    "GET_TIMEOUT": 0.3,
    "PAGE_TIMEOUT": 0.3,
    "REQUEST_TIMEOUT": 0.3,
    "SILENCE_TIMEOUT": 0.3,
    "UNSEEN_SECONDS": 0.5,
    "MAX_JSON": 2**16,
}


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every wait of the library that has a fixed length be a short one."""
    missing = set(SHORT)
    rooms = ("sigmic_guard.supervisor.", "sigmic_guard.sigmic.")
    for name, module in list(sys.modules.items()):
        if name.startswith(rooms):
            for constant in SHORT.keys() & vars(module).keys():
                monkeypatch.setattr(module, constant, SHORT[constant])
                missing.discard(constant)
    assert not missing


@pytest.fixture
def witness() -> Iterator[Witness]:
    """What is told while the test runs; checked at its end."""
    with Witness() as seen:
        yield seen
        seen.check()
