"""``max_tasks``: how many remote tasks may be alive at once, and who waits for a place.

Who takes a place follows from what is known of the task: :func:`occupies` says it, and is asked at
each change of one. Nobody hands places out, or forgets to give one back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from sigmic_guard.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground


def occupies(task: Entry) -> bool:
    """Tell whether the task takes one of the places: it costs money, or may at any moment."""
    if task.record.over:
        return False
    match task.record.state:
        case State.INTENT:
            return task.create is not None and task.create.admitted
        case State.UNKNOWN:
            # Of one that carries no mark nobody may ever know. A dead owner's may not exist.
            return task.marked and not task.record.orphan
        case State.COMPLETED:
            return task.accepts_follow_up
        case _:
            return True


class Capacity:
    """Admits tasks in their order. One that exists already takes a place even where there is none.

    :param admitted: is called with a task that may be created.
    """

    def __init__(self, ground: Ground, admitted: Callable[[Entry], None]) -> None:
        self._max_tasks = ground.settings.max_tasks
        self._admitted = admitted
        #: Of whom :func:`occupies` was true when it was asked last.
        self._occupying: set[Entry] = set()
        self._waiting: OrderedDict[Entry, None] = OrderedDict()
        if self._max_tasks is not None:
            ground.roster.changed = self._review

    def has_place(self, task: Entry) -> bool:
        """Tell whether the task need not wait for a place."""
        return self._max_tasks is None or occupies(task)

    def admit(self, task: Entry, *, at_once: bool = False) -> None:
        """Admit the task as soon as there is a place, or at once: it has had one until now."""
        if self._max_tasks is None:
            self._admitted(task)
        elif at_once or occupies(task):
            self._let_in(task)
        else:
            self._waiting[task] = None
            self._admit_those_who_wait()

    def _let_in(self, task: Entry) -> None:
        assert task.create is not None
        task.create.admitted = True
        self._occupying.add(task)
        self._admitted(task)

    def _review(self, task: Entry) -> None:
        """Take in that the task has changed."""
        if occupies(task):
            self._occupying.add(task)
            return
        self._occupying.discard(task)
        if task.record.state is not State.INTENT:
            self._waiting.pop(task, None)  # withdrawn, or claimed
        self._admit_those_who_wait()

    def _admit_those_who_wait(self) -> None:
        assert self._max_tasks is not None
        while self._waiting and len(self._occupying) < self._max_tasks:
            task, _ = self._waiting.popitem(last=False)
            if task.record.state is State.INTENT:
                self._let_in(task)
