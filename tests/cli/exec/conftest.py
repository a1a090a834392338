"""Programs under watch that reach no API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.exec.watch import KEY, Watch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """A watch with a ledger and a key; nothing listens where the API should be."""
    return Watch(
        {
            "SIGMIC_API_KEY": KEY,
            "SIGMIC_BASE_URL": "http://127.0.0.1:9",
            "SIGMIC_GUARD_LEDGER": f"sqlite:///{tmp_path}/ledger.db",
        }
    )
