"""The owners' rows beside their lock files: what is left to know when a file is missing.

A missing file proves nothing while its row does not say that the owner left: whatever cleans up
folders may have taken it. Only another boot of the machine is proof then.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from sigmic_guard.ledger.owners import Sign, examine, sweep, touched_at
from sigmic_guard.ledger.statements import owners

if TYPE_CHECKING:
    from sigmic_guard.ledger.schema import Connection

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

#: Seconds by which the time of a file may differ from what was asked for.
_ROUNDING: Final = 0.01

_ARRIVE: Final = """
    INSERT INTO owners (owner_id, boot_id, pid, opened_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (owner_id) DO UPDATE SET boot_id=excluded.boot_id, pid=excluded.pid,
    opened_at=excluded.opened_at, seen_at=NULL, left_at=NULL, dead_at=NULL
"""
# The row is the owner's own, even if somebody took it for dead: the owner is here to say no.
_SEEN: Final = """
    INSERT INTO owners (owner_id, boot_id, pid, opened_at, seen_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (owner_id) DO UPDATE SET seen_at=excluded.seen_at, left_at=NULL, dead_at=NULL
"""
# An owner of whom there is no row is put on record as one that left.
_DIED: Final = """
    INSERT INTO owners (owner_id, pid, opened_at, left_at, dead_at, dead_boot_id)
    VALUES (?, 0, ?, ?, ?, ?)
    ON CONFLICT (owner_id) DO UPDATE SET
    dead_at=excluded.dead_at, dead_boot_id=excluded.dead_boot_id
"""


def boot_id() -> str | None:
    """Return what is the same until the machine boots again, where it can be had."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


def arrive(connection: Connection, owner_id: str, now: float) -> None:
    """Say that the owner is here."""
    connection.execute(_ARRIVE, (owner_id, boot_id(), os.getpid(), now))


def seen(connection: Connection, owner_id: str, now: float) -> None:
    """Say that the owner still is here."""
    connection.execute(_SEEN, (owner_id, boot_id(), os.getpid(), now, now))


def leave(connection: Connection, owner_id: str, now: float) -> None:
    """Say that the owner has left."""
    connection.execute("UPDATE owners SET left_at=? WHERE owner_id=?", (now, owner_id))


def last_seen(connection: Connection, folder: Path, owner_id: str) -> float | None:
    """Return the owner's last sign of life: on its row or, while it has one, on its file."""
    sql = "SELECT seen_at FROM owners WHERE owner_id=?"
    row = connection.execute(sql, (owner_id,)).fetchone()
    if row is None or row[0] is None:
        return None
    seen_at: float = row[0]
    touched = touched_at(folder, owner_id)
    # The file's time is rounded; it counts where it is news.
    return touched if touched is not None and touched > seen_at + _ROUNDING else seen_at


def pid_of(connection: Connection, owner_id: str) -> int | None:
    """Return the owner's process id, if there is a row that tells it."""
    sql = "SELECT pid FROM owners WHERE owner_id=?"
    row = connection.execute(sql, (owner_id,)).fetchone()
    # 0 stands for an owner that was put on record by somebody else.
    return None if row is None or row[0] == 0 else row[0]


def dead_for(connection: Connection, owner_id: str) -> float | None:
    """Return the seconds since somebody first saw that an owner is dead, if anybody has.

    All processes of one boot share the monotonic clock; what was seen in another boot is forgotten.
    """
    sql = "SELECT dead_at, dead_boot_id FROM owners WHERE owner_id=?"
    row = connection.execute(sql, (owner_id,)).fetchone()
    if row is None or row[0] is None or row[1] != boot_id() or row[0] > monotonic():
        return None
    passed: float = monotonic() - row[0]
    return passed


def see_dead(connection: Connection, folder: Path, owner_id: str) -> float:
    """Put on record that an owner is dead, if nobody has; return the seconds since then."""
    connection.execute("BEGIN IMMEDIATE")
    passed = dead_for(connection, owner_id)
    if passed is None and not is_alive(connection, folder, owner_id):
        now = time()
        connection.execute(_DIED, (owner_id, now, now, monotonic(), boot_id()))
    connection.execute("COMMIT")
    return passed or 0.0


def is_alive(connection: Connection, folder: Path, owner_id: str) -> bool:
    """Tell whether an owner is alive; in doubt, it is."""
    sign = examine(folder, owner_id)
    if sign is not Sign.MISSING:
        return sign is Sign.ALIVE
    sql = "SELECT boot_id, left_at FROM owners WHERE owner_id=?"
    row = connection.execute(sql, (owner_id,)).fetchone()
    return row is not None and row[1] is None and _is_this_boot(row[0])


def bury(connection: Connection, folder: Path, now: float) -> None:
    """Mark the owners that have died, and then remove their lock files."""
    sql = "SELECT owner_id, opened_at FROM owners WHERE left_at IS NULL"
    here = connection.execute(sql).fetchall()
    dead = [row for row in here if not is_alive(connection, folder, row[0])]
    if dead:
        last = [last_seen(connection, folder, owner_id) for owner_id, _ in dead]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE owners SET left_at=?, seen_at=? "
            "WHERE owner_id=? AND opened_at=? AND left_at IS NULL",
            [(now, seen_at, *row) for row, seen_at in zip(dead, last, strict=True)],
        )
        connection.execute("COMMIT")
    sweep(folder, keep={row[0] for row in here} - {row[0] for row in dead})


def forget(connection: Connection, before: float) -> None:
    """Delete the owners that left before and have nothing unfinished."""
    sql = "SELECT owner_id FROM owners WHERE left_at < ?"
    gone = {row[0] for row in connection.execute(sql, (before,)).fetchall()}
    if gone:
        gone -= owners(connection, None)
    if gone:
        sql = "DELETE FROM owners WHERE owner_id=? AND left_at < ?"
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(sql, [(owner_id, before) for owner_id in gone])
        connection.execute("COMMIT")


def _is_this_boot(stored: str | None) -> bool:
    this = boot_id()
    return stored is None or this is None or stored == this
