"""A lock that a fork does not leave held for ever."""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from types import TracebackType


class ForkSafeLock:
    """Free in a forked child, although another thread of the parent held it at the fork."""

    def __init__(self) -> None:
        self._lock = Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(RuntimeError):  # the fork was in between, and it is free by now
            self._lock.release()

    def free(self) -> None:
        """Let nobody hold it; in a child, where no other thread is left."""
        self._lock = Lock()


_locks: Final[WeakSet[ForkSafeLock]] = WeakSet()


def _free_all() -> None:
    for lock in tuple(_locks):
        lock.free()


os.register_at_fork(after_in_child=_free_all)
