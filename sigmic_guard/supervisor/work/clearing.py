"""Before a DELETE that somebody else may mind: the task's row says that it is to end.

If we died with the DELETE on its way, and a row that says nothing of it, somebody could ask for the
key and have a task that this DELETE ends. So the row is written first, and what somebody else has
come to want is let go. That has workers of its own: a ledger that hangs holds up nobody else's
DELETE. One that fails does not stop a DELETE, and one that hangs not for long.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from anyio import move_on_after

from sigmic_guard.errors import LedgerError
from sigmic_guard.supervisor.ground.workers import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.sparing import Sparer

#: Tasks whose rows are waited for at once.
MAX_CLEARING: Final = 32
#: The part of a shutdown's budget for which the ledger is waited for, twice.
SHARE_OF_BUDGET: Final = 0.25


class Clearing:
    """Takes tasks that are to end and that somebody else may want.

    :param seconds: tells for how long a row may be waited for.
    :param cleared: is called with a task whose DELETE may be sent, unless it has ended.
    :param failed: with one that a bug hits.
    """

    def __init__(
        self,
        ground: Ground,
        sparer: Sparer,
        *,
        seconds: Callable[[], float],
        cleared: Callable[[Entry], None],
        failed: Callable[[Entry, Exception], None],
    ) -> None:
        self._outbox = ground.outbox
        self._sparer = sparer
        self._seconds = seconds
        self._cleared = cleared
        self._pool: Pool[Entry] = Pool(
            ground.workers, "clear", self._clear, MAX_CLEARING, failed=failed
        )

    def take(self, task: Entry) -> None:
        """Have a task's row written as soon as a worker is free, and call ``cleared`` then."""
        self._pool.put(task)

    async def _clear(self, task: Entry) -> None:
        try:
            with move_on_after(self._seconds()):
                if self._outbox.holds(task.record):
                    await self._outbox.flush()
                # Before a DELETE is sent again: somebody may have adopted it since.
                if task.record.orphan and task.record.attempts:
                    await self._spare(task)
        except BaseException as hit:
            if not isinstance(hit, Exception):
                self._pool.put(task)  # the worker was hit, the task is as it was
            raise
        self._cleared(task)

    async def _spare(self, task: Entry) -> None:
        with suppress(LedgerError):  # its end was decided while the ledger could be read
            if await self._sparer.is_wanted(task.record):
                self._sparer.let_go(task)

    async def clear_all(self, tasks: Iterable[Entry], budget: float) -> None:
        """Do the same for all that a shutdown is about to end, in one transaction.

        :param budget: seconds that the shutdown may take.
        """
        written = False
        with move_on_after(budget * SHARE_OF_BUDGET):
            written = await self._outbox.flush()
        with move_on_after(budget * SHARE_OF_BUDGET), suppress(LedgerError):
            # Who cannot say that he leaves cannot rely on another who may be leaving as well.
            await self._sparer.spare_all(tasks, orphans_only=not written)
