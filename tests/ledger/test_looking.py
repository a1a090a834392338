"""A ledger that is read in pages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from sigmic_guard.ledger import SqliteLedger, Write, looking, presence
from sigmic_guard.lifecycle import State
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from pathlib import Path

    from sigmic_guard.lifecycle import Record

pytestmark = pytest.mark.anyio

PAGE: Final = 10


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are of ten rows, and five owners are remembered."""
    monkeypatch.setattr(looking, "PAGE", PAGE)
    monkeypatch.setattr(looking, "MAX_OWNERS", 5)


def running(number: int, owner_id: str) -> Record:
    """Return a row that is the younger the greater its number is."""
    return make_record(
        f"{number:03}", state=State.RUNNING, created_at=1000.0 + number, owner_id=owner_id
    )


async def test_pages(tmp_path: Path) -> None:
    """Dead owners' rows come first, and the oldest of them; each row comes once."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    await ledger.open("living")
    try:
        rows = [running(n, f"dead-{n}" if n % 3 else "living") for n in range(60)]
        await ledger.commit([Write(row, 0) for row in reversed(rows)])
        async with looking.paged(ledger.path) as pages:
            assert pages is not None
            found = [page.readable async for page in pages]
    finally:
        await ledger.aclose()
    assert max(map(len, found)) <= PAGE
    told = [(row.alive, row.record.intent_id) for page in found for row in page]
    assert told == sorted((not n % 3, f"{n:03}") for n in range(60))


async def test_the_first_page_comes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more owners are looked at for a page than it has, however many there are."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    await ledger.open(uuid4().hex)
    await ledger.commit([Write(running(n, f"dead-{n}"), 0) for n in range(100)])
    await ledger.aclose()
    looked_at: list[str] = []

    def count(_: object, __: object, owner_id: str) -> bool:
        looked_at.append(owner_id)
        return False

    monkeypatch.setattr(presence, "is_alive", count)
    async with looking.paged(ledger.path) as pages:
        assert pages is not None
        page = await anext(pages)
    assert len(page.readable) == PAGE
    assert len(looked_at) == PAGE


async def test_what_changes_in_between(tmp_path: Path) -> None:
    """Nobody is locked out between two pages, and what was finished meanwhile is left out."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    await ledger.open("living")
    try:
        rows = [running(n, "living") for n in range(15)]
        await ledger.commit([Write(row, 0) for row in rows])
        async with looking.paged(ledger.path) as pages:
            assert pages is not None
            seen = [row.record.intent_id for row in (await anext(pages)).readable]
            gone = make_record(
                "012", state=State.CANCELLED, owner_id="living", finished_at=2000.0, version=2
            )
            assert await ledger.commit([Write(gone, 1), Write(running(99, "living"), 0)]) == [
                None,
                None,
            ]
            seen += [row.record.intent_id async for page in pages for row in page.readable]
    finally:
        await ledger.aclose()
    assert seen == [f"{n:03}" for n in range(15) if n != 12]


async def test_somebody_begins_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that this user may only read is read anew as soon as somebody has it open."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    await ledger.open(uuid4().hex)
    await ledger.commit([Write(running(n, "dead"), 0) for n in range(15)])
    await ledger.aclose()
    async with looking.paged(ledger.path) as pages:
        assert pages is not None
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda *_, **__: False)
            seen = [row.record.intent_id for row in (await anext(pages)).readable]
        await ledger.open("living")
        try:
            gone = make_record(
                "012", state=State.CANCELLED, owner_id="dead", finished_at=2000.0, version=2
            )
            assert await ledger.commit([Write(gone, 1)]) == [None]
            seen += [row.record.intent_id async for page in pages for row in page.readable]
        finally:
            await ledger.aclose()
    assert seen == [f"{n:03}" for n in range(15) if n != 12]
