"""``memory:`` is a ledger like any other, as long as its process lives."""

from __future__ import annotations

import pytest

from sigmic_guard.errors import ConfigurationError, LedgerError
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Write, open_ledger
from sigmic_guard.lifecycle import State
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


async def test_what_was_absent_long_ago_is_forgotten() -> None:
    """Lost creates cost memory for as long as somebody asks for their time."""
    ledger = MemoryLedger()
    await ledger.open("owner-1")
    gone = make_record(state=State.NEVER_CREATED, version=4, lost_at=1.0, finished_at=100.0)
    await ledger.commit([Write(gone, 0)])
    await ledger.absent("default", 100.0)
    assert set(ledger.store.absent) == {"intent-1"}
    await ledger.absent("elsewhere", 100.5)
    assert set(ledger.store.absent) == {"intent-1"}
    await ledger.absent("default", 100.5)
    assert not ledger.store.absent


async def test_who_died_without_leaving_a_row_is_forgotten() -> None:
    """Signs of life cost memory for as long as somebody can be asked after."""
    store = MemoryStore()
    for number in range(3):
        ledger = MemoryLedger(store)
        await ledger.open(f"owner-{number}")
        await ledger.upkeep(number)
        if number == 1:
            await ledger.commit([Write(make_record(owner_id="owner-1"), 0)])
        await ledger.aclose()
    ledger = MemoryLedger(store)
    await ledger.open("owner-3")
    await ledger.upkeep(10.0)
    assert store.last_seen == {"owner-1": 1, "owner-3": 10.0}


def test_a_url_that_no_ledger_has_is_refused() -> None:
    """A URL without a ledger is a ConfigurationError that names it."""
    with pytest.raises(ConfigurationError, match="mysql:"):
        open_ledger("mysql://host")


async def test_one_handle_on_a_memory_ledger_is_opened_once() -> None:
    """As with any other: two supervisors that share a handle would be dead for each other."""
    ledger = MemoryLedger()
    await ledger.open("one")
    with pytest.raises(LedgerError, match="open already"):
        await ledger.open("two")
    assert await ledger.owner_alive("one")
    await ledger.aclose()
    await ledger.open("two")
    assert not await ledger.owner_alive("one")
    await ledger.aclose()
