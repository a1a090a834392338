"""What reads tell where they lag behind writes: each task as it was a moment ago."""

import collections
import dataclasses
import math
from collections.abc import Iterable

from sigmic_guard.emulator.world import Task


class Past:
    """How tasks were, after each change. Remembers nothing unless there is a lag, in seconds."""

    def __init__(self) -> None:
        """Begin with no lag."""
        self.lag = 0.0
        self._remembers = False
        # By id: a task, and since when it was as it is there.
        self._shown: dict[str, collections.deque[tuple[float, Task]]] = {}

    def begin(self, lag: float, tasks: Iterable[Task]) -> None:
        """Let reads lag so many seconds behind, from now on; `tasks` were always as they are.

        Raises:
            ValueError: the lag is negative, or not finite.
        """
        if not (math.isfinite(lag) and lag >= 0):
            raise ValueError(f"reads lag by 0 or more seconds, not by {lag!r}")
        if not lag:
            self.clear()
        elif not self._remembers:
            for task in tasks:
                self._add(task, -math.inf)
        self.lag = lag
        self._remembers = lag > 0

    def note(self, task: Task) -> None:
        """Remember a task as it is now."""
        if self._remembers:
            self._add(task, task.activity_at)

    def seen(self, task_id: str, now: float) -> Task | None:
        """The task as it was `lag` seconds before `now`; None if it was not there yet."""
        shown = self._shown.get(task_id, collections.deque())
        while len(shown) > 1 and shown[1][0] <= now - self.lag:
            shown.popleft()
        return shown[0][1] if shown and shown[0][0] <= now - self.lag else None

    def page(self, owner: str, limit: int, offset: int, now: float) -> tuple[list[Task], int]:
        """What `World.page` gave `lag` seconds before `now`."""
        seen = [task for key in self._shown if (task := self.seen(key, now)) is not None]
        mine = [task for task in seen if task.owner == owner]
        mine.sort(key=lambda task: task.activity_at, reverse=True)
        return mine[offset : offset + limit], len(mine)

    def clear(self) -> None:
        """Forget everything."""
        self._shown.clear()

    def _add(self, task: Task, since: float) -> None:
        copy = dataclasses.replace(task, messages=list(task.messages))
        self._shown.setdefault(task.id, collections.deque()).append((since, copy))
