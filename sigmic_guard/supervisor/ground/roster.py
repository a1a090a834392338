"""All live tasks, and the one way to change any of them.

:meth:`Roster.apply` moves a record through the lifecycle's funnel and then tells everyone: the
ledger's outbox, the observers, the rooms that react to a state, and whoever waits on the handle. It
is a plain call: no checkpoint lies between deciding something and everybody's knowing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sigmic_guard.lifecycle import (
    CancelReason,
    CancelResult,
    Event,
    Record,
    State,
    step,
)
from sigmic_guard.lifecycle.states import ENDED, TO_BE_ENDED
from sigmic_guard.lifecycle.text import one_line, tidy_status
from sigmic_guard.observe import CancellationEnded, TaskChanged, TaskLeft
from sigmic_guard.supervisor.ground.durations import (
    begin_in_the_past,
    begin_now,
    moment_of,
    seconds_of,
    seconds_since_cancel,
)
from sigmic_guard.supervisor.ground.entry import Inheritance
from sigmic_guard.supervisor.ground.lag import BRAND_NEW, WRONG_CLOCK
from sigmic_guard.supervisor.ground.origins import Origins
from sigmic_guard.supervisor.ground.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.observe import Observers
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.lifetime import Lifetime
    from sigmic_guard.supervisor.ground.outbox import Outbox

#: A body ends by itself for these; for all others it has to be cancelled.
_FROM_THE_BODY: Final = frozenset({CancelReason.SCOPE, CancelReason.ERROR})
#: A cancellation that comes into these is not over.
_TOLD_LATER: Final = frozenset({State.CANCELLING, State.DETACHED, State.UNKNOWN})


class Roster:
    """The live tasks of one supervisor, by intent id, by remote id and by key."""

    def __init__(
        self,
        outbox: Outbox,
        observer: Observers,
        lifetime: Lifetime,
    ) -> None:
        self._outbox = outbox
        self._observer = observer
        self.now, self.moment = lifetime.now, lifetime.moment
        self.tasks: dict[str, Entry] = {}
        self.named: dict[str, Entry] = {}
        self.keys: dict[str, Entry] = {}
        self.origins = Origins(self.tasks)
        #: What to do when a task comes into a state; filled in by the core.
        self.reactions: dict[State, Callable[[Entry], None]] = {}
        #: Is called with each task that came into another state, or has finished.
        self.changed: Callable[[Entry], None] | None = None
        #: What to do when a task has finished.
        self.finished: list[Callable[[Entry], None]] = []
        #: Nothing changes any more: somebody else may own these tasks by now.
        self._closed = False
        #: What is left, and was not told yet.
        self._untold: list[Entry] | None = None

    def enter(self, task: Entry) -> None:
        """Take a new task on. Its intent is not in the ledger yet."""
        record = task.record
        self.tasks[record.intent_id] = task
        if record.key is not None:
            self.keys[record.key] = task
        self._outbox.withhold(record)
        self._observer.observe(TaskChanged(None, record, None))

    def inherit(self, task: Entry) -> None:
        """Take a dead owner's task on, whose row is ours already."""
        record = task.record
        self.tasks[record.intent_id] = task
        self._note_take_over(task, record)
        self._observer.observe(TaskChanged(None, record, Event.TAKE_OVER))
        self._settle_in(task)

    def reattach(self, task: Entry, record: Record) -> None:
        """Let a task that was not created be a dead owner's, whose row is ours already."""
        self._note_take_over(task, record)
        begin_in_the_past(task, record)
        self._replace(task, record, Event.REATTACH)
        self._settle_in(task)

    def hand_back(self, record: Record) -> None:
        """Let a row that was claimed by its key, too late, be there for it again."""
        if record.state is State.RUNNING and record.on_shutdown == "reattach":
            self._outbox.add(record, step(record, Event.HAND_OVER, self.now()))

    def renew(self, task: Entry, record: Record) -> None:
        """Let a task whose create had no effect begin again, with an intent of its own."""
        self._outbox.add(task.record, step(task.record, Event.ABSENT, self.now()))
        self._outbox.withhold(record)
        begin_now(task)
        self._replace(task, record, None)
        task.wake()

    def _note_take_over(self, task: Entry, record: Record) -> None:
        task.inheritance = Inheritance(self.moment(), record.asked_at)
        if record.cancel_requested_at is not None:
            task.begin_ending().wanted_at = moment_of(task, record.cancel_requested_at)
        written_at = record.asked_at or record.posted_at or record.created_at
        if self.now() - written_at < WRONG_CLOCK + BRAND_NEW:  # by a clock that was not ours
            task.note_write()

    def _replace(self, task: Entry, record: Record, event: Event | None) -> None:
        before = task.record
        self._outbox.release(before)
        del self.tasks[before.intent_id]
        self.tasks[record.intent_id] = task
        task.record = record
        self._observer.observe(TaskChanged(before, record, event))

    def _settle_in(self, task: Entry) -> None:
        record = task.record
        if record.remote_id is not None:
            namesake = self.named.setdefault(record.remote_id, task)
            task.create = None
            if namesake.record.orphan and not task.record.orphan:
                self.named[record.remote_id] = task  # who is wanted bears the name
        if self.changed is not None:
            self.changed(task)
        reaction = self.reactions.get(record.state)
        if reaction is not None:
            reaction(task)
        task.wake()

    def apply(
        self,
        task: Entry,
        event: Event,
        *,
        remote_id: str | None = None,
        reason: CancelReason | None = None,
        error: str | None = None,
        status: str | None = None,
    ) -> bool:
        """Let ``event`` happen to the task; ``False`` if it changed nothing."""
        if self._closed:
            return False
        before = task.record
        # Whoever told it: what a row holds is in one line, and not of any length.
        error = error and one_line(error)
        status = status and tidy_status(status)
        after = step(
            before,
            event,
            self.now(),
            remote_id=remote_id,
            reason=reason,
            error=error,
            status=status,
        )
        if after is before:
            return False
        task.record = after
        if after.reason is not before.reason:
            task.begin_ending().wanted_at = self.moment()
        # The POST's own row says little more than the intent: it can wait for the id.
        self._outbox.add(before, after, urgent=event is not Event.POST)
        if after.state is not before.state:
            if after.state in ENDED:
                task.begin_ending().ended_at = self.moment()
            elif task.ending is not None:
                task.ending.ended_at = None
        finished = after.over and not before.over
        self._observer.observe(
            TaskChanged(before, after, event, seconds_of(task) if finished else None)
        )
        if after.state is not before.state:
            self._moved(task, before, after)
        if finished:
            self._forget(task)
        if self.changed is not None and (finished or after.state is not before.state):
            self.changed(task)
        task.wake()
        return True

    def _moved(self, task: Entry, before: Record, after: Record) -> None:
        if after.remote_id is not None and before.remote_id is None:
            self.named[after.remote_id] = task
            task.create = None
            task.note_write()
        elif after.remote_id is None and before.remote_id is not None:
            self._forget_name(task, before.remote_id)
        to_be_ended = before.state in TO_BE_ENDED or (
            before.state is State.TAKEN_OVER and before.reason is not None
        )
        if to_be_ended and after.state not in _TOLD_LATER:
            self._tell_result(task, after)
        if after.state is State.CANCELLED and after.reason is CancelReason.REMOTE:
            task.interrupt(CancelReason.REMOTE)
        reaction = self.reactions.get(after.state)
        if reaction is not None:
            reaction(task)

    def _tell_result(self, task: Entry, after: Record) -> None:
        ending = task.begin_ending()
        if after.state is State.UNCONFIRMED:
            ending.result = CancelResult.UNCONFIRMED
        elif after.state is not State.CANCELLED:
            ending.result = CancelResult.ALREADY_FINISHED
        elif ending.result in {None, CancelResult.UNCONFIRMED}:
            ending.result = CancelResult.CONFIRMED  # somebody saw it, and no DELETE said so
        assert ending.result is not None
        self._observer.observe(CancellationEnded(after, ending.result, seconds_since_cancel(task)))

    def _forget(self, task: Entry) -> None:
        record = task.record
        self.origins.trust(task)
        self.tasks.pop(record.intent_id, None)
        if record.remote_id is not None:
            self._forget_name(task, record.remote_id)
        if record.key is not None and self.keys.get(record.key) is task:
            del self.keys[record.key]
        for finished in self.finished:
            finished(task)

    def _forget_name(self, task: Entry, remote_id: str) -> None:
        if self.named.get(remote_id) is task:
            del self.named[remote_id]

    async def close(self) -> None:
        """Let nothing change any more, and tell once what is left; begun again, it goes on."""
        if self._untold is None:
            self._closed, self._untold = True, list(self.tasks.values())
        slices = Slices()
        while self._untold:
            self._observer.observe(TaskLeft(self._untold.pop().record))
            await slices.yield_if_due()

    def cancel(self, task: Entry, reason: CancelReason) -> None:
        """Want the task ended. The first cause stays; a task that has ended is left alone."""
        first = self.apply(task, Event.CANCEL, reason=reason)
        if task.record.state is State.INTENT:
            self.apply(task, Event.WITHDRAW)
        if reason is CancelReason.SHUTDOWN or (first and reason not in _FROM_THE_BODY):
            task.interrupt(reason)

    def end(self, task: Entry, result: CancelResult) -> None:
        """Take in that the task was cancelled, or is gone.

        :param result: how that is known.
        """
        task.begin_ending().result = result
        self.apply(task, Event.CANCELLED)
