"""What a key leads to: at most one live task per namespace and key.

A create whose key is taken comes here. A live owner's task is left alone, unless it was handed
over: then its owner has let go of it, and has only yet to leave. Such a task is claimed, and so is
a dead owner's where its policy says ``on_crash="reattach"``: the new task becomes the one that is
running, instead of creating, and paying for, another. Where it is to be cancelled the create waits
until it is.

Waiting for a key holds no worker: between two looks a claim is with the timer, or with the task
that it waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import current_time, move_on_after

from sigmic_guard.errors import DuplicateKey, LedgerError
from sigmic_guard.ledger import Orphan, last_sign
from sigmic_guard.lifecycle import (
    REAPABLE,
    Event,
    ReapResult,
    Reattachment,
    State,
    TakeOver,
    Verdict,
    step,
)
from sigmic_guard.lifecycle.orphan import orphan_since
from sigmic_guard.supervisor.ground.from_entry import key_taken
from sigmic_guard.supervisor.ground.workers import Pool
from sigmic_guard.supervisor.recovery.reaper import TakenRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.ground.timer import Alarm
    from sigmic_guard.supervisor.recovery.reaper import Reaper

#: Keys that are looked at, and rows that are taken, at once.
MAX_LOOKS: Final = 32
#: Seconds, beyond the time that a lost create takes to be found, to wait for a dead owner's task.
KEY_WAIT_SECONDS: Final = 15.0
#: Seconds before the ledger is asked again who holds a key.
RECHECK_SECONDS: Final = 0.02
#: The same, while another process ends a dead owner's task that holds it.
REAPED_RECHECK_SECONDS: Final = 0.2
#: Seconds after which it is looked whether anybody still works on the task that holds it.
OWNER_CHECK_SECONDS: Final = 1.0

_OUT_OF_REACH: Final = {
    Verdict.OTHER_SYSTEM: "it is a task of another base URL",
    Verdict.OTHER_CREDENTIAL: "it was made with another credential",
}


class Claim:
    """A create whose key is taken."""

    __slots__ = ("alarm", "answer", "behind", "ends_at", "holder", "task")

    def __init__(
        self, task: Entry, ends_at: float, answer: Callable[[Entry, BaseException | None], None]
    ) -> None:
        self.task = task
        #: When to wait no more, on anyio's clock.
        self.ends_at = ends_at
        self.answer = answer
        #: The dead owner's task that it waits for, if that was taken over here.
        self.behind: Entry | None = None
        #: The row that had the key when it was looked at last.
        self.holder: Record | None = None
        #: When it is looked at again.
        self.alarm: Alarm | None = None


class Claims:
    """Takes creates whose key a row of the ledger holds; they get a task, the key, or an error."""

    def __init__(
        self,
        ground: Ground,
        reaper: Reaper,
    ) -> None:
        self._roster = ground.roster
        self._outbox = ground.outbox
        self._timer = ground.timer
        self._ledger = ground.ledger
        self._owner_id = ground.owner_id
        self._namespace = ground.settings.namespace
        self._wait_seconds = ground.settings.create_timeout + KEY_WAIT_SECONDS
        self._reaper = reaper
        self._pool: Pool[Claim] = Pool(
            ground.workers, "claim", self._work, MAX_LOOKS, failed=_answer
        )
        #: By the task that they wait for: each key has one create at most.
        self._behind: dict[Entry, Claim] = {}
        self._roster.finished.append(self._finished)
        #: Let nobody be told of a key any more.
        self.hold = self._pool.hold

    def claim_key(self, task: Entry, answer: Callable[[Entry, BaseException | None], None]) -> None:
        """Find out who holds the task's key, and wait for its end where that is near.

        :param answer: called with the task, and ``None`` once the key is free, or with the error: a
            ``DuplicateKey`` where a live owner's task holds the key or one that is not to be had,
            a ``LedgerError``, or what hit the worker. Not called where the task is now the one
            that has the key, or was withdrawn.
        """
        self._pool.put(Claim(task, current_time() + self._wait_seconds, answer))

    async def _work(self, claim: Claim) -> None:
        if claim.task.record.state is not State.INTENT:
            return  # withdrawn while it waited
        left = claim.ends_at - current_time()
        try:
            with move_on_after(left) as waiting:
                if left > 0 and await self.find_holder(claim):
                    _answer(claim, None)
        except (DuplicateKey, LedgerError) as error:
            _answer(claim, error)
        except BaseException as hit:
            if not isinstance(hit, Exception):
                _answer(claim, hit)
            raise
        else:
            if left <= 0 or waiting.cancelled_caught:
                late = "a dead process's task still holds the key; it is being ended"
                holder, key = claim.holder, claim.task.record.key or ""
                _answer(claim, key_taken(late, holder) if holder else DuplicateKey(late, key=key))

    async def find_holder(self, claim: Claim) -> bool:
        """Tell whether the key is free; otherwise see to it that somebody looks again, if need be.

        :raises DuplicateKey: a live owner's task holds the key, or one that cannot be ended.
        :raises LedgerError: the ledger could not be read or written.
        """
        task, claim.behind = claim.task, None
        row = await self._ledger.holder(self._namespace, task.record.key or "")
        claim.holder = row
        if row is None:
            return True
        pause = RECHECK_SECONDS
        if row.owner_id == self._owner_id:
            claim.behind = await self._task_of(row)
        elif row.state is not State.HANDED_OVER and await self._ledger.owner_alive(row.owner_id):
            if not row.orphan:
                raise key_taken("a live task of another process holds the key", row)
            pause = REAPED_RECHECK_SECONDS  # another process was quicker, and sees to its end
        elif await self._claim(task, row):
            return False
        if claim.behind is not None:
            self._behind[claim.behind] = claim
            pause = OWNER_CHECK_SECONDS
        claim.alarm = self._timer.after(pause, self._due, claim)
        return False

    async def _task_of(self, row: Record) -> Entry | None:
        """Return the task that was taken over here; ``None`` if its end is being written down."""
        task = self._roster.tasks.get(row.intent_id)
        if task is None:
            await self._outbox.flush()
            return None
        if not task.record.orphan:
            raise key_taken("a live task of this process holds the key", row)
        if not self._reaper.works_on(task):
            raise key_taken(
                "a dead process's task holds the key, and its end cannot be proven", row
            )
        return task

    def _due(self, claim: Claim) -> None:
        """Look again, unless the other task is as it was."""
        behind, now = claim.behind, current_time()
        if (
            behind is not None
            and self._reaper.works_on(behind)
            and claim.task.record.state is State.INTENT
            and now < claim.ends_at
        ):
            claim.alarm = self._timer.at(
                min(now + OWNER_CHECK_SECONDS, claim.ends_at), self._due, claim
            )
        else:
            self._again(claim)

    def _again(self, claim: Claim) -> None:
        self._timer.forget(claim.alarm)
        if claim.behind is not None and self._behind.get(claim.behind) is claim:
            del self._behind[claim.behind]
        self._pool.put(claim)

    def _finished(self, task: Entry) -> None:
        claim = self._behind.get(task)
        if claim is not None:
            self._again(claim)

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
            raise key_taken(
                "a dead process's task holds the key, and is out of reach here: "
                f"{_OUT_OF_REACH[verdict]}; ask for it with that, or use another key",
                row,
            )
        mine = task.record
        heir = Reattachment(self._owner_id, mine.policy, mine.deadline_at)
        now = self._roster.now()
        after, since = step(row, Event.REATTACH, now, heir=heir), orphan_since(*orphan, now)
        # If we are hit meanwhile, or nobody wants it any more, it is an orphan like any other.
        given_up = step(after, Event.TAKE_OVER, now, heir=TakeOver(self._owner_id, since))
        taken = TakenRow(after, given_up)
        if not await self._reaper.commit([taken]):
            return False
        if task.record.state is not State.INTENT:
            self._reaper.admit(taken)
            return False
        self._roster.reattach(task, after)
        self._reaper.tally.record(task, ReapResult.REATTACHED, orphaned_at=since)
        return True


def _answer(claim: Claim, error: BaseException | None) -> None:
    if claim.task.record.state is State.INTENT:
        claim.answer(claim.task, error)
