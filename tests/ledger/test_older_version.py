"""A version that lacks the word of a state, beside one that writes it, on one file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anyio import fail_after

from sigmic_guard import ReapResult, Supervisor
from sigmic_guard.errors import DuplicateKey, LedgerError
from sigmic_guard.ledger import CorruptRows, SqliteLedger, Write, schema, statements
from sigmic_guard.lifecycle import Event, Record, State, TakeOver, step
from sigmic_guard.watchdog.reaping import survey
from tests.backends import ASYNCIO
from tests.supervisor.lab import Lab
from tests.supervisor.orphanage import row

pytestmark = pytest.mark.backends(ASYNCIO)

#: The states that the older version knows.
OldState = StrEnum("OldState", {s.name: s.value for s in State if s is not State.TAKEN_OVER})  # type: ignore[misc]
OldRecord = msgspec.defstruct("OldRecord", [("state", OldState)])


def read_as_the_older_version_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the newer version's rows read by somebody who knows fewer states.

    What it writes itself is in states of its own, and so none of that is looked at.
    """
    decode, owner = schema.decode, schema.COLUMNS.index("owner_id")

    def old(row: schema.Row) -> Record:
        try:
            if row[owner] == "dead":
                msgspec.convert({"state": row[schema.STATE]}, OldRecord)
        except msgspec.ValidationError as error:
            intent_id = str(row[schema.INTENT_ID])
            raise CorruptRows({intent_id: str(error)}) from error
        return decode(row)

    monkeypatch.setattr(schema, "decode", old)
    monkeypatch.setattr(statements, "decode", old)


async def leave(path: Path, *records: Record) -> None:
    """Write rows as somebody did who is dead by now."""
    ledger = SqliteLedger(path)
    await ledger.open("dead")
    assert not any(await ledger.commit([Write(record, 0) for record in records]))
    await ledger.aclose()


def taken_over(lab: Lab, **fields: Any) -> Record:
    """A row as this version leaves it, before anybody has looked at the task."""
    record = row(lab, "taken", **fields)
    return step(record, Event.TAKE_OVER, record.created_at, heir=TakeOver("dead", 5.0))


async def test_an_older_version_leaves_it_alone_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other rows are handled, nothing is sent for this one, and a newer version ends it."""
    lab, path = Lab(), tmp_path / "ledger.db"
    taken, other = taken_over(lab), row(lab, "other")
    await leave(path, taken, other)
    with monkeypatch.context() as older:
        read_as_the_older_version_does(older)
        async with lab.open(ledger=SqliteLedger(path), left=1) as supervisor:
            with fail_after(30):
                report = await supervisor.reap()
            assert list(report.corrupt) == ["taken"]
            assert "taken_over" in report.corrupt["taken"]
            [found] = report.reaped
            assert (found.id, found.result) == (other.remote_id, ReapResult.CANCELLED)
        assert lab.fake.live == {taken.remote_id}
        assert lab.deletes(taken.remote_id) == 0
        assert lab.fake.count("get", taken.remote_id) == 0
    async with lab.open(ledger=SqliteLedger(path)) as supervisor:
        with fail_after(30):
            report = await supervisor.reap()
        assert not report.corrupt
        [found] = report.reaped
        assert (found.id, found.result) == (taken.remote_id, ReapResult.CANCELLED)


async def test_the_commands_of_an_older_version_name_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be reaped is told, and that row apart from it."""
    lab, path = Lab(), tmp_path / "ledger.db"
    await leave(path, taken_over(lab), row(lab, "other"))
    monkeypatch.setenv("SIGMIC_API_KEY", "sigmic_key")
    with monkeypatch.context() as older:
        read_as_the_older_version_does(older)
        found, corrupt = await survey(str(path))
    assert [orphan.record.intent_id for orphan, _ in found] == ["other"]
    assert list(corrupt) == ["taken"]
    found, corrupt = await survey(str(path))
    assert {orphan.record.intent_id for orphan, _ in found} == {"other", "taken"}
    assert not corrupt


async def test_its_key_stays_taken_for_an_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot read who holds a key does not create a second task for it."""
    lab, path = Lab(), tmp_path / "ledger.db"
    await leave(path, taken_over(lab, key="k"))

    async def ask(supervisor: Supervisor) -> None:
        with fail_after(30), pytest.raises((LedgerError, DuplicateKey)):
            await supervisor.start("m", key="k")

    with monkeypatch.context() as older:
        read_as_the_older_version_does(older)
        async with lab.open(ledger=SqliteLedger(path), left=1) as supervisor:
            await ask(supervisor)
        assert lab.fake.count("create") == 0
    async with lab.open(ledger=SqliteLedger(path)) as supervisor:
        with fail_after(30):
            await supervisor.start("m", key="k")
