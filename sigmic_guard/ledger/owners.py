"""Who is alive: a lock on a file for each owner, which the kernel drops at its death.

The lock is ``flock``'s. POSIX locks, those of ``lockf``, would be gone as soon as anything in the
process closed the file. It belongs to the open file, which a forked child has as well, so a child
closes what it inherited: nobody lives on in its children.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from enum import Enum
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger.forks import gate, in_child
from sigmic_guard.ledger.loops import notice

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOCK: Final = ".lock"
_TEMPORARY: Final = ".tmp"
#: Seconds after which a file that was never renamed is taken for forgotten.
_FORGOTTEN: Final = 3600.0

#: The lock files that are open, and locked.
_held: Final[set[int]] = set()


@in_child
def _close_all() -> None:
    for fd in _held:
        with suppress(OSError):
            os.close(fd)  # which drops no lock while the parent has it open
    _held.clear()


class Sign(Enum):
    """What an owner's file says."""

    ALIVE = "alive"  # it is locked, or it cannot be told
    DEAD = "dead"
    MISSING = "missing"


class OwnerLock:
    """The lock by which one owner is alive. May be released in any thread.

    :param folder: of the lock files; is made if it does not exist.
    :raises LedgerError: it cannot be had.
    """

    def __init__(self, folder: Path, owner_id: str) -> None:
        if not _NAME.fullmatch(owner_id):
            raise LedgerError(f"{owner_id!r} cannot be the name of a file, nor an owner id")
        self._path = folder / (owner_id + _LOCK)
        self._using = Lock()  # so that nobody uses the number of a file that was just closed
        notice()
        with suppress(OSError):  # the next line will tell
            if _examine(self._path) is Sign.ALIVE:
                raise LedgerError(f"the owner {owner_id} is alive already: {self._path} is locked")
        self._fd: int | None = _make(self._path)

    def mend(self) -> None:
        """Make the file again if it has gone, unless it was released.

        :raises LedgerError: it cannot be made; the owner is alive by the old one.
        """
        with self._using:
            if self._fd is not None and not _is_at(self._fd, self._path):
                old, self._fd = self._fd, _make(self._path)
                _close(old)

    def touch(self, at: float) -> None:
        """Leave a sign of life on the file: cheap, and lost in a power cut."""
        with self._using, suppress(OSError):
            if self._fd is not None:
                os.utime(self._fd, (at, at))

    def release(self, *, left: bool) -> None:
        """Be dead; calling it again does nothing.

        :param left: it is on record that the owner left, so the file can go.
        """
        with self._using:
            fd, self._fd = self._fd, None
            if fd is None:
                return
            if left and _is_at(fd, self._path):
                with suppress(OSError):
                    self._path.unlink()
            _close(fd)


def examine(folder: Path, owner_id: str) -> Sign:
    """Look at an owner's file."""
    if not _NAME.fullmatch(owner_id):
        return Sign.MISSING
    notice()  # owners of this process whose loop is gone let go of their locks
    try:
        return _examine(folder / (owner_id + _LOCK))
    except FileNotFoundError:
        return Sign.MISSING
    except OSError:
        return Sign.ALIVE


def may_examine(folder: Path, owner_id: str) -> bool:
    """Tell whether this user may look at an owner's file: else the owner counts as alive."""
    if not _NAME.fullmatch(owner_id):
        return True
    try:
        os.close(os.open(folder / (owner_id + _LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def touched_at(folder: Path, owner_id: str) -> float | None:
    """Return when an owner touched its file last, if it has one."""
    if not _NAME.fullmatch(owner_id):
        return None
    try:
        return (folder / (owner_id + _LOCK)).lstat().st_mtime
    except OSError:
        return None


def sweep(folder: Path, keep: Collection[str]) -> None:
    """Remove the files of dead owners, but for those of ``keep``, and what was left half-made."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        with suppress(OSError):
            if path.suffix == _LOCK:
                idle = path.stem not in keep
            else:
                idle = path.suffix == _TEMPORARY and time() - path.stat().st_mtime > _FORGOTTEN
            if idle and _examine(path) is Sign.DEAD:
                path.unlink()


def _make(path: Path) -> int:
    """Lock it first and name it then, so that nobody finds it without its lock."""
    temporary = path.with_name(uuid4().hex + _TEMPORARY)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with gate:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _held.add(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            _close(fd)
            raise
    except OSError as error:
        raise LedgerError(
            f"the lock file {path} cannot be made: {error.strerror}; "
            "make its folder writable for this user, on a local disk"
        ) from error
    return fd


def _close(fd: int) -> None:
    with gate:
        _held.discard(fd)
        os.close(fd)


def _examine(path: Path) -> Sign:
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _is_at(fd, path):
                return Sign.DEAD
        except BlockingIOError:
            return Sign.ALIVE
        finally:
            os.close(fd)
        # The owner made its file anew meanwhile; or the next open() finds it missing.


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
