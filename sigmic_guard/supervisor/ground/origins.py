"""Whose create made a task: :class:`Origins`, by the marks and the messages that the API tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sigmic_guard.supervisor.ground.marking import digest, marked_with, told_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry


def _do_nothing(_: Entry, __: TaskInfo) -> None:
    pass


class Origins:
    """Knows the creates of one supervisor whose tasks are live.

    The mark shows whose a task is. Of one that carries none the message does, if it is that of
    another create without one; by itself another message proves nothing, as a server may put it in
    its own form.

    :param tasks: the live tasks by intent id.
    """

    def __init__(self, tasks: Mapping[str, Entry]) -> None:
        self._tasks = tasks
        #: Those that carry no mark, and of which nothing has shown yet that the id is their own, by
        #: what tells their messages.
        self._unmarked: dict[int, set[Entry]] = {}
        #: What to do when an answer shows that a task's id is another create's.
        self.mistaken: Callable[[Entry, TaskInfo], None] = _do_nothing

    def note_message(self, task: Entry, message: str) -> None:
        """Note with which message a task was asked for."""
        task.prompt = told_by(message)

    def expect(self, task: Entry) -> None:
        """Note that a create is about to be sent."""
        if task.prompt is not None and not task.marked:
            self._unmarked.setdefault(task.prompt, set()).add(task)

    def trust(self, task: Entry) -> None:
        """Note that the task's id is its own, or that nothing speaks against it."""
        prompt, task.prompt = task.prompt, None
        if prompt is None or task.marked:
            return
        makers = self._unmarked.get(prompt)
        if makers is not None:
            makers.discard(task)
            if not makers:
                del self._unmarked[prompt]

    def recognise(self, task: Entry, info: TaskInfo) -> None:
        """Note what the list tells of the task's id, as to whose it is."""
        if self.is_anothers(task, info):
            self.mistaken(task, info)
        elif task.prompt is not None and marked_with(info) == task.record.intent_id:
            self.trust(task)

    def is_anothers(self, task: Entry, info: TaskInfo) -> bool:
        """Tell whether what is told of the task's id shows that another create made that one."""
        record, marker = task.record, marked_with(info)
        if record.posted_at is None or marker == record.intent_id:
            return False
        if marker is not None:
            maker = self._tasks.get(marker)
            if maker is None:
                return task.marked
            return maker.record.remote_id != info.id
        if task.prompt is None or info.message is None or told_by(info.message) == task.prompt:
            return False
        if record.message_digest == digest(info.message):
            return False
        return self.maker_of(info) not in {None, task}

    def maker_of(self, info: TaskInfo) -> Entry | None:
        """Return the one live task whose create made that one, as the mark or the message tells."""
        marker = marked_with(info)
        if marker is not None:
            return self._tasks.get(marker)
        if info.message is None:
            return None
        makers = self._unmarked.get(told_by(info.message), ())
        return next(iter(makers)) if len(makers) == 1 else None
