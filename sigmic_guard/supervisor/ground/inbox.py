"""Plain calls: asked for anywhere, and carried out in the supervisor's own event loop.

A signal handler, a finalizer or another thread may come at any instruction, also in the middle of
a step of ours, and nothing that it could do there can be done safely: it finds half-made changes,
locks that its own thread holds, and no current task. So a plain call leaves a note, and no more. A
worker carries the notes out; and whoever is about to decide something calls :meth:`Inbox.flush`
first, so that what was asked for earlier counts as earlier.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet, finalize

from anyio import wait_readable

from sigmic_guard.ledger.forks import in_child

if TYPE_CHECKING:
    from collections.abc import Callable


class Inbox:
    """Notes, and what wakes the worker that reads them.

    It takes notes from its creation until :meth:`close`; :meth:`deliver` is the worker.
    """

    def __init__(self) -> None:
        # A pair of sockets: writing to one is all that may be done in a signal handler, or in the
        # middle of somebody else's step.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        #: Also where its event loop was closed, and nobody could leave the supervisor.
        self._hang_up = finalize(self, _hang_up, self._reader, self._writer)
        self._hang_up.atexit = False
        self._pid = os.getpid()
        self._notes: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._open = True
        #: A note is nobody's but the supervisor's: whoever happens to flush it lends no context.
        self._context = copy_context()
        self._flushing = False
        _open_ones.add(self)

    def leave(self, call: Callable[..., object], *args: Any) -> None:
        """Have ``call(*args)`` carried out soon. Safe anywhere; without effect after the close."""
        if self._open and os.getpid() == self._pid:
            self._notes.append((call, args))
            with suppress(OSError):  # closed; or full, and then it has been rung already
                self._writer.send(b"!")

    def flush(self) -> None:
        """Carry out what was left so far; in a task of the supervisor's event loop."""
        notes = self._notes
        if not notes or self._flushing:  # a note that decides something flushes as well
            return
        self._flushing = True
        try:
            while notes:
                call, args = notes.popleft()
                self._context.run(call, *args)
        finally:
            self._flushing = False

    async def deliver(self) -> None:
        """Carry out notes for ever."""
        while True:
            self.flush()
            await wait_readable(self._reader)
            with suppress(BlockingIOError):
                self._reader.recv(4096)

    def close(self) -> None:
        """Take no more notes."""
        self._open = False
        self._notes.clear()
        self._hang_up()


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        end.close()


#: Those whose sockets a forked child must let go of: a byte that it writes would wake its parent.
_open_ones: Final[WeakSet[Inbox]] = WeakSet()


@in_child
def _close_all() -> None:
    for inbox in tuple(_open_ones):
        inbox.close()
