"""A look into a ledger's file that leaves no trace, for who only tells what is in it.

Who opens a ledger as a supervisor does announces an owner, and makes the file if there is none. A
look does neither: it reads, and asks which owners live. Who is about to act on what is there puts
on record which owners are dead, with :func:`see_dead`.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import presence
from sigmic_guard.ledger import statements as sql
from sigmic_guard.ledger.connection import Access, LedgerFile
from sigmic_guard.ledger.orphans import last_sign
from sigmic_guard.ledger.owners import may_examine
from sigmic_guard.ledger.protocol import CorruptRows
from sigmic_guard.ledger.thread import CallThread
from sigmic_guard.lifecycle import Record, wants

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
    from pathlib import Path

    from sigmic_guard.ledger.schema import Connection
    from sigmic_guard.ledger.statements import Order

T = TypeVar("T")

#: Rows that are read at once where they are read in pages: for their variables in one statement,
#: old versions of SQLite have room for 999.
PAGE: Final = 500
#: Characters of an id that may stand for it, at least.
MIN_PREFIX: Final = 4
#: Rows of each kind that are found by the beginning of an id, at most.
MAX_FOUND: Final = 6
#: Owners of whom it is remembered from one page to the next whether they live.
MAX_OWNERS: Final = 5_000


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
    #: The owner's process id, in its own machine's or container's numbering, if it is known.
    pid: int | None = None
    #: Whether it counts as alive because this user may not look whether it does.
    doubtful: bool = False

    @property
    def finished(self) -> bool:
        """Whether it is off the books."""
        return self.record.finished_at is not None

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

    If there is none, then of those where one of the two begins with it, which takes four characters
    at least, as many as show that there are several.

    :raises LedgerError: the ledger cannot be read.
    """

    def read(connection: Connection, folder: Path) -> list[OwnedRow]:
        for search in (sql.find, partial(sql.beginning, limit=MAX_FOUND)):
            records = partial(search, connection, identifier)
            if found := records():
                return _rows(connection, folder, {record.owner_id for record in found}, records)
            if len(identifier) < MIN_PREFIX:
                break
        return []

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


@asynccontextmanager
async def paged(
    path: str, namespace: str | None = None, order: Order | None = None
) -> AsyncIterator[AsyncIterator[UnfinishedRows] | None]:
    """Give the rows that have not finished in pages; ``None`` if there is no such ledger.

    Their order is that of the beginning. What finishes meanwhile is left out, and what comes is not
    seen. Nothing is locked between two pages, however long they are apart.

    :param namespace: default: of all namespaces.
    :param order: default: dead owners' rows first, and then the oldest.
    :raises LedgerError: the ledger cannot be read; the iteration raises it, too.
    """
    look = _Look(path)
    try:
        if not await look.begin():
            yield None
            return
        async with aclosing(_pages(look, namespace, order)) as pages:
            yield pages
    finally:
        look.end()


async def _pages(
    look: _Look, namespace: str | None, order: Order | None
) -> AsyncGenerator[UnfinishedRows, None]:
    def begin(connection: Connection, folder: Path) -> tuple[_Owners, array[int]]:
        places = array("q", sql.ordered(connection, namespace, order))
        return _Owners(connection, folder, ()), places

    def read(
        part: Sequence[int], connection: Connection, _: Path, *, dead_first: bool
    ) -> tuple[UnfinishedRows, Sequence[int]]:
        owners.use(connection)
        owned, left = sql.owners_at(connection, part), list[int]()
        # As everywhere: who is dead stays so, and the rows are read after it is known.
        living = {place for place, owner_id in owned.items() if owners.alive(owner_id)}
        if dead_first:
            left = [place for place in part if place in living]
            part = [place for place in part if place not in living]
        corrupt: dict[str, str] = {}
        try:
            records = sql.unfinished_at(connection, part)
        except CorruptRows as error:
            records = [*error.readable]
            corrupt.update(error.corrupt)
        return UnfinishedRows(_owned(connection, owners, records), corrupt), left

    owners, places = await look.run(begin)
    later = array("q")
    for rest, dead_first in ((places, order is None), (later, False)):
        for start in range(0, len(rest), PAGE):
            part = rest[start : start + PAGE]
            rows, left = await look.run(partial(read, part, dead_first=dead_first))
            later.extend(left)
            yield rows


def _rows(
    connection: Connection,
    folder: Path,
    owners: Iterable[str],
    records: Callable[[], Sequence[Record]],
) -> list[OwnedRow]:
    # Who is dead stays so, and the rows are read after it is known.
    known = _Owners(connection, folder, owners)
    return _owned(connection, known, records())


def _owned(connection: Connection, owners: _Owners, records: Sequence[Record]) -> list[OwnedRow]:
    """Return the rows with what is known of their owners."""
    ids = {record.remote_id for record in records if record.remote_id is not None}
    shared = sql.shared(connection, [*ids])

    def is_wanted(record: Record) -> bool:
        if record.remote_id not in shared:
            return False
        try:
            others = sql.unfinished(connection, None, remote_id=record.remote_id)
        except CorruptRows as error:
            others = [*error.readable]
        return any(
            wants(other, record, alive=True)
            and wants(other, record, alive=owners.alive(other.owner_id))
            for other in others
        )

    rows = []
    for record in records:
        owner = owners.get(record.owner_id)
        wanted = not owner.alive and record.finished_at is None and is_wanted(record)
        dead_for, seen_dead = owner.dead_for or 0.0, owner.dead_for is not None
        told = (wanted, dead_for, seen_dead, owner.pid, owner.doubtful)
        rows.append(OwnedRow(record, owner.alive, owner.seen, *told))
    return rows


class _Owner(NamedTuple):
    """What is known of an owner; the fields are those of its rows."""

    alive: bool
    seen: float | None
    dead_for: float | None
    pid: int | None
    doubtful: bool


class _Owners:
    """The owners of rows, each looked at once."""

    def __init__(self, connection: Connection, folder: Path, owner_ids: Iterable[str]) -> None:
        self._connection = connection
        self._folder = folder
        self._alive: dict[str, bool] = {}
        self._known: dict[str, _Owner] = {}
        for owner_id in owner_ids:
            self.alive(owner_id)

    def use(self, connection: Connection) -> None:
        """Use this connection from now on, and know no more than a bounded number of owners."""
        self._connection = connection
        if len(self._alive) > MAX_OWNERS:
            self._alive.clear()
            self._known.clear()

    def alive(self, owner_id: str) -> bool:
        """Tell whether it lives, or did when it was looked at."""
        if (known := self._alive.get(owner_id)) is not None:
            return known
        alive = presence.is_alive(self._connection, self._folder, owner_id)
        return self._alive.setdefault(owner_id, alive)

    def get(self, owner_id: str) -> _Owner:
        """Return what is known of it."""
        if (known := self._known.get(owner_id)) is None:
            alive = self.alive(owner_id)
            seen = presence.last_seen(self._connection, self._folder, owner_id)
            dead_for = presence.dead_for(self._connection, owner_id)
            pid = presence.pid_of(self._connection, owner_id)
            doubtful = alive and not may_examine(self._folder, owner_id)
            self._known[owner_id] = known = _Owner(alive, seen, dead_for, pid, doubtful)
        return known


class _Look:
    """A thread that reads a ledger's file, if there is one."""

    def __init__(self, path: str) -> None:
        self._file = LedgerFile(path)
        self._access = Access(self._file, self._file.connect_to_look)
        self._thread = CallThread("sigmic-guard: looking", self._access)

    async def begin(self) -> bool:
        """Tell whether there is such a file."""
        return await self._thread.run(self._file.find)

    async def run(self, function: Callable[[Connection, Path], T]) -> T:
        """Call the function, with a connection and the folder of the owners' lock files."""
        return await self._thread.run(partial(self._run, function))

    def end(self) -> None:
        """Let the thread close the file, and end."""
        self._thread.stop(self._access.close)

    def _run(self, function: Callable[[Connection, Path], T]) -> T:
        while True:
            try:
                with self._access.use() as connection:
                    result = function(connection, self._file.owners)
            except LedgerError:
                if not self._file.outdated:
                    raise
            else:
                if not self._file.outdated:
                    return result
            self._access.close()


async def _look(path: str, function: Callable[[Connection, Path], T]) -> T | None:
    """Call the function once; return ``None`` if there is no such ledger."""
    look = _Look(path)
    try:
        return await look.run(function) if await look.begin() else None
    finally:
        look.end()
