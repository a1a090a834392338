"""What carries the short calls of a test: ``usefixtures("transport")`` lets it run with either.

The one that is not the default is for `make test-all`.
"""

from __future__ import annotations

from typing import Any

import pytest

from sigmic_guard import SigmicClient, Supervisor

__all__ = ["transport"]


@pytest.fixture(
    params=["wire", pytest.param("aiohttp", marks=[pytest.mark.slow, pytest.mark.once])]
)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default of every client and supervisor that is made meanwhile in this process."""
    kinds: list[Any] = [SigmicClient, Supervisor]
    for kind in kinds:
        monkeypatch.setitem(kind.__init__.__kwdefaults__, "transport", request.param)
    return str(request.param)
