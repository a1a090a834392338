"""Deciding that a task is to end: by its user, its block, its deadline or the shutdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sigmic_guard.lifecycle import CancelReason, Event, State
from sigmic_guard.lifecycle.states import SETTLED, TO_BE_ENDED
from sigmic_guard.observe import BlockAbandoned

if TYPE_CHECKING:
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.canceller import Canceller

#: Reasons that somebody gives at that moment; the others follow from what has been decided.
_ASKED_FOR: Final = frozenset({CancelReason.USER, CancelReason.SHUTDOWN})


class Decider:
    """Decides, after what was asked for before."""

    def __init__(self, ground: Ground, canceller: Canceller) -> None:
        self._ground = ground
        self._canceller = canceller

    def cancel(self, task: Entry, reason: CancelReason) -> None:
        """Want the task ended; who wants it once more is not kept waiting for the next attempt."""
        self._ground.inbox.flush()
        again = task.record.state in TO_BE_ENDED and reason in _ASKED_FOR
        self._ground.roster.cancel(task, reason)
        if again:
            self._canceller.hurry(task)

    def deadline_reached(self, task: Entry) -> None:
        """End a task that is late."""
        self._ground.inbox.flush()
        if task.record.state is State.COMPLETED:
            # Nothing is asked of it after its deadline.
            self._ground.roster.apply(task, Event.CLOSE)
        else:
            self.cancel(task, CancelReason.DEADLINE)

    def abandon(self, task: Entry) -> None:
        """End a task whose block was left behind: nobody can leave that any more."""
        if task.block is not None:
            task.block.body_over()
        self.disown(task)

    def disown(self, task: Entry) -> None:
        """End a task whose owner is gone without having let go of it, unless it has another."""
        settled = task.record.state in SETTLED or task.record.reason is not None
        if not (settled or task.claimed):
            self._ground.observer.observe(BlockAbandoned(task.record))
        self.release(task)

    def release(self, task: Entry) -> None:
        """End a task whose owner is gone, unless a group owns it; take no follow-up any more."""
        if not task.claimed:
            self.cancel(task, CancelReason.SCOPE)
        self.leave(task)

    def leave(self, task: Entry) -> None:
        """Take no follow-up any more from the block of a task whose end was decided on."""
        if task.block is not None:
            task.block.leave()
        if task.record.state is State.COMPLETED:
            self._ground.roster.apply(task, Event.CLOSE)
