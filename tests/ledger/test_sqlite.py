"""``sqlite:///path`` is a ledger like any other, and its rows outlive whoever wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.testing.ledger_suite import LedgerFactory, LedgerSuite
from tests.backends import ASYNCIO, TRIO, UVLOOP_SLOWLY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.backends(ASYNCIO, UVLOOP_SLOWLY, TRIO)
class TestSqliteLedger(LedgerSuite):
    """The conformance suite."""

    @pytest.fixture
    def ledger_factory(self, tmp_path: Path) -> LedgerFactory:
        return lambda: SqliteLedger(tmp_path / "ledger.db")
