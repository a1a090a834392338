"""The statements on a ledger's rows: the compare-and-set of a batch, the reads, the pruning.

Works on whatever looks like a :class:`sqlite3.Connection` in autocommit mode; its errors go
through, and may leave a transaction open.
"""

from __future__ import annotations

from enum import StrEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger.protocol import Refusal
from sigmic_guard.ledger.schema import (
    COLUMNS,
    FIXED,
    INTENT_ID,
    KEY,
    NAMESPACE,
    VERSION,
    clean,
    clean_text,
    decode,
    decode_all,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sigmic_guard.ledger.protocol import Write
    from sigmic_guard.ledger.schema import Connection, Row
    from sigmic_guard.lifecycle import Record

#: Rows that one transaction of the pruning deletes.
PORTION: Final = 1000
#: Variables that any version of SQLite takes in a statement.
VARIABLES: Final = 999

_INSERT: Final = (
    f"INSERT INTO tasks ({', '.join(COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT DO NOTHING"
)
_CHANGING: Final = [name for name in COLUMNS if name not in FIXED]
_UPDATE: Final = (
    f"UPDATE OR IGNORE tasks SET {', '.join(f'{name}=?' for name in _CHANGING)} "
    "WHERE intent_id=? AND version=?"
)
#: Of a row, in the order of the update.
_changing: Final = itemgetter(*map(COLUMNS.index, [*_CHANGING, "intent_id"]))
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM tasks"
_UNFINISHED: Final = "finished_at IS NULL"


# --- writing --------------------------------------------------------------------------------------


def commit(connection: Connection, writes: Sequence[Write]) -> list[Refusal | None]:
    """Do the writes in one transaction; see :meth:`~sigmic_guard.ledger.protocol.Ledger.commit`.

    A write that finds exactly its own row has been done before, by a commit that was interrupted.
    """
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("SAVEPOINT batch")
    try:
        refusals = _write(connection, writes, encode)
    except UnicodeEncodeError:
        connection.execute("ROLLBACK TO batch")
        refusals = _write(connection, writes, lambda record: clean(encode(record)))
    connection.execute("COMMIT")
    return refusals


def _write(
    connection: Connection, writes: Sequence[Write], row_of: Callable[[Record], Row]
) -> list[Refusal | None]:
    if _all_at_once(connection, writes, row_of):
        return [None] * len(writes)
    connection.execute("ROLLBACK TO batch")
    return [_one(connection, row_of(record), expected) for record, expected in writes]


def _all_at_once(
    connection: Connection, writes: Sequence[Write], row_of: Callable[[Record], Row]
) -> bool:
    """Tell whether each of the writes was done; their order does not matter then."""
    if len({record.intent_id for record, _ in writes}) < len(writes):
        return False
    inserts = [record for record, expected in writes if not expected]
    updates = [write for write in writes if write.expected]
    done = 0
    if inserts:
        done += connection.executemany(_INSERT, map(row_of, inserts)).rowcount
    if updates and done == len(inserts):
        rows = ((*_changing(row_of(record)), expected) for record, expected in updates)
        done += connection.executemany(_UPDATE, rows).rowcount
    return done == len(writes)


def _one(connection: Connection, row: Row, expected: int) -> Refusal | None:
    if expected:
        done = connection.execute(_UPDATE, (*_changing(row), expected)).rowcount
    else:
        done = connection.execute(_INSERT, row).rowcount
    if done:
        return None
    stored = connection.execute(f"{_SELECT} WHERE intent_id=?", (row[INTENT_ID],)).fetchone()
    if stored is not None and tuple(stored) == row:
        return None
    if (0 if stored is None else stored[VERSION]) != expected:
        return Refusal.CONFLICT
    if _holder(connection, row[NAMESPACE], row[KEY]) is not None:
        return Refusal.DUPLICATE_KEY
    raise LedgerError(f"the ledger cannot hold the row {row[INTENT_ID]!r}")


def prune(connection: Connection, before: float, absent_before: float) -> int:
    """Delete a portion of the rows that finished before; return how many.

    :param absent_before: as ``before``, for rows of lost creates that were proven absent.
    """
    connection.execute("BEGIN IMMEDIATE")
    deleted = connection.execute(
        "DELETE FROM tasks WHERE rowid IN (SELECT rowid FROM tasks "
        "WHERE finished_at IS NOT NULL AND finished_at < ? "
        "AND (state != 'never_created' OR lost_at IS NULL OR finished_at < ?) "
        "ORDER BY finished_at LIMIT ?)",
        (before, absent_before, PORTION),
    ).rowcount
    connection.execute("COMMIT")
    return deleted


# --- reading --------------------------------------------------------------------------------------


def get(connection: Connection, intent_id: str) -> Record | None:
    """Return one row."""
    sql = f"{_SELECT} WHERE intent_id=?"
    row = connection.execute(sql, (clean_text(intent_id),)).fetchone()
    return None if row is None else decode(row)


def find(connection: Connection, identifier: str) -> list[Record]:
    """Return the rows whose intent id or remote id it is."""
    # Each of the first two has an index, and the third is read through.
    sql = (
        f"{_SELECT} WHERE intent_id=? "
        f"UNION {_SELECT} WHERE remote_id=? AND {_UNFINISHED} "
        f"UNION {_SELECT} WHERE remote_id=? AND NOT {_UNFINISHED}"
    )
    parameters = [clean_text(identifier)] * 3
    return decode_all(connection.execute(sql, parameters).fetchall())


def beginning(connection: Connection, prefix: str, limit: int) -> list[Record]:
    """Return some of the rows whose intent id or remote id begins with it."""
    within = "BETWEEN ? AND ?"
    sql = (
        f"SELECT * FROM ({_SELECT} WHERE intent_id {within} LIMIT ?) "
        f"UNION SELECT * FROM ({_SELECT} WHERE remote_id {within} AND {_UNFINISHED} LIMIT ?) "
        f"UNION SELECT * FROM ({_SELECT} WHERE remote_id {within} AND NOT {_UNFINISHED} LIMIT ?)"
    )
    text = clean_text(prefix)
    parameters = [text, f"{text}\U0010ffff", limit] * 3
    return decode_all(connection.execute(sql, parameters).fetchall())


def holder(connection: Connection, namespace: str, key: str) -> Record | None:
    """Return the unfinished row that holds the key."""
    row = _holder(connection, clean_text(namespace), clean_text(key))
    return None if row is None else decode(row)


def _holder(connection: Connection, namespace: str, key: str | None) -> Row | None:
    sql = f"{_SELECT} WHERE namespace=? AND key=? AND {_UNFINISHED}"
    row: Row | None = connection.execute(sql, (namespace, key)).fetchone()
    return row


def unfinished(
    connection: Connection,
    namespace: str | None,
    owner_id: str | None = None,
    remote_id: str | None = None,
) -> list[Record]:
    """Return the unfinished rows that have these values in their columns; ``None`` is any.

    :raises CorruptRows: some of them are corrupt; it has the others.
    """
    sql, parameters = f"{_SELECT} WHERE {_UNFINISHED}", []
    like = {"namespace": namespace, "owner_id": owner_id, "remote_id": remote_id}
    for column, value in like.items():
        if value is not None:
            sql += f" AND {column}=?"
            parameters.append(clean_text(value))
    return decode_all(connection.execute(sql, parameters).fetchall())


class Order(StrEnum):
    """In which order unfinished rows may be read."""

    AGE = "age"  # the oldest first
    STATE = "state"
    OWNER = "owner"  # by process id
    DUE = "due"  # the nearest deadline first, and those that have none last


_ORDERS: Final = {
    Order.AGE: "created_at",
    Order.STATE: "state, created_at",
    Order.OWNER: "(SELECT pid FROM owners WHERE owners.owner_id=tasks.owner_id), "
    "owner_id, created_at",
    Order.DUE: "deadline_at IS NULL, deadline_at, created_at",
}


def ordered(connection: Connection, namespace: str | None, order: Order | None) -> Iterator[int]:
    """Return where the unfinished rows are, in this order; ``None`` is by age."""
    where = _UNFINISHED if namespace is None else f"{_UNFINISHED} AND namespace=?"
    parameters = () if namespace is None else (clean_text(namespace),)
    by = _ORDERS[order or Order.AGE]
    sql = f"SELECT rowid FROM tasks WHERE {where} ORDER BY {by}, rowid"
    return map(itemgetter(0), iter(connection.execute(sql, parameters).fetchone, None))


def owners_at(connection: Connection, places: Sequence[int]) -> dict[int, str]:
    """Return who owns the rows at these places."""
    sql = f"SELECT rowid, owner_id FROM tasks WHERE rowid IN ({', '.join('?' * len(places))})"
    return dict(connection.execute(sql, places).fetchall())


def unfinished_at(connection: Connection, places: Sequence[int]) -> list[Record]:
    """Return the rows at these places, in their order, that are still there and unfinished.

    :raises CorruptRows: some of them are corrupt; it has the others.
    """
    sql = (
        f"SELECT rowid, {', '.join(COLUMNS)} FROM tasks "
        f"WHERE rowid IN ({', '.join('?' * len(places))}) AND {_UNFINISHED}"
    )
    rows = {row[0]: row[1:] for row in connection.execute(sql, places).fetchall()}
    return decode_all(rows[place] for place in places if place in rows)


def shared(connection: Connection, remote_ids: Sequence[str]) -> set[str]:
    """Return those of the ids that several unfinished rows have."""
    found: set[str] = set()
    for start in range(0, len(remote_ids), VARIABLES):
        part = remote_ids[start : start + VARIABLES]
        sql = (
            f"SELECT remote_id FROM tasks WHERE remote_id IN ({', '.join('?' * len(part))}) "
            f"AND {_UNFINISHED} GROUP BY remote_id HAVING count(*) > 1"
        )
        found.update(row[0] for row in connection.execute(sql, part).fetchall())
    return found


def absent(connection: Connection, namespace: str, since: float) -> list[Record]:
    """Return the rows whose absence was proven since."""
    sql = (
        f"{_SELECT} WHERE state='never_created' AND lost_at IS NOT NULL "
        "AND finished_at IS NOT NULL AND namespace=? AND finished_at>=?"
    )
    parameters = (clean_text(namespace), since)
    return decode_all(connection.execute(sql, parameters).fetchall())


def owners(connection: Connection, namespace: str | None) -> set[str]:
    """Return the owners of unfinished rows: one look into the index for each, not for each row."""
    if namespace is not None:
        return set(_owners_of(connection, clean_text(namespace)))
    sql = f"SELECT min(namespace) FROM tasks WHERE {_UNFINISHED} AND namespace"
    found: set[str] = set()
    place = connection.execute(f"{sql}>=''").fetchone()[0]
    while place is not None:
        found.update(_owners_of(connection, place))
        place = connection.execute(f"{sql}>?", (place,)).fetchone()[0]
    return found


def _owners_of(connection: Connection, namespace: str) -> Iterator[str]:
    sql = f"SELECT min(owner_id) FROM tasks WHERE {_UNFINISHED} AND namespace=? AND owner_id>?"
    owner_id = ""
    while (owner_id := connection.execute(sql, (namespace, owner_id)).fetchone()[0]) is not None:
        yield owner_id
