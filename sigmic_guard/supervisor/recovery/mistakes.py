"""Creates that were answered with the id of another create's task: the answers were mixed up.

The proof is in what the API tells of the task behind the id: the mark of another create, or, of two
creates that carry none, the message of the other. A mistake takes the id back; the task is found
again by its own mark, or gets the id that the other one had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sigmic_guard.lifecycle import Event, State
from sigmic_guard.lifecycle.states import TO_BE_ENDED

if TYPE_CHECKING:
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.roster import Roster
    from sigmic_guard.supervisor.recovery.reconciler import Reconciler
    from sigmic_guard.supervisor.work.watcher import Watcher

#: States in which the id may be taken back.
_CORRECTABLE: Final = TO_BE_ENDED | {State.RUNNING, State.TAKEN_OVER}
_WHY: Final = "the API had given it the id of another create's task"


class Mistakes:
    """Sets right what was mixed up."""

    def __init__(self, roster: Roster, reconciler: Reconciler, watcher: Watcher) -> None:
        self._roster = roster
        self._reconciler = reconciler
        self._watcher = watcher
        roster.origins.mistaken = self.correct
        reconciler.mistaken = self.take_back

    def correct(self, task: Entry, info: TaskInfo) -> None:
        """Take the id back that an answer shows to be another create's, and see who has whose."""
        maker = self._roster.origins.maker_of(info)
        if maker is not None and maker.record.state is State.CREATING:
            if not task.marked:
                return  # it is about to be told an id
            maker = None
        if maker is None or not self._may_be_given(maker, info.id):
            self.take_back(task)
            return
        freed = maker.record.remote_id
        self._take_back(maker)
        self.take_back(task, freed=freed)
        self._reconciler.found(maker, info.id)

    def _may_be_given(self, maker: Entry, task_id: str) -> bool:
        record = maker.record
        known = record.state is State.UNKNOWN or record.state in _CORRECTABLE
        return known and record.remote_id != task_id

    def take_back(self, task: Entry, *, freed: str | None = None) -> None:
        """Let the task be looked for; one that carries no mark gets the id that was freed.

        Where there is none, or the task is believed to have completed, nobody can know its own: it
        is let go.
        """
        nobodys = freed is not None and freed not in self._roster.named
        if task.record.state not in _CORRECTABLE or not (task.marked or nobodys):
            self._roster.apply(task, Event.FORGET, error=_WHY)
            if task.marked:
                self._reconciler.expect_stray(task.record)
            return
        self._take_back(task)
        if not task.marked:
            assert freed is not None
            self._reconciler.found(task, freed)

    def _take_back(self, task: Entry) -> None:
        if task.record.state not in _CORRECTABLE:
            return  # nobody has told it an id
        self._watcher.leave(task)
        task.forget_what_was_read()
        self._roster.apply(task, Event.MISTAKEN, error=_WHY)
