"""``sqlite:///path``, the ledger that survives the death of its process and of the machine.

Writes are done by one thread and reads by another, each with a connection of its own, so that
reading many rows does not stand in the way of a commit. Many processes of one machine may share
the file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from anyio import move_on_after

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import presence, statements
from sigmic_guard.ledger.connection import Access, LedgerFile
from sigmic_guard.ledger.loops import Ending, Loop, notice
from sigmic_guard.ledger.owners import OwnerLock
from sigmic_guard.ledger.schema import clean_text
from sigmic_guard.ledger.thread import Call, CallThread
from sigmic_guard.lifecycle.values import check_path, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import timedelta

    from sigmic_guard.ledger.protocol import Refusal, Write
    from sigmic_guard.ledger.schema import Connection
    from sigmic_guard.lifecycle import Record

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds for which rows of creates that were proven absent are kept at least: a task that appears
#: all the same is told by them, and two wall clocks may be wrong by an hour each.
ABSENT_KEEP: Final = 3 * 3600.0
#: Transactions in which one call of `upkeep` deletes old rows.
PORTIONS: Final = 20
#: Seconds to wait, at the end, for a read that is under way: nobody wants its result any more.
READING: Final = 1.0


class _Desk:
    """A thread, and the connection that it alone uses."""

    def __init__(self, file: LedgerFile, name: str, beat: Callable[[], None] | None = None) -> None:
        self.access = Access(file)
        self.thread = CallThread(f"sigmic-guard: ledger, {name}", self.access, beat)

    async def run(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call the function in the thread, with the connection."""
        return await self.thread.run(partial(self.do, function, *args, **kwargs))

    def do(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call the function with the connection, being in the thread."""
        with self.access.use() as connection:
            return function(connection, *args, **kwargs)


class _Session:
    """What there is between :meth:`SqliteLedger.open` and :meth:`SqliteLedger.aclose`."""

    def __init__(self, path: str, owner_id: str) -> None:
        self.owner_id = owner_id
        self.pid = os.getpid()
        self.file = LedgerFile(path)
        self.writer = _Desk(self.file, "writing", self._beat)
        self.reader = _Desk(self.file, "reading")
        self.lock: OwnerLock | None = None
        #: What the clock of :meth:`upkeep` is ahead of the wall clock, once it is known.
        self._ahead: float | None = None
        #: An owner whose loop is gone is dead, whatever its process does.
        self.ending = Ending(Loop(), self._abandon)

    def _beat(self) -> None:
        """Leave a sign of life, however long the event loop is busy; but not once it is gone."""
        notice()
        lock, ahead = self.lock, self._ahead
        if lock is not None and ahead is not None:
            lock.touch(time() + ahead)

    def begin(self) -> None:
        """Open the file, lock the owner's own, and put it on record."""
        self.file.prepare()
        self.writer.do(lambda _: None)
        self.lock = OwnerLock(self.file.owners, self.owner_id)
        self.writer.do(presence.arrive, self.owner_id, time())

    def upkeep(self, now: float, keep: float) -> None:
        """Show that the owner is alive, and clear away who is not."""
        assert self.lock is not None
        self.lock.mend()
        self._ahead = now - time()
        self.lock.touch(now)
        self.writer.do(presence.seen, self.owner_id, now)
        self.writer.do(presence.bury, self.file.owners, now)
        self.writer.do(presence.forget, now - keep)

    def _abandon(self) -> None:
        """Let the owner be dead at once, and then both threads end."""
        if (lock := self.lock) is not None:
            lock.release(left=False)
        self.reader.thread.abandon(self.reader.access.close)
        self.writer.thread.abandon(self._leave_behind)

    def _leave_behind(self) -> None:
        if self.lock is not None:  # it may have been made meanwhile
            self.lock.release(left=False)
        self.writer.access.close()

    def end(self) -> None:
        """Undo what was begun; nothing that fails is worth a word."""
        if self.lock is not None:
            left = False
            with suppress(LedgerError):
                self.writer.do(presence.leave, self.owner_id, time())
                left = True
            self.lock.release(left=left)
        self.writer.access.close()


class SqliteLedger:
    """A handle on a ledger in a file.

    :param path: of the file; it is made with mode 0600, and its folder with 0700, if they do not
        exist. A relative path starts at the folder that is the current one now.
    :param keep: seconds, or a ``timedelta``, for which finished rows are kept; default seven days.
        Those of lost creates that were proven absent are kept for three hours at least.
    :raises ConfigurationError: ``path`` can be none, or ``keep`` is no number of seconds.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, keep: float | timedelta = 7 * 86400.0
    ) -> None:
        # Not Path.cwd(): the kernel knows the folder by heart, but os.getcwd() counts as blocking.
        self.path: Final = str(Path(os.fsdecode(os.getcwdb())) / check_path("path", path))
        self._keep = check_seconds("keep", keep)
        self._session: _Session | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    async def open(self, owner_id: str) -> None:
        """Make the file ready, and announce the owner.

        :raises LedgerError: there is no using the file, and the message says what to do; or the
            handle is open, or somebody else of that id is alive. The handle can be opened again.
        """
        if self._session is not None:
            raise LedgerError(f"the ledger {self.path} is open already in this handle")
        session = _Session(self.path, owner_id)
        try:
            await session.writer.thread.run(session.begin)
        except LedgerError:
            await _stopped(session)
            raise
        except BaseException:
            _stop(session)  # the thread may be blocked, and nobody waits for it
            raise
        self._session = session

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        """Do the writes; see :meth:`~sigmic_guard.ledger.protocol.Ledger.commit`.

        A commit whose caller is cancelled is done all the same if it had begun. Repeated, a write
        that was done is done.
        """
        session = self._opened()
        return await session.writer.run(statements.commit, writes) if writes else []

    async def get(self, intent_id: str) -> Record | None:
        """Return one row."""
        return await self._read(statements.get, intent_id)

    async def find(self, identifier: str) -> Sequence[Record]:
        """Return the rows whose intent id or remote id it is."""
        return await self._read(statements.find, identifier)

    async def holder(self, namespace: str, key: str) -> Record | None:
        """Return the unfinished row that holds the key."""
        return await self._read(statements.holder, namespace, key)

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        """Return the rows that have no ``finished_at``."""
        return await self._read(statements.unfinished, namespace, owner_id, remote_id)

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        """Return the ids of those who own unfinished rows."""
        return await self._read(statements.owners, namespace)

    async def absent(self, namespace: str, since: float) -> Sequence[Record]:
        """Return the rows whose absence was proven since."""
        return await self._read(statements.absent, namespace, since)

    async def owner_alive(self, owner_id: str) -> bool:
        """Tell whether the owner's process lives and has its handle open."""
        return await self._read(presence.is_alive, self._opened().file.owners, owner_id)

    async def last_seen(self, owner_id: str) -> float | None:
        """Return the owner's last sign of life."""
        return await self._read(presence.last_seen, self._opened().file.owners, owner_id)

    async def dead_for(self, owner_id: str) -> float:
        """Return the seconds since any process of this boot of the machine saw the owner dead."""
        session, owner_id = self._opened(), clean_text(owner_id)
        passed = await self._read(presence.dead_for, owner_id)
        if passed is None:
            passed = await session.writer.run(presence.see_dead, session.file.owners, owner_id)
        return passed

    async def upkeep(self, now: float) -> None:
        """Leave a sign of life, clear away the dead, and delete old rows.

        A transaction deletes a thousand rows, and a call 20,000 at most, so that commits can come
        in between.
        """
        session = self._opened()
        await session.writer.thread.run(partial(session.upkeep, now, self._keep))
        before, absent = now - self._keep, now - max(self._keep, ABSENT_KEEP)
        for _ in range(PORTIONS):
            deleted = await session.writer.run(statements.prune, before, absent)
            if deleted < statements.PORTION:
                break

    async def aclose(self) -> None:
        """Withdraw the announcement, and let go of the file.

        Afterwards nothing here has the file open, unless a read takes more than a second to end.
        """
        session, self._session = self._session, None
        if session is not None and session.pid == os.getpid():
            notice()
            await _stopped(session)

    async def _read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._opened().reader.run(function, *args, **kwargs)

    def _opened(self) -> _Session:
        session = self._session
        if session is None:
            raise LedgerError(
                f"the ledger {self.path} is not open: call open(), and nothing after aclose()"
            )
        if session.pid != os.getpid():
            raise LedgerError(
                f"the ledger {self.path} was opened by another process (pid {session.pid}), from "
                "which this one was forked: make one here, before that opens it, or use spawn"
            )
        return session


def _stop(session: _Session) -> tuple[Call, Call] | None:
    """Let both threads end, without waiting for them; ``None`` if they do so by themselves."""
    if not session.ending.forget():
        return None  # its loop is gone
    reading = session.reader.thread.stop(session.reader.access.close)
    return session.writer.thread.stop(session.end), reading


async def _stopped(session: _Session) -> None:
    """Let both threads end, and wait for it."""
    if (calls := _stop(session)) is not None:
        writing, reading = calls
        await writing.wait()
        with move_on_after(READING):
            await reading.wait()
