"""``memory:`` is a ledger like any other, as long as its process lives."""

from __future__ import annotations

import pytest

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Write, open_ledger
from sigmic_guard.testing.ledger_suite import LedgerFactory, LedgerSuite
from sigmic_guard.testing.records import make_record
from tests.backends import ASYNCIO, TRIO_VIRTUAL


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
class TestMemoryLedger(LedgerSuite):
    """The conformance suite."""

    @pytest.fixture
    def ledger_factory(self) -> LedgerFactory:
        store = MemoryStore()
        return lambda: MemoryLedger(store)


async def test_each_memory_ledger_has_a_store_of_its_own() -> None:
    """Without a store to share a handle shares none."""
    one, two = MemoryLedger(), open_ledger("memory:")
    await one.open("owner-1")
    await two.open("owner-2")
    await one.commit([Write(make_record(), 0)])
    assert await two.unfinished("default") == []
    assert not await two.owner_alive("owner-1")


async def test_what_finished_is_forgotten() -> None:
    """Finished rows and their keys cost no memory."""
    ledger = MemoryLedger()
    await ledger.open("owner-1")
    for name in "abc":
        await ledger.commit([Write(make_record(name, key="k"), 0)])
        await ledger.commit([Write(make_record(name, key="k", version=2, finished_at=1.0), 1)])
    assert not ledger.store.rows
    assert not ledger.store.keys


def test_a_url_that_no_ledger_has_is_refused() -> None:
    """A URL without a ledger is a ConfigurationError that names it."""
    with pytest.raises(ConfigurationError, match="mysql:"):
        open_ledger("mysql://host")
