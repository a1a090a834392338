"""``assert_no_orphans``: where it looks, and what it says."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import anyio
import pytest

from sigmic_guard import Supervisor
from sigmic_guard.emulator import Emulator, Script
from sigmic_guard.ledger import MemoryLedger, SqliteLedger, Write
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from sigmic_guard.testing import FakeSigmic, assert_no_orphans
from sigmic_guard.testing.records import make_record
from tests.backends import ASYNCIO, TRIO_VIRTUAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.testing.orphans import Place


def failure(*places: Place) -> str:
    with pytest.raises(AssertionError) as caught:
        assert_no_orphans(*places)
    return str(caught.value)


def test_a_fake_without_a_loop() -> None:
    """Its live tasks are named; ended ones are none."""
    fake = FakeSigmic()
    assert_no_orphans(fake)
    first, second, ended = fake.add("first"), fake.add("second"), fake.add("ended")
    fake.cancel(ended)
    assert failure(fake).splitlines() == [
        "2 remote tasks left unfinished:",
        f"  <Task {first} pending: 'first'>",  # as it was when it was made: there is no clock
        f"  <Task {second} pending: 'second'>",
    ]


async def test_an_emulator() -> None:
    """Also one that is closed by then."""
    async with Emulator(script=Script(hold=True)) as emulator:
        assert_no_orphans(emulator)
        async with SigmicClient("sigmic_test", emulator.url) as client:
            task_id = await client.create(CreateRequest(message="held"), timeout=5)
        assert f"<Task {task_id} running: 'held'>" in failure(emulator)
    assert "1 remote task left unfinished:" in failure(emulator)


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_a_supervisor() -> None:
    """A task that it ends is its task until that is over; one task of two places is named once."""
    fake = FakeSigmic()
    async with Supervisor(client=fake, ledger="memory:", registry=None) as supervisor:
        assert_no_orphans(supervisor, fake)
        task = await supervisor.start("x")
        assert f"<Task {task.id} running, supervised>" in failure(supervisor)
        assert failure(fake, supervisor).splitlines()[1:] == [f"  <Task {task.id} running: 'x'>"]
        await task.cancel()
        assert_no_orphans(supervisor, fake)
    assert_no_orphans(supervisor, fake)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_ledger(kind: str, tmp_path: Path) -> None:
    """A row that is not finished is named by its remote id, or else by its own."""
    path = tmp_path / "ledger.db"
    make: Callable[[], Ledger] = MemoryLedger if kind == "memory" else lambda: SqliteLedger(path)
    ledger = make()

    async def write(*writes: Write) -> None:
        await ledger.open("owner-1")
        await ledger.commit(writes)
        await ledger.aclose()

    place = ledger if isinstance(ledger, MemoryLedger) else path
    anyio.run(write, Write(make_record("a"), 0), Write(make_record("b", remote_id="remote"), 0))
    assert sorted(failure(place).splitlines()[1:]) == [
        "  <Task a intent, in the ledger>",
        "  <Task remote intent, in the ledger>",
    ]
    ledger = ledger if kind == "memory" else make()
    done = [make_record(name, version=2, finished_at=1.0) for name in "ab"]
    anyio.run(write, *(Write(record, 1) for record in done))
    assert_no_orphans(place)


def test_a_row_that_cannot_be_read_is_left_too(tmp_path: Path) -> None:
    """Nobody knows that it is finished."""
    path = tmp_path / "ledger.db"

    async def write() -> None:
        ledger = SqliteLedger(path)
        await ledger.open("owner-1")
        await ledger.commit([Write(make_record("a"), 0)])
        await ledger.aclose()

    anyio.run(write)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE tasks SET state = 'of tomorrow'")
    connection.close()
    assert "<Task a in a row that cannot be read: " in failure(path)


def test_what_there_is_nothing_to_see_in_is_refused(tmp_path: Path) -> None:
    """No silence where nothing was looked at."""
    with pytest.raises(TypeError, match="something to look at"):
        assert_no_orphans()
    with pytest.raises(TypeError, match="object"):
        assert_no_orphans(object())  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="ledger"):
        assert_no_orphans(tmp_path / "none.db")
