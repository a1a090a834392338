"""The ledger's file, and connections to it that tell what went wrong and get over it.

A file that is deleted or replaced while it is open would be written to on, unseen by anybody else;
so its inode is compared before and after each use. And a process that was forked off while the file
was open must not open it again: the copy of SQLite in its memory believes that it holds the locks
that are its parent's, and takes none.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger.forks import gate, in_child
from sigmic_guard.ledger.schema import (
    MIGRATIONS,
    check_version,
    configure,
    is_ledger,
    migrate,
    user_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sigmic_guard.ledger.schema import Connection

#: Seconds to wait for a lock that another process holds.
BUSY_TIMEOUT: Final = 5.0
#: Seconds between two tries where SQLite does not wait by itself.
_PAUSE: Final = 0.02

_Inode = tuple[int, int]

_EFFECTIVE_IDS: Final = os.access in os.supports_effective_ids

#: The files that this process has open through SQLite, with the number of connections.
_open_files: Final[Counter[_Inode]] = Counter()
#: Those that were open when this process was forked, or an ancestor of it.
_inherited: Final[set[_Inode]] = set()


@in_child
def _inherit() -> None:
    _inherited.update(_open_files)
    _open_files.clear()


class LedgerFile:
    """The file at a path, as it was when it was prepared.

    :param path: an absolute one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._inode: _Inode | None = None
        #: Whether SQLite was told that nobody writes.
        self._immutable = False
        #: Of two connections that close at once each leaves the log to the other.
        self._closing = Lock()

    @property
    def owners(self) -> Path:
        """The folder of the owners' lock files."""
        return Path(f"{self.path}.owners")

    def prepare(self) -> None:
        """Make the file and its folder if they do not exist, and remember which it is.

        :raises LedgerError: it cannot be made, or may not be opened in this process.
        """
        self.path = path = os.path.realpath(self.path)
        try:
            _make(path)
            self._inode = _inode(path)
        except OSError as error:
            raise LedgerError(
                f"the ledger {path} cannot be made: {error.strerror}; "
                "name another file, or make its folder writable for this user"
            ) from error
        self._check_fork()

    def find(self) -> bool:
        """Remember which file it is; tell whether there is one, and it is not just being made.

        :raises LedgerError: it is out of reach, or may not be opened in this process.
        """
        self.path = path = os.path.realpath(self.path)
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LedgerError(f"the ledger {path} is out of reach: {error.strerror}") from error
        self._inode = status.st_dev, status.st_ino
        self._check_fork()
        return status.st_size > 0

    def _check_fork(self) -> None:
        path = self.path
        if self._inode in _inherited:
            raise LedgerError(
                f"the ledger {path} was open when this process was forked, and SQLite cannot open "
                "it safely once more; fork before the ledger is opened, or use spawn"
            )

    def check(self) -> None:
        """Compare.

        :raises LedgerError: the path leads to another file by now, or to none.
        """
        try:
            inode = _inode(self.path)
        except FileNotFoundError:
            inode = None
        except OSError as error:
            raise LedgerError(
                f"the ledger {self.path} is out of reach: {error.strerror}"
            ) from error
        if inode != self._inode:
            happened = "was deleted" if inode is None else "was replaced by another file"
            raise LedgerError(
                f"the ledger {self.path} {happened} while it was in use; put it back if you can, "
                "or restart this process to go on with a new one"
            )

    def connect(self) -> sqlite3.Connection:
        """Return a new connection to the file, in WAL mode and of the present version."""
        self.check()
        # SQLite would open it for reading only, and make a log that cannot be written later either.
        if not os.access(self.path, os.R_OK | os.W_OK, effective_ids=_EFFECTIVE_IDS):
            raise LedgerError(_unwritable(self.path, "no permission"))
        return self._connect("mode=rw", prepare)  # which never makes a file

    def connect_to_look(self) -> sqlite3.Connection:
        """Return a new connection that only reads, where the file or its folder is read-only."""
        self.check()
        logged = self._log.exists()
        writable = (self.path, self._log if logged else Path(self.path).parent)
        self._immutable = False
        if all(os.access(path, os.W_OK, effective_ids=_EFFECTIVE_IDS) for path in writable):
            return self.connect()
        # Where nobody has it open there is no log, and none can be made: the file is all there is.
        self._immutable = not logged
        return self._connect("mode=ro&immutable=1" if self._immutable else "mode=ro", check_ledger)

    @property
    def outdated(self) -> bool:
        """Whether a connection that was to look may have read nonsense: somebody writes by now."""
        return self._immutable and self._log.exists()

    @property
    def _log(self) -> Path:
        return Path(f"{self.path}-wal")

    def _connect(
        self, how: str, prepare: Callable[[Connection, str], object]
    ) -> sqlite3.Connection:
        _count(self._inode, 1)
        try:
            connection = sqlite3.connect(
                f"file:{quote(os.fsencode(self.path))}?{how}",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
        except BaseException:
            _count(self._inode, -1)
            raise
        try:
            prepare(connection, self.path)
        except BaseException:
            self.disconnect(connection)
            raise
        return connection

    def disconnect(self, connection: sqlite3.Connection) -> None:
        """Close a connection; an error in this cannot be helped."""
        with self._closing, suppress(sqlite3.Error):
            connection.close()
        _count(self._inode, -1)


class Access:
    """One connection to the file, made at first use, and anew after an error.

    For one thread at a time.

    :param connect: how to make it; default: for reading and writing.
    """

    def __init__(
        self, file: LedgerFile, connect: Callable[[], sqlite3.Connection] | None = None
    ) -> None:
        self._file = file
        self._connect = connect or file.connect
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection.

        After an error it is closed: what SQLite believes of the file may be wrong then.

        :raises LedgerError: something went wrong with the file.
        """
        self._file.check()
        try:
            if self._connection is None:
                self._connection = self._connect()
            else:
                check_version(user_version(self._connection), self._file.path)
            yield self._connection
        except (sqlite3.Error, OverflowError) as error:
            self.close()
            self._file.check()  # the better explanation, if it is one
            raise _explained(error, self._file.path) from error
        except BaseException:
            self.close()
            raise
        self._file.check()

    def close(self) -> None:
        """Let go of the connection, which also rolls back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._file.disconnect(connection)


def prepare(connection: Connection, path: str) -> None:
    """Bring a new connection, and its file, to where they have to be.

    :raises LedgerError: the file is no ledger, or cannot be one.
    """
    configure(connection)
    mode = "delete"
    if is_ledger(connection, path):
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        _use_wal(connection, path)
    migrate(connection, path)


def check_ledger(connection: Connection, path: str) -> None:
    """See that a file can be read as it is.

    :raises LedgerError: it is no ledger, or not of the present version.
    """
    if not is_ledger(connection, path) or user_version(connection) < len(MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} is of an older version, which is brought up to date by whoever may "
            "write it: run sigmic-guard ps once as the user of the service"
        )


def _make(path: str) -> None:
    file = Path(path)
    new = [file, *itertools.takewhile(lambda folder: not folder.exists(), file.parents)]
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return  # and is not opened here: closing it again would drop SQLite's locks on it
    os.close(fd)
    for each in new:
        _sync_name(each)


def _sync_name(path: Path) -> None:
    """Make a new name durable, if its folder may be read."""
    with suppress(PermissionError):
        fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _count(inode: _Inode | None, by: int) -> None:
    assert inode is not None
    with gate:
        _open_files[inode] += by
        if not _open_files[inode]:
            del _open_files[inode]


def _inode(path: str) -> _Inode:
    status = Path(path).stat()
    return status.st_dev, status.st_ino


def _use_wal(connection: Connection, path: str) -> None:
    give_up_at = monotonic() + BUSY_TIMEOUT
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # SQLite does not wait here for others who are doing the same.
            if _code(error) != sqlite3.SQLITE_BUSY or monotonic() > give_up_at:
                raise
            sleep(_PAUSE)
            continue
        if mode == "wal":
            return
        raise LedgerError(
            f"SQLite cannot have its write-ahead log at {path}; put the ledger on a local disk"
        )


def _code(error: Exception) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _explained(error: Exception, path: str) -> LedgerError:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    happened = f"({error}; {name})"
    match _code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            text = (
                f"the ledger {path} was locked for {BUSY_TIMEOUT:g} s {happened}; find the process "
                "that holds it, a shell of sqlite3 perhaps, and let it finish"
            )
        case sqlite3.SQLITE_FULL:
            text = f"the disk with the ledger {path} is full {happened}; make room on it"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            text = _unwritable(path, f"{error}; {name}")
        case sqlite3.SQLITE_IOERR:
            text = (
                f"the disk with the ledger {path} failed {happened}; "
                "look for quotas, limits, and errors of the disk"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            text = (
                f"the ledger {path} is damaged, or no ledger {happened}; stop the processes that "
                "use it and move it out of the way, its -wal file included: a new one will be made"
            )
        case _:
            text = f"the ledger {path} failed {happened}"
    return LedgerError(text)


def _unwritable(path: str, why: str) -> str:
    return (
        f"the ledger {path} cannot be written ({why}); make the file, those beside it and their "
        f"folder readable and writable for this user (uid {os.geteuid()})"
    )
