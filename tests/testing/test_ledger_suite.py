"""The conformance suite is content with a good ledger, and finds each way to break one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import msgspec
import pytest

from sigmic_guard.ledger import Ledger, MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.lifecycle import Record
from sigmic_guard.testing.ledger_suite import LedgerSuite
from sigmic_guard.testing.records import FULL_RECORD


class IgnoresExpected(MemoryLedger):
    """Last write wins."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        rows = self.store.rows
        stored = [(record, rows.get(record.intent_id)) for record, _ in writes]
        return await super().commit(
            [Write(record, row.version if row else 0) for record, row in stored]
        )


class LosesTheTail(MemoryLedger):
    """Says that it did all of a batch, and did a thousand."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        done = await super().commit(writes[:1000])
        return [*done, *[None] * (len(writes) - 1000)]


class StopsAtARefusal(MemoryLedger):
    """Takes a refusal for the end of the batch."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        results: list[Refusal | None] = []
        for write in writes:
            results += await super().commit([write])
            if results[-1] is not None:
                break
        return results + [None] * (len(writes) - len(results))


class IgnoresKeys(MemoryLedger):
    """Knows no key."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        self.store.keys.clear()
        return await super().commit(writes)


class KeepsKeys(MemoryLedger):
    """Never gives a key back."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        before = dict(self.store.keys)
        results = await super().commit(writes)
        self.store.keys.update(before)
        return results


class MixesNamespaces(MemoryLedger):
    """Gives the rows of all namespaces."""

    async def unfinished(self, namespace: str) -> Sequence[Record]:
        await super().unfinished(namespace)
        return list(self.store.rows.values())


class OnlyItsOwn(MemoryLedger):
    """Hides what other owners left."""

    async def unfinished(self, namespace: str) -> Sequence[Record]:
        rows = await super().unfinished(namespace)
        return [row for row in rows if row.owner_id == self._owner_id]


class ForgetsAField(MemoryLedger):
    """Has no column for the last error."""

    async def get(self, intent_id: str) -> Record | None:
        row = await super().get(intent_id)
        return row and msgspec.structs.replace(row, last_error=None)


class EverybodyLives(MemoryLedger):
    """Never finds an orphan."""

    async def owner_alive(self, owner_id: str) -> bool:
        await super().owner_alive(owner_id)
        return True


class NobodyLives(MemoryLedger):
    """Takes every task for an orphan."""

    async def owner_alive(self, owner_id: str) -> bool:
        await super().owner_alive(owner_id)
        return False


class StaysOpen(MemoryLedger):
    """Writes after it was closed."""

    def _check_open(self) -> None:
        pass


class Alone(MemoryLedger):
    """Shares nothing with its neighbours."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__()


async def failures(kind: Callable[[MemoryStore], Ledger]) -> set[str]:
    """Run the suite by hand, each test on a store of its own; return who fails."""
    failed = set()
    for name, test in inspect.getmembers(LedgerSuite(), inspect.iscoroutinefunction):
        cases: list[dict[str, object]] = [{}]
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "parametrize":
                cases = [{mark.args[0]: value} for value in mark.args[1]]
        for case in cases:
            store = MemoryStore()
            try:
                await test(lambda store=store: kind(store), **case)
            except (Exception, pytest.fail.Exception):
                failed.add(name)
    return failed


async def test_the_suite_is_content_with_the_memory_ledger() -> None:
    """The way in which these controls run the suite finds nothing by itself."""
    assert await failures(MemoryLedger) == set()


@pytest.mark.parametrize(
    "kind, test",
    [
        (IgnoresExpected, "test_a_conflict_leaves_the_row"),
        (LosesTheTail, "test_a_batch_may_be_large"),
        (StopsAtARefusal, "test_a_refusal_hinders_no_other"),
        (IgnoresKeys, "test_a_key_has_one_unfinished_row"),
        (KeepsKeys, "test_a_key_is_free_after_its_row_finished"),
        (MixesNamespaces, "test_a_namespace_has_its_own_rows"),
        (OnlyItsOwn, "test_a_namespace_has_its_own_rows"),
        (ForgetsAField, "test_every_field_survives"),
        (EverybodyLives, "test_nobody_is_not_alive"),
        (NobodyLives, "test_open_announces_the_owner"),
        (StaysOpen, "test_only_an_open_handle_works"),
        (Alone, "test_handles_see_each_others_rows"),
    ],
)
async def test_the_suite_finds_a_broken_ledger(
    kind: Callable[[MemoryStore], Ledger], test: str
) -> None:
    """Each broken ledger fails at least the test that is about what it breaks."""
    assert test in await failures(kind)


def test_the_round_trip_tries_every_field() -> None:
    """A field that is new in the record has to get a value of its own in the suite's row."""
    for field in msgspec.structs.fields(Record):
        assert getattr(FULL_RECORD, field.name) != field.default, field.name
    default = type(FULL_RECORD.policy)()
    for name in default.__slots__:
        assert getattr(FULL_RECORD.policy, name) != getattr(default, name), name
