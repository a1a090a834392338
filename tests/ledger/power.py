"""A disk that forgets what was not synced, and SQLite running on it.

:class:`Disk` keeps the files of one VFS in memory and writes down whatever is done to them. From
that log :class:`Durable` makes the files as a machine may find them whose power went at any place
in it. What a sync reached is there. Of what came after any part may be there, whatever its order,
in pieces of a sector of 512 bytes; and a file that was deleted may be back.

The shared memory of the WAL is not modelled: it does not survive a boot anyway. SQLite keeps it in
the heap instead, by ``locking_mode=EXCLUSIVE``, which changes nothing in what is written or synced.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SECTOR: Final = 512
#: Which of some things happened; it is asked anew for each.
Luck: TypeAlias = "Callable[[], bool]"


class Wrote(NamedTuple):
    """Bytes were written, to a place in a file."""

    name: str
    offset: int
    data: bytes


class Cut(NamedTuple):
    """A file was cut off."""

    name: str
    size: int


class Synced(NamedTuple):
    """A file was synced; if it is a new one, so was the folder.

    So does SQLite on Unix, within the first sync of a WAL or a journal.
    """

    name: str


class Deleted(NamedTuple):
    """A file was deleted."""

    name: str


class Acknowledged(NamedTuple):
    """Somebody was told that something is durable."""

    what: Any


Happened: TypeAlias = Wrote | Cut | Synced | Deleted | Acknowledged


class Disk(apsw.VFS):
    """A VFS of its own name, whose files are in memory; ``log`` tells what was done to them."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.name = name
        self.files: dict[str, bytearray] = {}
        self.log: list[Happened] = []

    def connect(self, path: str) -> ApsConnection:
        """Open a database of this disk."""
        connection = apsw.Connection(path, vfs=self.name)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        return ApsConnection(connection)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:
        assert name is not None
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.files.setdefault(path, bytearray())
        flags[1] = flags[0]
        return _File(self, path)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        del self.files[filename]
        self.log.append(Deleted(filename))

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.files

    def xFullPathname(self, name: str) -> str:
        return name

    def acknowledge(self, what: Any) -> None:
        """Note that somebody relies on what was done until now."""
        self.log.append(Acknowledged(what))


class _File:
    """An open file, as SQLite knows it. Nobody else has it open, so locks are nothing."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._name = name
        self._content = disk.files[name]
        self._log = disk.log

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        _put(self._content, offset, data)
        self._log.append(Wrote(self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        del self._content[size:]
        self._log.append(Cut(self._name, size))

    def xSync(self, flags: int) -> None:
        self._log.append(Synced(self._name))

    def xFileSize(self) -> int:
        return len(self._content)

    def xSectorSize(self) -> int:
        return 4096  # as on Unix, and so are the characteristics

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        pass


class ApsConnection:
    """Looks like a :class:`sqlite3.Connection` in autocommit mode, as far as the ledger looks."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> _Cursor:
        return self.executemany(sql, [parameters])

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> _Cursor:
        before = self._connection.total_changes()
        try:
            rows = self._connection.executemany(sql, parameters).fetchall()
        except apsw.Error as error:
            raise sqlite3.OperationalError(str(error)) from error
        return _Cursor(rows, self._connection.total_changes() - before)

    def close(self) -> None:
        self._connection.close()


class _Cursor:
    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        return self._rows


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


# --- the power goes -------------------------------------------------------------------------------


class Durable:
    """What is certain, and what is not, after the first so many entries of a log."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.certain = {name: bytearray(content) for name, content in files.items()}
        self.open: dict[str, list[Wrote | Cut]] = {}
        #: Deleted, and perhaps not for good.
        self.deleted: dict[str, bytearray] = {}

    def add(self, happened: Happened) -> None:
        """Take the next entry in."""
        match happened:
            case Wrote(name=name) | Cut(name=name):
                self.open.setdefault(name, []).append(happened)
            case Synced(name=name):
                if name not in self.certain:
                    self.certain[name] = bytearray()
                    self.deleted.clear()
                content = self.certain[name]
                for change in self.open.pop(name, []):
                    _do(content, change)
            case Deleted(name=name):
                self.open.pop(name, None)
                if name in self.certain:
                    self.deleted[name] = self.certain.pop(name)
            case Acknowledged():
                pass

    def after_power_loss(self, luck: Luck) -> dict[str, bytes]:
        """Return files as they may be found; ``luck`` decides what of the uncertain is there."""
        files = {name: bytearray(content) for name, content in self.certain.items()}
        for name, content in self.deleted.items():
            if name not in files and luck():
                files[name] = bytearray(content)
        for name, changes in self.open.items():
            if name in files or luck():
                content = files.setdefault(name, bytearray())
                for piece in _pieces(changes):
                    if luck():
                        _do(content, piece)
        return {name: bytes(content) for name, content in files.items()}


def _pieces(changes: Iterable[Wrote | Cut]) -> Iterable[Wrote | Cut]:
    for change in changes:
        if isinstance(change, Cut):
            yield change
            continue
        start, end = change.offset, change.offset + len(change.data)
        for sector in range(start // SECTOR * SECTOR, end, SECTOR):
            first, last = max(start, sector), min(end, sector + SECTOR)
            yield Wrote(change.name, first, change.data[first - start : last - start])


def _do(content: bytearray, change: Wrote | Cut) -> None:
    if isinstance(change, Cut):
        del content[change.size :]
    else:
        _put(content, change.offset, change.data)
