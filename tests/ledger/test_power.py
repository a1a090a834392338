"""When the power goes, no row is lost that was acknowledged, and the file is sound.

The ledger's own statements and pragmas run on the disk of ``power.py``. Its log is cut at every
entry, and the ledger opened again on what is left, in several ways each.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from sigmic_guard.ledger import Write, statements
from sigmic_guard.ledger.connection import prepare
from sigmic_guard.lifecycle import Record, State
from sigmic_guard.testing.records import make_record
from tests.ledger.power import Acknowledged, Disk, Durable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ledger.power import Luck

PATH: Final = "/ledger.db"

#: The rows of a ledger, by intent id.
Rows = dict[str, Record]


def lives() -> list[list[Write]]:
    """Return the batches in which some tasks are begun and ended."""
    batches: list[list[Write]] = []
    for size in (1, 2, 30, 1, 5):
        names = [f"intent-{len(batches)}-{number}" for number in range(size)]
        for version, state in enumerate(
            (State.INTENT, State.CREATING, State.RUNNING, State.CANCELLED), 1
        ):
            finished_at = 5.0 if state is State.CANCELLED else None
            fields = {"version": version, "state": state, "finished_at": finished_at}
            rows = [make_record(name, key=name, **fields) for name in names]
            batches.append([Write(row, version - 1) for row in rows])
    return batches


def write(disk: Disk, batches: list[list[Write]], *pragmas: str) -> None:
    """Make a ledger and commit the batches, each of which is acknowledged by its number."""
    connection = disk.connect(PATH)
    prepare(connection, PATH)
    for pragma in ("wal_autocheckpoint=12", *pragmas):  # many checkpoints, many new beginnings
        connection.execute(f"PRAGMA {pragma}")
    for number, batch in enumerate(batches, 1):
        assert not any(statements.commit(connection, batch))
        disk.acknowledge(number)
    connection.close()


def read(disk: Disk, files: dict[str, bytes]) -> Rows:
    """Open the ledger on what the power left, as a new process does, and return its rows."""
    disk.files = {name: bytearray(content) for name, content in files.items()}
    connection = disk.connect(PATH)
    try:
        prepare(connection, PATH)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ids = connection.execute("SELECT intent_id FROM tasks").fetchall()
        rows = [statements.get(connection, intent_id) for (intent_id,) in ids]
    finally:
        connection.close()
    return {row.intent_id: row for row in rows if row is not None}


def ways(rng: random.Random) -> Iterator[Luck]:
    """Nothing of what is uncertain is there, or all, or some, or what came first."""
    yield lambda: False
    yield lambda: True
    yield lambda: rng.random() < 0.1
    yield lambda: rng.random() < 0.5
    yield lambda: rng.random() < 0.9
    first = iter(range(rng.randrange(40)))
    yield lambda: next(first, None) is not None


def lost_batches(*pragmas: str) -> list[int]:
    """Cut the power everywhere; return how many acknowledged batches were lost, for each cut.

    Fails where a ledger is found that never was: damaged, or with half of a batch.
    """
    batches, disk, rng = lives(), Disk("power"), random.Random(7)
    states: list[Rows] = [{}]
    for batch in batches:
        states.append(states[-1] | {record.intent_id: record for record, _ in batch})
    write(disk, batches, *pragmas)

    durable, acknowledged, lost = Durable({PATH: b""}), 0, []
    log, disk.log = disk.log, []
    assert len(log) > 200
    for happened in log:
        if isinstance(happened, Acknowledged):
            acknowledged = happened.what
        durable.add(happened)
        for luck in ways(rng):
            found = states.index(read(disk, durable.after_power_loss(luck)))
            assert found <= acknowledged + 1
            lost.append(max(0, acknowledged - found))
    assert acknowledged == len(batches)
    disk.unregister()
    return lost


def test_a_power_cut_takes_nothing_that_was_acknowledged() -> None:
    """Wherever the power goes, every acknowledged batch is there, and each other whole or not."""
    assert sum(lost_batches()) == 0


def test_the_disk_takes_what_was_not_synced() -> None:
    """The negative control: with synchronous=NORMAL acknowledged batches are lost."""
    lost = lost_batches("synchronous=NORMAL")
    assert max(lost) > 1
    assert sum(map(bool, lost)) > len(lost) / 10
