"""What the API tells of tasks, and what of it may be believed.

A read may be from before the last write, or about another task; and a completion says nothing
while a follow-up may be on its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sigmic_guard.lifecycle import CancelReason, CancelResult, Event, State
from sigmic_guard.lifecycle.states import ENDED
from sigmic_guard.lifecycle.text import tidy_detail
from sigmic_guard.supervisor.ground.lag import BRAND_NEW, end_in, is_new

if TYPE_CHECKING:
    from sigmic_guard.observe import Observers
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.lag import End
    from sigmic_guard.supervisor.ground.roster import Roster


class Readings:
    """Handles what was read of a task, by GET, in the list or from its stream.

    :param request_timeout: seconds for which a dead owner's follow-up may be on its way.
    """

    def __init__(self, roster: Roster, observer: Observers, *, request_timeout: float) -> None:
        self._roster = roster
        self._origins = roster.origins
        self._observer = observer
        self._request_timeout = request_timeout
        roster.finished.append(self._finished)

    def start_over(self, task: Entry) -> None:
        """Forget what was read of the task: it was about another one."""
        if task.ending is not None:
            task.ending.answer = task.ending.last_end = None

    def _finished(self, task: Entry) -> None:
        if task.ending is not None:
            task.ending.last_end = None

    def miss(self, task: Entry) -> None:
        """Handle a 404: the task was taken away, unless reads may lag.

        That is no proof that it costs nothing, so it is cancelled.
        """
        if self.may_lag(task):
            return
        if task.record.state is State.UNCONFIRMED:  # that was all that could still be found out
            self._roster.end(task, CancelResult.NOT_FOUND)
        else:
            self._roster.cancel(task, CancelReason.REMOTE)

    def may_lag(self, task: Entry) -> bool:
        """Tell whether a read may still be from before the last write."""
        return task.lifetime.moment() < task.written_at + BRAND_NEW

    def recheck_in(self, task: Entry, delay: float) -> float:
        """Return after how many seconds to ask again: by then the answer counts, or ``delay``."""
        left = task.written_at + BRAND_NEW - task.lifetime.moment()
        return min(delay, left) if left > 0 else delay

    def complete(self, task: Entry, end: End, *, keep_open: bool = False) -> bool:
        """Handle a completion that was read; ``False`` if that says nothing, for now.

        :param keep_open: a follow-up may come, although no block holds the task.
        """
        asked_again = task.record.asked_at is not None and self.may_lag(task)
        if asked_again and not is_new(end, task.last_end):
            return False  # it may have ended so before it was asked
        if self._was_asked_lately(task):
            return False
        ending = task.begin_ending()
        ending.answer = end.answer
        if self._observer.tracing and task.record.state not in ENDED:
            self._observer.detail(task.record, "answer", end.answer)
        if keep_open or task.accepts_follow_up:
            ending.last_end = end
        completed = self._roster.apply(task, Event.COMPLETE, status="completed")
        if not keep_open:
            self._close_unless_held(task)
        return completed

    def complete_again(self, task: Entry) -> None:
        """Take back that a completed task runs: the follow-up was refused."""
        self._roster.apply(task, Event.COMPLETE)
        self._close_unless_held(task)

    def _close_unless_held(self, task: Entry) -> None:
        if task.record.state is State.COMPLETED and not task.accepts_follow_up:
            self._roster.apply(task, Event.CLOSE)

    def learn_last_end(self, task: Entry, end: End) -> None:
        """Note more of how the last turn ended, of a task that is asked again."""
        task.begin_ending().last_end = end

    def _was_asked_lately(self, task: Entry) -> bool:
        """Tell whether a follow-up of a dead owner's may be on its way to the task still."""
        inheritance = task.inheritance
        return (
            inheritance is not None
            and inheritance.last_follow_up_at is not None
            # Else it was asked by us since.
            and task.record.asked_at == inheritance.last_follow_up_at
            and task.lifetime.moment() < inheritance.at + self._request_timeout + BRAND_NEW
        )

    def adopt(self, task: Entry, info: TaskInfo) -> None:
        """Take on a task that exists already, as it was read.

        One that has completed was adopted to be asked again, so it stays open until it has been.
        """
        self._roster.apply(task, Event.ADOPT, remote_id=info.id)
        if info.status == "completed":
            self.complete(task, end_in(info), keep_open=True)
        else:
            self.observe(task, info, task.generation)

    def is_about(self, task: Entry, info: TaskInfo) -> bool:
        """Tell whether an answer is about this task, and not one that somebody mixed up with it."""
        return info.id == task.record.remote_id and not self._origins.is_anothers(task, info)

    def observe(self, task: Entry, info: TaskInfo, generation: int) -> bool:
        """Handle what was read of a task; ``True`` if it is the end.

        :param generation: the task's when it was asked: an answer from before a follow-up says
            nothing after it. Nor does an answer about another id.
        """
        if info.id != task.record.remote_id:
            return False
        if self._origins.is_anothers(task, info):
            self._origins.mistaken(task, info)
            return False
        self._origins.trust(task)
        if self._observer.tracing:
            self._observer.detail(task.record, "conversation", info.conversation_id)
        if generation != task.generation or task.record.state in ENDED:
            return task.record.state in ENDED
        if task.sending and info.status != "cancelled":
            return False  # a follow-up under way may start it again at any moment
        match info.status:
            case "completed":
                return self.complete(task, end_in(info))
            case "failed":
                task.begin_ending().error = tidy_detail(info.error)
                return self._roster.apply(task, Event.FAIL, status=info.status)
            case "cancelled":
                return self._roster.apply(task, Event.CANCELLED, status=info.status)
            case word if info.terminal:
                return self._end_in_unknown(task, word, info.error)
            case _:
                return False

    def _end_in_unknown(self, task: Entry, word: str, error: Any) -> bool:
        """Handle the end of a task in a status that is not documented."""
        if task.record.reason is not None:
            return self._roster.apply(task, Event.CANCELLED, status=word)  # as we had asked
        said = error if error is not None else f"the task ended as {word!r}"
        task.begin_ending().error = tidy_detail(said)
        return self._roster.apply(task, Event.FAIL, status=word)
