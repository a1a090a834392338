"""Rows as SQLite keeps them: what is written once more, what changes, and what no text can hold."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import CorruptRows, Refusal, SqliteLedger, Write, statements
from sigmic_guard.ledger.schema import COLUMNS, FIXED, migrate
from sigmic_guard.lifecycle import Record, State, TaskPolicy
from sigmic_guard.testing.ledger_handles import ids, opened, write
from sigmic_guard.testing.records import FULL_RECORD, make_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sigmic_guard.ledger import Ledger

_but = msgspec.structs.replace
DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    async with opened(lambda: SqliteLedger(path)) as ledger:
        yield ledger


def administer(path: Path, statement: str, *parameters: Any) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        return shell.execute(statement, parameters).fetchall()


def test_a_row_has_the_fields_of_a_record() -> None:
    """Whoever adds a field to the record has to migrate the table."""
    assert Record.__struct_fields__ == COLUMNS
    assert set(COLUMNS) > FIXED


# --- twice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
async def test_a_batch_that_is_repeated_was_done(ledger: Ledger, size: int) -> None:
    """A commit that was interrupted can be repeated, whether it had been done or not."""
    inserts = [Write(_but(FULL_RECORD, intent_id=f"{i}", key=f"{i}"), 0) for i in range(size)]
    for _ in range(2):
        assert list(await ledger.commit(inserts)) == [None] * size
    updates = [
        Write(_but(row, version=row.version + 1, last_error="x"), row.version) for row, _ in inserts
    ]
    for _ in range(2):
        assert list(await ledger.commit(updates)) == [None] * size
    assert list(await ledger.commit(inserts)) == [Refusal.CONFLICT] * size
    mixed = [*updates, Write(make_record("new"), 0)]
    assert list(await ledger.commit(mixed)) == [None] * (size + 1)


async def test_a_batch_is_done_in_its_order(ledger: Ledger) -> None:
    """A write does not see what comes after it in its batch."""
    late, first = Write(make_record(version=2), 1), Write(make_record(), 0)
    assert list(await ledger.commit([late, first])) == [Refusal.CONFLICT, None]
    assert await ledger.get("intent-1") == first.record


async def test_only_the_very_same_row_was_done(ledger: Ledger) -> None:
    """A write that differs in any column from the stored row is a conflict."""
    row = make_record(version=2)
    await write(ledger, row, 0)
    for change in (
        {"owner_id": "owner-2"},
        {"last_error": ""},
        {"policy": TaskPolicy(timeout=1.0)},
        {"deadline_at": 0.0},
        {"key": "k"},
    ):
        assert await write(ledger, _but(row, **change), 1) is Refusal.CONFLICT
    assert await ledger.get("intent-1") == row


async def test_what_a_task_keeps_for_life_is_not_written_again(ledger: Ledger) -> None:
    """A write changes the columns that can change, and no other."""
    before = make_record(key="k")
    await write(ledger, before, 0)
    await write(ledger, _but(FULL_RECORD, version=2), 1)
    after = await ledger.get("intent-1")
    assert after is not None
    for name in COLUMNS:
        source = before if name in FIXED else _but(FULL_RECORD, version=2)
        assert getattr(after, name) == getattr(source, name)


# --- text -----------------------------------------------------------------------------------------


async def test_half_a_character_hinders_nobody(ledger: Ledger) -> None:
    """Text that no UTF-8 can hold is written out, in its row and in no other of the batch."""
    odd = make_record(
        "a", last_error="\ud83d ü", key="\udc80", namespace="n\ud800", remote_id="\ud801"
    )
    plain = make_record("b", last_error="\\ud83d ü", key="k")
    assert list(await ledger.commit([Write(odd, 0), Write(plain, 0)])) == [None, None]
    stored = await ledger.get("a")
    assert stored is not None
    assert stored.last_error == "\\ud83d ü"
    assert await ledger.get("b") == plain
    assert await ledger.holder("n\ud800", "\udc80") == stored
    assert await ledger.find("\ud801") == [stored]
    assert await ledger.unfinished("n\ud800") == [stored]
    assert await ledger.owners("n\ud800") == {"owner-1"}
    assert await ledger.get("\ud800") is None
    assert await write(ledger, odd, 0) is None  # as before
    assert await write(ledger, _but(odd, version=2), 1) is None


async def test_a_nul_is_a_character(ledger: Ledger) -> None:
    """Text does not end at a NUL."""
    rows = [make_record(f"i\x00{c}", key=f"k\x00{c}", owner_id=f"o\x00{c}") for c in "ab"]
    await ledger.commit([Write(row, 0) for row in rows])
    assert await ledger.get("i\x00b") == rows[1]
    assert await ledger.holder("default", "k\x00a") == rows[0]
    assert await ledger.owners("default") == {"o\x00a", "o\x00b"}
    assert await ledger.unfinished(owner_id="o\x00a") == [rows[0]]


async def test_a_number_that_is_too_large_is_an_error(ledger: Ledger) -> None:
    """What no column can hold is a LedgerError, and nothing of its batch is written."""
    with pytest.raises(LedgerError, match="too large"):
        await ledger.commit([Write(make_record("a"), 0), Write(make_record("b", version=2**63), 0)])
    assert await ids(ledger) == []
    assert await write(ledger, make_record("b", version=2**63 - 1), 0) is None


async def test_a_time_that_is_none_is_an_error(ledger: Ledger) -> None:
    """A created_at that is no number is a LedgerError, not a refusal."""
    with pytest.raises(LedgerError, match="NOT NULL"):
        await write(ledger, make_record(created_at=float("nan")), 0)
    await write(ledger, make_record(), 0)


# --- other versions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", ['{"timeout": 3.5, "on_sunday": "rest"}', '{"timeout":3.5}', ' {"timeout": 3.5}']
)
async def test_a_policy_of_another_version_is_read(ledger: Ledger, path: Path, policy: str) -> None:
    """Fields of a policy that are not known are left out, and those that lack have the default."""
    await write(ledger, make_record(), 0)
    administer(path, "UPDATE tasks SET policy=?", policy)
    assert await ledger.get("intent-1") == make_record(policy=TaskPolicy(timeout=3.5))


@pytest.mark.parametrize(
    "column, value",
    [
        ("state", "sleeping"),
        ("reason", "boredom"),
        ("policy", "{"),
        ("policy", '{"timeout": "long"}'),
        ("policy", '{"on_crash": "pray"}'),
        ("policy", '{"cancel_wait": -1}'),
        ("attempts", "many"),
        ("deadline_at", "soon"),
        ("last_error", b"\xff"),
    ],
)
async def test_a_row_without_sense_is_named(
    ledger: Ledger, path: Path, column: str, value: object
) -> None:
    """A row that cannot be read is a LedgerError, and hinders no other."""
    await ledger.commit([Write(make_record("good"), 0), Write(make_record("bad"), 0)])
    administer(path, f"UPDATE tasks SET {column}=CAST(? AS TEXT) WHERE intent_id='bad'", value)
    with pytest.raises(LedgerError):
        await ledger.get("bad")
    assert await ledger.get("good") == make_record("good")
    assert await write(ledger, make_record("good", version=2), 1) is None


async def test_readable_rows_come_with_the_error(ledger: Ledger, path: Path) -> None:
    """Whoever reads many rows is told of all that are corrupt, and has the others."""
    await ledger.commit([Write(make_record(f"{number}"), 0) for number in range(9)])
    for number in 2, 3, 5, 7:
        administer(path, "UPDATE tasks SET state='sleeping' WHERE intent_id=?", f"{number}")
    with pytest.raises(CorruptRows, match=r"'2' .*'5' .* and 1 more") as caught:
        await ledger.unfinished()
    assert [row.intent_id for row in caught.value.readable] == ["0", "1", "4", "6", "8"]
    assert list(caught.value.corrupt) == ["2", "3", "5", "7"]


# --- old rows -------------------------------------------------------------------------------------


async def test_old_rows_go(path: Path) -> None:
    """Rows that finished longer ago than they are kept go, in portions; others never do."""
    old, now = 1_000_000.0, 1_000_000.0 + 10 * DAY
    count = 2 * statements.PORTION + 7
    async with opened(lambda: SqliteLedger(path, keep=3 * DAY)) as ledger:
        rows = [make_record(f"old-{i}", finished_at=old + i) for i in range(count)]
        rows += [make_record("young", finished_at=now - 2 * DAY), make_record("open")]
        await ledger.commit([Write(row, 0) for row in rows])
        await ledger.upkeep(old + 2 * DAY)
        assert administer(path, "SELECT count(*) FROM tasks") == [(count + 2,)]
        await ledger.upkeep(now)
        left = administer(path, "SELECT intent_id FROM tasks ORDER BY 1")
        assert left == [("open",), ("young",)]


async def test_rows_of_proven_absences_stay_longer(path: Path) -> None:
    """A task that appears all the same is told by them, however short the others are kept."""
    now = 10 * DAY
    gone = make_record(state=State.NEVER_CREATED, lost_at=1.0, finished_at=now)
    async with opened(lambda: SqliteLedger(path, keep=0)) as ledger:
        rows = [gone, _but(gone, intent_id="refused", lost_at=None)]
        await ledger.commit([Write(row, 0) for row in rows])
        await ledger.upkeep(now + 3 * 3600 - 1)
        assert administer(path, "SELECT intent_id FROM tasks") == [(gone.intent_id,)]
        await ledger.upkeep(now + 3 * 3600 + 1)
        assert not administer(path, "SELECT intent_id FROM tasks")


async def test_commits_come_between_the_portions(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call deletes a bounded number of rows, so that a ledger long neglected does not halt."""
    monkeypatch.setattr("sigmic_guard.ledger.sqlite.PORTIONS", 2)
    async with opened(lambda: SqliteLedger(path)) as ledger:
        rows = [make_record(f"{i}", finished_at=1.0) for i in range(2 * statements.PORTION + 5)]
        await ledger.commit([Write(row, 0) for row in rows])
        for left in 5, 0:
            await ledger.upkeep(100 * DAY)
            assert administer(path, "SELECT count(*) FROM tasks") == [(left,)]


def test_every_read_has_an_index() -> None:
    """No question but `find` looks at all rows, whatever the ledger has seen in a week."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate(database, ":memory:")
        asked: list[str] = []
        database.set_trace_callback(asked.append)
        statements.get(database, "x")
        statements.holder(database, "x", "y")
        statements.absent(database, "x", 1.0)
        for namespace in None, "x":
            for owner_id in None, "y":
                for remote_id in None, "z":
                    statements.unfinished(database, namespace, owner_id, remote_id)
            statements.owners(database, namespace)
        statements.prune(database, 0.0, 0.0)
        database.set_trace_callback(None)
        questions = [sql for sql in asked if sql.startswith(("SELECT", "DELETE"))]
        plans = [
            step
            for sql in questions
            for *_, step in database.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        ]
    assert len(plans) >= len(questions) >= 11
    assert not [step for step in plans if "SCAN" in step and "tasks_unfinished" not in step]


async def test_rows_share_their_policies(ledger: Ledger) -> None:
    """Many rows of one policy take the memory of one."""
    await ledger.commit([Write(make_record(f"{i}", policy=TaskPolicy()), 0) for i in range(2)])
    one, two = await ledger.unfinished()
    assert one.policy is two.policy
