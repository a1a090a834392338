"""What every ledger has to do, in tests: subclass :class:`LedgerSuite` in a test module of yours.

::

    class TestMyLedger(LedgerSuite):
        @pytest.fixture
        def ledger_factory(self, tmp_path):
            return lambda: MyLedger(tmp_path / "ledger")

Each call of the factory returns a new handle, not yet open, on one and the same store, as another
process would have it. The tests are async, for anyio's pytest plugin.
"""

from __future__ import annotations

import anyio
import msgspec
import pytest

from sigmic_guard.ledger import Ledger, Refusal, Write
from sigmic_guard.lifecycle import CancelReason, Record, State
from sigmic_guard.testing.ledger_handles import LedgerFactory, ids, opened, write
from sigmic_guard.testing.ledger_lookups import LookupTests
from sigmic_guard.testing.ledger_owners import OwnerTests
from sigmic_guard.testing.records import FULL_RECORD, make_record

__all__ = ["LedgerFactory", "LedgerSuite"]

_but = msgspec.structs.replace


@pytest.mark.anyio
class LedgerSuite(LookupTests, OwnerTests):
    """The conformance suite of :class:`sigmic_guard.ledger.Ledger`."""

    @pytest.fixture
    def ledger_factory(self) -> LedgerFactory:
        """Return what makes handles on one store, empty at the beginning of each test."""
        raise NotImplementedError("override the fixture `ledger_factory`")

    # --- one row ------------------------------------------------------------------------------

    async def test_an_inserted_row_is_read_back(self, ledger_factory: LedgerFactory) -> None:
        """A row that was inserted is given back by get and by unfinished; others are not there."""
        async with opened(ledger_factory) as ledger:
            record = make_record()
            assert await write(ledger, record, 0) is None
            assert await ledger.get("intent-1") == record
            assert await ledger.unfinished("default") == [record]
            assert await ledger.get("intent-2") is None

    async def test_every_field_survives(self, ledger_factory: LedgerFactory) -> None:
        """Every field, the policy's included, comes back with its value and its type."""
        record = _but(FULL_RECORD, finished_at=None)
        async with opened(ledger_factory) as ledger:
            assert await write(ledger, record, 0) is None
            for row in (await ledger.get("intent-1"), *await ledger.unfinished(record.namespace)):
                # The repr tells an enum's member from its text, and 1 from 1.0.
                assert repr(row) == repr(record)
                assert row == record

    async def test_what_is_not_set_stays_so(self, ledger_factory: LedgerFactory) -> None:
        """Fields that are None come back as None."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record(), 0)
            assert repr(await ledger.get("intent-1")) == repr(make_record())

    async def test_every_state_and_reason_survives(self, ledger_factory: LedgerFactory) -> None:
        """No state and no reason is too new for the store."""
        rows = [make_record(f"{state}", state=state) for state in State]
        rows += [make_record(f"for-{reason}", reason=reason) for reason in CancelReason]
        async with opened(ledger_factory) as ledger:
            await ledger.commit([Write(row, 0) for row in rows])
            for row in rows:
                assert repr(await ledger.get(row.intent_id)) == repr(row)

    async def test_a_row_moves_on(self, ledger_factory: LedgerFactory) -> None:
        """A write that expects the stored version replaces the row; versions may be skipped."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record(), 0)
            for version, expected in (2, 1), (7, 2):
                moved = make_record(version=version, state=State.RUNNING, remote_id=f"r{version}")
                assert await write(ledger, moved, expected) is None
                assert await ledger.get("intent-1") == moved
            assert await ids(ledger) == ["intent-1"]

    @pytest.mark.parametrize("expected", [0, 1, 3, 99])
    async def test_a_conflict_leaves_the_row(
        self, ledger_factory: LedgerFactory, expected: int
    ) -> None:
        """A write that expects another version than the stored one changes nothing."""
        stored = make_record(version=2, last_error="stored")
        async with opened(ledger_factory) as ledger:
            await write(ledger, stored, 0)
            late = make_record(version=100, last_error="late")
            assert await write(ledger, late, expected) is Refusal.CONFLICT
            assert await ledger.get("intent-1") == stored

    async def test_a_row_that_is_not_there_is_a_conflict(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """A write that expects a row where there is none is refused, and makes none."""
        async with opened(ledger_factory) as ledger:
            assert await write(ledger, make_record(version=2), 1) is Refusal.CONFLICT
            assert await ledger.get("intent-1") is None
            assert await ids(ledger) == []

    async def test_a_finished_row_is_not_unfinished(self, ledger_factory: LedgerFactory) -> None:
        """A finished row leaves unfinished; get may forget it, but tells nothing else of it."""
        done = make_record(version=2, state=State.CANCELLED, finished_at=5.0)
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record(), 0)
            await write(ledger, make_record("intent-2"), 0)
            assert await write(ledger, done, 1) is None
            assert await ids(ledger) == ["intent-2"]
            assert await ledger.get("intent-1") in (None, done)
            assert await write(ledger, make_record(version=3), 1) is Refusal.CONFLICT
            assert await ids(ledger) == ["intent-2"]

    async def test_a_row_can_be_finished_from_the_start(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """A row that was begun and finished before it was ever written is taken as it is."""
        done = make_record(version=4, state=State.NEVER_CREATED, finished_at=5.0)
        async with opened(ledger_factory) as ledger:
            assert await write(ledger, done, 0) is None
            assert await ids(ledger) == []

    # --- writes that are repeated -------------------------------------------------------------

    async def test_a_repeated_write_changes_nothing(self, ledger_factory: LedgerFactory) -> None:
        """A write that was done already is answered as if it had been done now.

        Whoever was told of a failure after the commit may write again what it knows to be right.
        """
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            row = make_record(key="k")
            for version, expected in (1, 0), (2, 1), (7, 2):
                row = _but(row, version=version, attempts=version)
                for handle in ledger, ledger, other:
                    assert await write(handle, row, expected) is None
                    assert list(await other.unfinished("default")) == [row]
            assert await ledger.holder("default", "k") == row
            pair = [Write(make_record("b", key="l"), 0)] * 2
            assert list(await ledger.commit(pair)) == [None, None]

    async def test_a_repeat_that_comes_too_late_is_a_conflict(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """A write that was done before somebody went on from there is not done again."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            first, second = make_record(), make_record(version=2, state=State.CREATING)
            taken = make_record(version=3, state=State.UNKNOWN, owner_id="owner-2")
            await write(ledger, first, 0)
            await write(ledger, second, 1)
            assert await write(ledger, first, 0) is Refusal.CONFLICT
            await write(other, taken, 2)
            assert await write(ledger, second, 1) is Refusal.CONFLICT
            assert await ledger.get("intent-1") == taken

    async def test_only_the_same_is_a_repeat(self, ledger_factory: LedgerFactory) -> None:
        """A write that differs from the stored row in any one field is a conflict."""
        stored = make_record(version=2, owner_id="owner-0")
        async with opened(ledger_factory) as ledger:
            await write(ledger, stored, 0)
            for field in msgspec.structs.fields(Record):
                if field.name != "intent_id":
                    differs = _but(stored, **{field.name: getattr(FULL_RECORD, field.name)})
                    assert differs != stored
                    assert await write(ledger, differs, 1) is Refusal.CONFLICT
            assert await ledger.unfinished() == [stored]

    async def test_a_repeated_end_ends_nothing_else(self, ledger_factory: LedgerFactory) -> None:
        """A finish that is repeated is none, or a conflict where the row is forgotten by then.

        It takes nothing from the row that has the key by then.
        """
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record("a", key="k"), 0)
            done = make_record("a", key="k", version=2, state=State.FAILED, finished_at=1.0)
            assert await write(ledger, done, 1) is None
            assert await write(ledger, done, 1) in (None, Refusal.CONFLICT)
            heir = make_record("b", key="k")
            await write(ledger, heir, 0)
            assert await write(ledger, done, 1) in (None, Refusal.CONFLICT)
            assert await ledger.holder("default", "k") == heir
            assert await ids(ledger) == ["b"]

    # --- batches ------------------------------------------------------------------------------

    async def test_an_empty_batch_is_nothing(self, ledger_factory: LedgerFactory) -> None:
        """A batch without writes has no results."""
        async with opened(ledger_factory) as ledger:
            assert list(await ledger.commit([])) == []

    async def test_a_refusal_hinders_no_other(self, ledger_factory: LedgerFactory) -> None:
        """In a batch each write has its own result, and only the refused ones are not done."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record("b", key="k"), 0)
            refusals = await ledger.commit(
                [
                    Write(make_record("a"), 0),
                    Write(make_record("b", version=9), 5),
                    Write(make_record("c", key="k"), 0),
                    Write(make_record("d"), 0),
                ]
            )
            assert list(refusals) == [None, Refusal.CONFLICT, Refusal.DUPLICATE_KEY, None]
            assert await ids(ledger) == ["a", "b", "d"]
            assert await ledger.get("b") == make_record("b", key="k")

    async def test_the_writes_of_a_batch_are_done_in_order(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """A later write of a batch sees what an earlier one did, of the row and of the key."""
        async with opened(ledger_factory) as ledger:
            refusals = await ledger.commit(
                [
                    Write(make_record("a", key="k"), 0),
                    Write(make_record("a", key="k", version=2), 1),
                    Write(make_record("b", key="k"), 0),
                    Write(make_record("a", key="k", version=3, finished_at=1.0), 2),
                    Write(make_record("b", key="k"), 0),
                    Write(make_record("a", key="k", version=3), 2),
                ]
            )
            duplicate, conflict = Refusal.DUPLICATE_KEY, Refusal.CONFLICT
            assert list(refusals) == [None, None, duplicate, None, None, conflict]
            assert await ids(ledger) == ["b"]

    async def test_a_batch_may_be_large(self, ledger_factory: LedgerFactory) -> None:
        """Ten thousand writes of one batch are all done, and so are their successors."""
        names = [f"intent-{number:05}" for number in range(10_000)]
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            rows = [make_record(name, version=1) for name in names]
            assert list(await ledger.commit([Write(row, 0) for row in rows])) == [None] * 10_000
            assert await ids(other) == names
            rows = [make_record(name, version=2, state=State.CANCELLING) for name in names]
            assert list(await ledger.commit([Write(row, 1) for row in rows])) == [None] * 10_000
            assert sorted(await other.unfinished("default"), key=lambda row: row.intent_id) == rows

    async def test_commits_may_overlap(self, ledger_factory: LedgerFactory) -> None:
        """Commits that are under way at once through one handle are all done."""
        async with opened(ledger_factory) as ledger:
            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(write, ledger, make_record(f"{number:02}"), 0)
            assert await ids(ledger) == [f"{number:02}" for number in range(100)]

    # --- namespaces and keys ------------------------------------------------------------------

    async def test_a_namespace_has_its_own_rows(self, ledger_factory: LedgerFactory) -> None:
        """Unfinished gives the rows of one namespace, whoever owns them, and get those of all."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record("a", namespace="x"), 0)
            await write(ledger, make_record("b", namespace="y"), 0)
            await write(ledger, make_record("c", namespace="x", owner_id="owner-9"), 0)
            assert await ids(ledger, "x") == ["a", "c"]
            assert await ids(ledger, "y") == ["b"]
            assert await ids(ledger, "z") == []
            assert await ledger.get("b") == make_record("b", namespace="y")

    async def test_a_key_has_one_unfinished_row(self, ledger_factory: LedgerFactory) -> None:
        """A second unfinished row with the key is refused, from another handle too."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            assert await write(ledger, make_record("a", key="k"), 0) is None
            for handle in ledger, other:
                refusal = await write(handle, make_record("b", key="k"), 0)
                assert refusal is Refusal.DUPLICATE_KEY
            assert await ledger.get("b") is None
            assert await ids(other) == ["a"]

    async def test_the_holder_of_a_key_moves_on(self, ledger_factory: LedgerFactory) -> None:
        """A row does not stand in its own way."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record("a", key="k"), 0)
            assert await write(ledger, make_record("a", key="k", version=2), 1) is None
            assert await write(ledger, make_record("b", key="k"), 0) is Refusal.DUPLICATE_KEY

    async def test_a_key_is_free_after_its_row_finished(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """A finished row gives its key back, again and again."""
        async with opened(ledger_factory) as ledger:
            for name in "abc":
                assert await write(ledger, make_record(name, key="k"), 0) is None
                done = make_record(name, key="k", version=2, finished_at=1.0)
                assert await write(ledger, done, 1) is None

    async def test_a_key_belongs_to_its_namespace(self, ledger_factory: LedgerFactory) -> None:
        """The same key can be held in two namespaces; rows without a key are never in the way."""
        async with opened(ledger_factory) as ledger:
            assert await write(ledger, make_record("a", key="k", namespace="x"), 0) is None
            assert await write(ledger, make_record("b", key="k", namespace="y"), 0) is None
            assert await write(ledger, make_record("c", namespace="x"), 0) is None
            assert await write(ledger, make_record("d", namespace="x"), 0) is None

    # --- several handles ----------------------------------------------------------------------

    async def test_handles_see_each_others_rows(self, ledger_factory: LedgerFactory) -> None:
        """What one handle committed another reads at once, and can move on."""
        async with opened(ledger_factory) as one, opened(ledger_factory, "owner-2") as two:
            await write(one, make_record(), 0)
            assert await two.get("intent-1") == make_record()
            taken = make_record(version=2, owner_id="owner-2")
            assert await write(two, taken, 1) is None
            assert await one.get("intent-1") == taken

    async def test_one_of_two_wins_a_row(self, ledger_factory: LedgerFactory) -> None:
        """Of handles that take the same version of a row at once exactly one gets it."""
        async with opened(ledger_factory) as one, opened(ledger_factory, "owner-2") as two:
            for number in range(20):
                orphan = make_record(f"{number}", owner_id="dead")
                await write(one, orphan, 0)
                refusals = await _race({"owner-1": one, "owner-2": two}, orphan)
                [winner] = [owner for owner, refusal in refusals.items() if refusal is None]
                assert set(refusals.values()) == {None, Refusal.CONFLICT}
                assert await one.get(orphan.intent_id) == _but(orphan, version=2, owner_id=winner)

    async def test_rows_outlive_their_handle(self, ledger_factory: LedgerFactory) -> None:
        """Closing a handle takes no row away while the store has another."""
        async with opened(ledger_factory, "owner-2") as stays:
            async with opened(ledger_factory) as ledger:
                await write(ledger, make_record(), 0)
            assert await stays.unfinished("default") == [make_record()]


async def _race(handles: dict[str, Ledger], orphan: Record) -> dict[str, Refusal | None]:
    """Let every handle take the row for its owner, all at once."""
    refusals: dict[str, Refusal | None] = {}

    async def take(owner: str, ledger: Ledger) -> None:
        taken = _but(orphan, version=orphan.version + 1, owner_id=owner)
        refusals[owner] = await write(ledger, taken, orphan.version)

    async with anyio.create_task_group() as group:
        for owner, ledger in handles.items():
            group.start_soon(take, owner, ledger)
    return refusals
