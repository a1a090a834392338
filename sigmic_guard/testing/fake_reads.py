"""What reads tell of a :class:`~sigmic_guard.testing.FakeSigmic`: what is, or was a moment ago."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sigmic_guard.sigmic.models import TaskInfo, TaskPage
from sigmic_guard.testing.fake_shapes import Shapes, not_found
from sigmic_guard.testing.fake_task import Turn

if TYPE_CHECKING:
    from sigmic_guard.testing.fake_faults import Call
    from sigmic_guard.testing.fake_task import FakeTask
    from sigmic_guard.testing.fake_world import FakeWorld


class View(NamedTuple):
    """A task as it was since ``at``, on the world's clock."""

    at: float
    row: TaskInfo
    detail: TaskInfo
    messages: Sequence[tuple[str, str]]
    live: bool
    turn: Turn


class Reads:
    """GET, the list and streams. The past is remembered while they lag, text as of each move.

    :ivar lag: seconds by which they lag behind what is.
    """

    def __init__(self, world: FakeWorld) -> None:
        self._world = world
        self._shapes = Shapes(world)
        self._views: dict[str, list[View]] = {}
        self.lag = 0.0

    def set_lag(self, seconds: float) -> None:
        """Let reads tell how things were ``seconds`` ago, from now on.

        :raises ValueError: it is negative, or not finite.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"reads lag by 0 or more seconds, not by {seconds!r}")
        if not seconds:
            self._views.clear()
            self._world.on_move = None
        elif not self.lag:
            for task in self._world.tasks.values():
                self._note(task, -math.inf)
            self._world.on_move = lambda task: self._note(task, task.activity_at)
        self.lag = seconds

    def view(self, task: FakeTask) -> View | None:
        """Return a task as reads show it; ``None`` where they show what is.

        :raises TaskNotFound: it was not there yet.
        """
        if not self.lag:
            return None
        seen = self._seen(task.id)
        if seen is None:
            raise not_found(f"task {task.id!r}")
        return seen

    def detail(self, task: FakeTask) -> TaskInfo:
        """Return a task as GET shows it.

        :raises TaskNotFound: it was not there yet.
        """
        seen = self.view(task)
        return self._shapes.detail(task) if seen is None else seen.detail

    def page(self, limit: int, offset: int) -> TaskPage:
        """Return one page of the list.

        :raises ValidationError: the API knows no such page.
        """
        page = self._shapes.page(limit, offset)
        if not self.lag:
            return page
        seen = [view for task_id in self._views if (view := self._seen(task_id)) is not None]
        seen.sort(key=lambda view: view.row.last_activity_at or "", reverse=True)
        rows = [view.row for view in seen[offset : offset + limit]]
        return TaskPage(rows, len(seen), offset + len(rows) < len(seen))

    def of_another(self, call: Call, answer: object) -> object:
        """Return what the same request is told of the other task that was active last."""
        mine = answer if call.method == "create" else call.task_id
        others = [task for task in self._world.by_activity.values() if task.id != mine]
        if call.method == "get" and others:
            return self._shapes.detail(others[-1])
        living = [task.id for task in others if task.live]
        return living[-1] if call.method == "create" and living else answer

    def _seen(self, task_id: str) -> View | None:
        views = self._views.get(task_id, [])
        until = self._world.settle() - self.lag
        while len(views) > 1 and views[1].at <= until:
            del views[0]
        return views[0] if views and views[0].at <= until else None

    def _note(self, task: FakeTask, at: float) -> None:
        row, detail = self._shapes.row(task), self._shapes.detail(task)
        view = View(at, row, detail, tuple(task.messages), task.live, task.turn)
        self._views.setdefault(task.id, []).append(view)
