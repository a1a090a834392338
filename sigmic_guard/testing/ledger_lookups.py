"""The part of the ledgers' conformance suite that is about questions: who is there, and where."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from sigmic_guard.ledger import Refusal, Write
from sigmic_guard.lifecycle import State
from sigmic_guard.testing.ledger_handles import ids, opened, write
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.testing.ledger_handles import LedgerFactory

_but = msgspec.structs.replace


def by_id(rows: Sequence[Record]) -> list[Record]:
    """Sort rows: a ledger may give them in any order."""
    return sorted(rows, key=lambda row: row.intent_id)


class LookupTests:
    """What ``find``, ``holder``, ``unfinished``, ``owners`` and ``absent`` have to return."""

    # --- find ---------------------------------------------------------------------------------

    async def test_a_row_is_found_by_either_id(self, ledger_factory: LedgerFactory) -> None:
        """Find gives a row of any namespace by its intent id and by its remote id, as it stands."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            row = make_record(namespace="x")
            await write(ledger, row, 0)
            assert list(await other.find("intent-1")) == [row]
            assert list(await other.find("r1")) == []
            row = _but(row, version=2, state=State.RUNNING, remote_id="r1")
            await write(ledger, row, 1)
            await write(ledger, make_record("intent-2"), 0)
            for identifier in "intent-1", "r1":
                assert list(await other.find(identifier)) == [row]

    async def test_all_rows_with_an_id_are_found(self, ledger_factory: LedgerFactory) -> None:
        """Find gives every row that has the id, in either place, and each of them once."""
        rows = [
            make_record("a", namespace="x", state=State.RUNNING, remote_id="r"),
            make_record("b", namespace="y", state=State.RUNNING, remote_id="r"),
            make_record("r", namespace="z", state=State.RUNNING, remote_id="r"),
        ]
        async with opened(ledger_factory) as ledger:
            await ledger.commit([Write(row, 0) for row in rows])
            assert by_id(await ledger.find("r")) == rows

    async def test_only_whole_ids_are_found(self, ledger_factory: LedgerFactory) -> None:
        """Find takes an id by the letter: no part of it, no pattern, no other case."""
        async with opened(ledger_factory) as ledger:
            await write(ledger, make_record(state=State.RUNNING, remote_id="r1"), 0)
            await write(ledger, make_record("intent-2"), 0)
            for nothing in "", "r", "R1", "r1 ", "%", "_1", "r*", "intent", "Intent-1", "None":
                assert list(await ledger.find(nothing)) == []

    async def test_a_finished_row_is_found_or_forgotten(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """Find may know a finished row, and then as it ended."""
        async with opened(ledger_factory) as ledger:
            row = make_record(state=State.RUNNING, remote_id="r1")
            await write(ledger, row, 0)
            done = _but(row, version=2, state=State.FAILED, finished_at=5.0)
            await write(ledger, done, 1)
            for identifier in "intent-1", "r1":
                assert list(await ledger.find(identifier)) in ([], [done])

    # --- holder -------------------------------------------------------------------------------

    async def test_the_holder_of_a_key_is_its_unfinished_row(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """Holder gives the row as it stands, to every handle; a refused one never held the key."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            assert await other.holder("default", "k") is None
            row = make_record("a", key="k")
            await write(ledger, row, 0)
            assert await other.holder("default", "k") == row
            assert await write(other, make_record("b", key="k"), 0) is Refusal.DUPLICATE_KEY
            row = _but(row, version=2, state=State.CREATING)
            await write(ledger, row, 1)
            for handle in ledger, other:
                assert await handle.holder("default", "k") == row

    async def test_a_finished_row_holds_no_key(self, ledger_factory: LedgerFactory) -> None:
        """Nobody holds the key when its row finished, until the next row has it."""
        async with opened(ledger_factory) as ledger:
            for name in "ab":
                row = make_record(name, key="k")
                await write(ledger, row, 0)
                assert await ledger.holder("default", "k") == row
                await write(ledger, _but(row, version=2, finished_at=1.0), 1)
                assert await ledger.holder("default", "k") is None

    async def test_keys_are_data(self, ledger_factory: LedgerFactory) -> None:
        """Keys that resemble each other, and the same key elsewhere, have holders of their own."""
        keys = ["k", "K", "k ", "kk", "%", "_", "k'--", "ké", "ke\N{COMBINING ACUTE ACCENT}"]
        slots = list(itertools.product(["x", "X", "x y"], keys))
        rows = [
            make_record(f"intent-{number:02}", namespace=namespace, key=key)
            for number, (namespace, key) in enumerate(slots)
        ]
        async with opened(ledger_factory) as ledger:
            assert set(await ledger.commit([Write(row, 0) for row in rows])) == {None}
            await write(ledger, make_record("without"), 0)
            assert [await ledger.holder(*slot) for slot in slots] == rows
            for nobody in ("x", "none"), ("y", "k"), ("", "k"), ("x", ""), ("default", "k"):
                assert await ledger.holder(*nobody) is None

    # --- unfinished and owners ----------------------------------------------------------------

    async def test_unfinished_rows_are_chosen_by_namespace_and_owner(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """Unfinished gives all rows, or those of a namespace, of an owner, or of both."""
        async with opened(ledger_factory) as ledger:
            for namespace, owner_id in itertools.product("xy", "pq"):
                name = namespace + owner_id
                row = make_record(name, namespace=namespace, owner_id=owner_id)
                await write(ledger, row, 0)
            done = make_record("done", namespace="x", owner_id="p", finished_at=1.0)
            await write(ledger, done, 0)
            assert await ids(ledger, None) == ["xp", "xq", "yp", "yq"]
            assert await ids(ledger, "x") == ["xp", "xq"]
            assert await ids(ledger, None, owner_id="q") == ["xq", "yq"]
            assert await ids(ledger, "y", owner_id="p") == ["yp"]
            assert await ids(ledger, "") == await ids(ledger, None, owner_id="") == []
            assert await ids(ledger, "x", owner_id="r") == []

    async def test_unfinished_rows_are_chosen_by_the_remote_task(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """Unfinished gives the rows of one remote task: those who adopted it have their own."""
        async with opened(ledger_factory) as ledger:
            for name, remote_id in {"a": "one", "b": "two", "c": "one", "d": None}.items():
                await write(ledger, make_record(name, remote_id=remote_id), 0)
            done = make_record("done", remote_id="one", finished_at=1.0)
            await write(ledger, done, 0)
            rows = await ledger.unfinished(remote_id="one")
            assert sorted(row.intent_id for row in rows) == ["a", "c"]
            assert list(await ledger.unfinished("elsewhere", remote_id="one")) == []
            assert await ids(ledger, "z", owner_id="p") == []

    async def test_the_owners_are_those_of_unfinished_rows(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """Owners gives everybody who owns an unfinished row once, dead or alive, and nobody else.

        Who is announced without owning a row is not among them.
        """
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "idle"):
            assert list(await ledger.owners()) == []
            for number, (namespace, owner) in enumerate(
                [("x", "owner-1"), ("x", "owner-1"), ("x", "dead"), ("y", "dead"), ("y", "late")]
            ):
                row = make_record(f"{number}", namespace=namespace, owner_id=owner)
                await write(ledger, row, 0)
            done = make_record("done", namespace="x", owner_id="done", finished_at=1.0)
            await write(ledger, done, 0)
            assert sorted(await ledger.owners()) == ["dead", "late", "owner-1"]
            assert sorted(await ledger.owners("x")) == ["dead", "owner-1"]
            assert sorted(await ledger.owners("y")) == ["dead", "late"]
            assert list(await ledger.owners("z")) == []

    async def test_who_owns_nothing_any_more_is_no_owner(
        self, ledger_factory: LedgerFactory
    ) -> None:
        """An owner leaves owners with its last unfinished row, taken over or finished."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            await write(ledger, make_record("a"), 0)
            await write(ledger, make_record("b"), 0)
            await write(other, make_record("a", version=2, owner_id="owner-2"), 1)
            assert sorted(await ledger.owners()) == ["owner-1", "owner-2"]
            await write(ledger, make_record("b", version=2, finished_at=1.0), 1)
            assert list(await ledger.owners()) == ["owner-2"]

    # --- absent -------------------------------------------------------------------------------

    async def test_a_proven_absence_is_told(self, ledger_factory: LedgerFactory) -> None:
        """Absent gives the lost creates that were proven absent since, to every handle."""
        async with opened(ledger_factory) as ledger, opened(ledger_factory, "owner-2") as other:
            lost = make_record("a", state=State.UNKNOWN, lost_at=900.0)
            await write(ledger, lost, 0)
            first = _but(lost, version=2, state=State.NEVER_CREATED, finished_at=1000.0)
            second = _but(first, intent_id="b", finished_at=1010.0)
            await write(ledger, first, 1)
            await write(ledger, second, 0)  # whose steps became one write
            for since, rows in (0.0, [first, second]), (1000.0, [first, second]):
                assert by_id(await other.absent("default", since)) == rows
            assert list(await other.absent("default", 1000.5)) == [second]
            assert list(await other.absent("default", 1010.5)) == []

    async def test_only_lost_creates_are_absent(self, ledger_factory: LedgerFactory) -> None:
        """Absent gives no refused create, none that was found after all, none that is sought."""
        gone = make_record("gone", state=State.NEVER_CREATED, lost_at=900.0, finished_at=1000.0)
        async with opened(ledger_factory) as ledger:
            rows = [
                gone,
                _but(gone, intent_id="refused", lost_at=None),
                _but(gone, intent_id="found", state=State.CANCELLED, remote_id="r1"),
                _but(gone, intent_id="sought", state=State.UNKNOWN, finished_at=None),
                _but(gone, intent_id="elsewhere", namespace="x"),
            ]
            await ledger.commit([Write(row, 0) for row in rows])
            assert list(await ledger.absent("default", 950.0)) == [gone]
            assert [row.intent_id for row in await ledger.absent("x", 950.0)] == ["elsewhere"]
            assert list(await ledger.absent("y", 950.0)) == []

    async def test_an_absence_outlives_the_next_upkeep(self, ledger_factory: LedgerFactory) -> None:
        """A row whose absence was proven a minute ago is not forgotten by upkeep."""
        gone = make_record("gone", state=State.NEVER_CREATED, lost_at=900.0, finished_at=1000.0)
        async with opened(ledger_factory) as ledger:
            await write(ledger, gone, 0)
            await ledger.upkeep(1060.0)
            assert list(await ledger.absent("default", 1000.0)) == [gone]
