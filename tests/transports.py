"""What carries the short calls of a test: ``usefixtures("transport")`` lets it run with either.

The one that is not the default is for `make test-all`.
"""

from __future__ import annotations

from typing import Any

import pytest

from sigmic_guard import SigmicClient, Supervisor
from tests.families import slow_if

__all__ = ["kinds", "transport"]


def kinds() -> list[Any]:
    """The parameters of a test that uses the fixture: see ``tests/conftest.py``."""
    return slow_if(lambda kind: kind == "aiohttp", ["wire", "aiohttp"])


@pytest.fixture
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default of every client and supervisor that is made meanwhile in this process."""
    owners: list[Any] = [SigmicClient, Supervisor]
    for owner in owners:
        monkeypatch.setitem(owner.__init__.__kwdefaults__, "transport", request.param)
    return str(request.param)
