"""A look into a ledger's file that leaves no trace, for who only tells what is in it.

Who opens a ledger as a supervisor does announces an owner, and makes the file if there is none. A
look does neither: it reads, and asks which owners live. Who is about to act on what is there puts
on record which owners are dead, with :func:`see_dead`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import presence
from sigmic_guard.ledger import statements as sql
from sigmic_guard.ledger.connection import Access, LedgerFile
from sigmic_guard.ledger.orphans import last_sign
from sigmic_guard.ledger.protocol import CorruptRows
from sigmic_guard.ledger.thread import CallThread
from sigmic_guard.lifecycle import Record, wants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sigmic_guard.ledger.schema import Connection

T = TypeVar("T")


class OwnedRow(NamedTuple):
    """A row of the ledger, and what is known of its owner."""

    record: Record
    #: Whether the owner lives. In doubt, it does.
    alive: bool
    #: The owner's last sign of life, in seconds since the epoch, if the ledger knows of one.
    seen: float | None
    #: Whether another row of the same remote task is of somebody who wants it.
    wanted: bool
    #: Seconds since the owner's death was first seen, if it is dead.
    dead_for: float = 0.0
    #: Whether that is on record.
    seen_dead: bool = False

    @property
    def orphan(self) -> bool:
        """Whether this is unfinished, and its owner is dead."""
        return not self.alive and self.record.finished_at is None

    @property
    def orphaned_at(self) -> float:
        """When the owner was certainly alive, in seconds since the epoch."""
        return last_sign(self.record, self.seen)


class UnfinishedRows(NamedTuple):
    """The rows that have not finished."""

    readable: Sequence[OwnedRow]
    #: Why the others are corrupt, by intent id.
    corrupt: Mapping[str, str]


async def unfinished(path: str, namespace: str | None = None) -> UnfinishedRows | None:
    """Return the rows that have not finished; ``None`` if there is no such ledger.

    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read.
    """

    def read(connection: Connection, folder: Path) -> UnfinishedRows:
        corrupt: dict[str, str] = {}

        def records() -> Sequence[Record]:
            try:
                return sql.unfinished(connection, namespace)
            except CorruptRows as error:
                corrupt.update(error.corrupt)
                return error.readable

        rows = _rows(connection, folder, sql.owners(connection, namespace), records)
        return UnfinishedRows(rows, corrupt)

    return await _look(path, read)


async def see_dead(path: str, namespace: str | None = None) -> None:
    """Put on record that owners of unfinished rows are dead, of whom nobody has done so yet.

    The time for which their keys can be asked for begins then.

    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read or written.
    """

    def see(connection: Connection, folder: Path) -> None:
        for owner_id in sql.owners(connection, namespace):
            if presence.dead_for(connection, owner_id) is None and not presence.is_alive(
                connection, folder, owner_id
            ):
                presence.see_dead(connection, folder, owner_id)

    await _look(path, see)


async def find(path: str, identifier: str) -> list[OwnedRow] | None:
    """Return the rows, finished ones too, whose intent id or remote id it is.

    :raises LedgerError: the ledger cannot be read.
    """

    def read(connection: Connection, folder: Path) -> list[OwnedRow]:
        records = partial(sql.find, connection, identifier)
        return _rows(connection, folder, {record.owner_id for record in records()}, records)

    return await _look(path, read)


async def get(path: str, intent_ids: Collection[str]) -> dict[str, OwnedRow]:
    """Return the rows that are there, finished ones too, by intent id.

    :raises LedgerError: the ledger cannot be read.
    """

    def read(connection: Connection, folder: Path) -> dict[str, OwnedRow]:
        def records() -> list[Record]:
            rows = (sql.get(connection, intent_id) for intent_id in intent_ids)
            return [row for row in rows if row is not None]

        owners = {record.owner_id for record in records()}
        return {row.record.intent_id: row for row in _rows(connection, folder, owners, records)}

    return await _look(path, read) or {}


def _rows(
    connection: Connection,
    folder: Path,
    owners: Iterable[str],
    records: Callable[[], Sequence[Record]],
) -> list[OwnedRow]:
    # Who is dead stays so, and the rows are read after it is known.
    alive = {owner_id: presence.is_alive(connection, folder, owner_id) for owner_id in owners}
    seen: dict[str, float | None] = {}

    def lives(owner_id: str) -> bool:
        if owner_id not in alive:
            alive[owner_id] = presence.is_alive(connection, folder, owner_id)
        return alive[owner_id]

    def is_wanted(record: Record) -> bool:
        if record.remote_id is None:
            return False
        try:
            others = sql.unfinished(connection, None, remote_id=record.remote_id)
        except CorruptRows as error:
            others = [*error.readable]
        return any(
            wants(other, record, alive=True) and wants(other, record, alive=lives(other.owner_id))
            for other in others
        )

    rows = []
    for record in records():
        owner_id, living = record.owner_id, lives(record.owner_id)
        if owner_id not in seen:
            seen[owner_id] = presence.last_seen(connection, folder, owner_id)
        wanted = not living and record.finished_at is None and is_wanted(record)
        dead_for = presence.dead_for(connection, owner_id)
        told = (dead_for or 0.0, dead_for is not None)
        rows.append(OwnedRow(record, living, seen[owner_id], wanted, *told))
    return rows


async def _look(path: str, function: Callable[[Connection, Path], T]) -> T | None:
    """Call the function in a thread, with a connection and the folder of the owners' lock files."""
    thread = CallThread("sigmic-guard: looking", None)
    try:
        return await thread.run(partial(_read, path, function))
    finally:
        thread.stop(_nothing)


def _read(path: str, function: Callable[[Connection, Path], T]) -> T | None:
    try:
        if not Path(path).stat().st_size:
            return None  # somebody is making it
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"the ledger {path} is out of reach: {error.strerror}") from error
    file = LedgerFile(path)
    file.prepare()
    access = Access(file)
    try:
        with access.use() as connection:
            return function(connection, file.owners)
    finally:
        access.close()


def _nothing() -> None:
    pass
