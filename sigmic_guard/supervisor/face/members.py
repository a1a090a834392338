"""The tasks that end together: the records behind a :class:`~sigmic_guard.RemoteTaskGroup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import finalize

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.lifecycle import CancelReason

if TYPE_CHECKING:
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.inbox import Inbox
    from sigmic_guard.supervisor.ground.lifetime import Lifetime
    from sigmic_guard.supervisor.work.deciding import Decider

#: So many members are kept before those that are over are dropped.
MOST_OVER: Final = 16


class Members:
    """Knows tasks by their records, not by the code that holds them, and ends them all.

    So it does not matter what became of that code: a generator that nobody iterates over any more
    cannot keep its task alive. Nor does it matter what became of the group: one that nobody holds
    any more was left as well.
    """

    __slots__ = (
        *("__weakref__", "_claims", "_decider", "_inbox", "_left_behind", "_lifetime"),
        *("_look_at", "_tasks", "ended"),
    )

    def __init__(self, decider: Decider, lifetime: Lifetime, inbox: Inbox) -> None:
        self._decider = decider
        self._lifetime = lifetime
        self._inbox = inbox
        #: Begun in blocks, which own them.
        self._tasks: list[Entry] = []
        #: Owned by the group itself, and maybe by others as well.
        self._claims: list[Entry] = []
        #: Leaves for us what nobody can any more.
        self._left_behind: finalize[..., Members] | None = None
        self._look_at = MOST_OVER
        #: Whether no task is taken on any more.
        self.ended = False

    def check_open(self) -> None:
        """Refuse a task that comes too late.

        :raises ConfigurationError: the group has ended.
        """
        if self.ended:
            raise ConfigurationError(
                "the group has ended, and takes no task: supervisor.start() makes one that belongs "
                "to the supervisor alone"
            )

    def add(self, task: Entry) -> None:
        """Take on a task that is begun in a block."""
        self._drop_done()
        self._tasks.append(task)

    def claim(self, task: Entry) -> None:
        """Own a task that no block of this group does; others may own it as well.

        A group that has ended meanwhile lets go of it at once.
        """
        self._drop_done()
        if self._left_behind is None:
            # Called after the claims are void, also where a cycle is collected; __del__ is not.
            self._left_behind = finalize(
                self, self._inbox.leave, _leave_behind, self._decider, self._lifetime, self._claims
            )
            self._left_behind.atexit = False
        if task.claim(self):
            self._claims.append(task)
        if self.ended:
            self._let_go(task)

    def _drop_done(self) -> None:
        if len(self._tasks) + len(self._claims) >= self._look_at:
            self._tasks = [task for task in self._tasks if not _done_with(task)]
            self._claims[:] = [task for task in self._claims if not task.record.over]
            self._look_at = max(MOST_OVER, 2 * (len(self._tasks) + len(self._claims)))

    @property
    def live(self) -> list[Entry]:
        """Those that are not over."""
        return [task for task in (*self._tasks, *self._claims) if not task.record.over]

    def end(self) -> None:
        """End all that nobody else owns; the bodies of their blocks are cancelled."""
        self.ended = True
        if self._lifetime.closing:
            return  # the drain ends them, with a reason and a policy of its own
        for task in self._claims:
            self._let_go(task)
        for task in self._tasks:
            if task.record.over:
                continue
            if task.has_body:
                if not task.claimed:
                    self._decider.cancel(task, CancelReason.SCOPE)
                task.interrupt(CancelReason.SCOPE)
            else:
                self._decider.release(task)

    def _let_go(self, task: Entry) -> None:
        if task.unclaim(self) and not (task.record.over or task.has_body):
            self._decider.release(task)

    def end_left_behind(self, error: BaseException | None) -> bool:
        """End all that are live, once the running asyncio or trio task has left their code.

        A block that this task entered, and that is still open, was left behind: there is no body
        to be cancelled, only a scope that would strike whatever the task does next. It is left.

        Returns whether ``error``, which came out of that code, was the cancellation of one of them.
        """
        ours = False
        for task in reversed(self._tasks):  # the scope that was entered last is left first
            if task.block is None or (block := task.block.alive) is None:
                continue
            if block.is_hosted_here:
                task.block.body_over()
                ours = block.leave_behind(None if ours else error) or ours
        self.end()
        self._tasks.clear()
        self._claims.clear()
        return ours

    def leave_alone(self) -> None:
        """Own nothing any more, and end nothing."""
        self.ended = True
        for task in self._claims:
            if task.unclaim(self) and not (task.has_body or task.claimed):
                self._decider.leave(task)  # one that had completed is asked nothing more
        self._tasks.clear()
        self._claims.clear()


def _leave_behind(decider: Decider, lifetime: Lifetime, claims: list[Entry]) -> None:
    """End the tasks of a group that is gone, as its end would have."""
    if not lifetime.closing:
        for task in claims:
            if not (task.record.over or task.has_body):
                decider.disown(task)


def _done_with(task: Entry) -> bool:
    return task.record.over and not task.has_body
