"""What a key leads to: at most one live task per namespace and key.

A create whose key is taken comes here. A live owner's task is left alone. A dead owner's is claimed
where its policy says ``on_crash="reattach"``: the new task becomes the one that is running, instead
of creating, and paying for, another. Where it is to be cancelled the create waits until it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import move_on_after, sleep

from sigmic_guard.errors import DuplicateKey
from sigmic_guard.ledger import Orphan, last_sign
from sigmic_guard.lifecycle import REAPABLE, Event, State, TakeOver, Verdict, step
from sigmic_guard.observe import ReapResult
from sigmic_guard.supervisor.reaper import TakenRow

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.supervisor.entry import Entry
    from sigmic_guard.supervisor.outbox import Outbox
    from sigmic_guard.supervisor.reaper import Reaper
    from sigmic_guard.supervisor.roster import Roster

#: Seconds, beyond the time that a lost create takes to be found, to wait for a dead owner's task.
PATIENCE: Final = 15.0
#: Seconds before the ledger is asked again who holds a key.
PAUSE: Final = 0.02
#: Seconds after which a create that waits for a dead owner's task looks whether it is still wanted.
LOOK: Final = 1.0

_OUT_OF_REACH: Final = {
    Verdict.OTHER_SYSTEM: "it is a task of another base URL",
    Verdict.OTHER_CREDENTIAL: "it was made with another credential",
}


class Claims:
    """Resolves keys that a row of the ledger holds."""

    def __init__(
        self,
        roster: Roster,
        outbox: Outbox,
        ledger: Ledger,
        reaper: Reaper,
        *,
        owner_id: str,
        namespace: str,
        create_timeout: float,
    ) -> None:
        self._roster = roster
        self._outbox = outbox
        self._ledger = ledger
        self._reaper = reaper
        self._owner_id = owner_id
        self._namespace = namespace
        self._patience = create_timeout + PATIENCE

    async def resolve(self, task: Entry) -> bool:
        """Find out who holds the task's key; ``True`` if the task is now the one that does.

        ``False`` if the key is free, or the task was withdrawn meanwhile.

        :raises DuplicateKey: a live owner's task holds the key, or one that cannot be ended.
        :raises LedgerError: the ledger could not be read or written.
        """
        key = task.record.key
        assert key is not None
        with move_on_after(self._patience):
            while task.record.state is State.INTENT:
                row = await self._ledger.holder(self._namespace, key)
                if row is None:
                    return False
                if row.owner_id == self._owner_id:
                    await self._wait_for(row)
                elif await self._ledger.owner_alive(row.owner_id):
                    raise DuplicateKey("a live task of another process holds the key", key=key)
                elif await self._claim(task, row):
                    return True
                await sleep(PAUSE)
            return False
        raise DuplicateKey("a dead process's task still holds the key; it is being ended", key=key)

    async def _wait_for(self, row: Record) -> None:
        """Wait for the end of a task that was taken over here, or for its being written down."""
        task, key = self._roster.tasks.get(row.intent_id), row.key or ""
        if task is None:
            await self._outbox.flush()
            return
        if task.orphan is None:
            raise DuplicateKey("a live task of this process holds the key", key=key)
        with move_on_after(LOOK):
            await task.until(lambda task: not task.worked_on or task.unsupervised)
        if task.worked_on and not task.unsupervised:
            return
        if task.record.finished_at is None:
            raise DuplicateKey(
                "a dead process's task holds the key, and its end cannot be proven", key=key
            )
        await self._outbox.flush()

    async def _claim(self, task: Entry, row: Record) -> bool:
        """Take a dead owner's row for ``task``; ``False`` if it is not to be had, for now."""
        seen = await self._ledger.last_seen(row.owner_id)
        dead_for = await self._ledger.dead_for(row.owner_id)
        orphan = Orphan(row, last_sign(row, seen), dead_for)
        verdict = await self._reaper.judge(orphan)
        if verdict in REAPABLE:
            await self._reaper.take_over([(orphan, verdict)])
            return False
        if verdict is not Verdict.WAIT:
            raise DuplicateKey(
                "a dead process's task holds the key, and is out of reach here: "
                f"{_OUT_OF_REACH[verdict]}; ask for it with that, or use another key",
                key=row.key or "",
            )
        mine = task.record
        heir = TakeOver(self._owner_id, None, mine.policy, mine.deadline_at)
        after = step(row, Event.TAKE_OVER, self._roster.now(), heir=heir)
        # If we are hit meanwhile, or nobody wants it any more, it is an orphan like any other.
        taken = TakenRow(after, Verdict.REAP, orphan.orphaned_at)
        if not await self._reaper.commit([taken]):
            return False
        if task.record.state is not State.INTENT:
            self._reaper.see_to(taken)
            return False
        task.marked = after.message_digest is None
        task.claimed = True
        self._roster.claim(task, after)
        self._reaper.tally.tell(task, ReapResult.REATTACHED, orphaned_at=orphan.orphaned_at)
        return True
