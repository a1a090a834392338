"""What reads tell where they lag behind writes: each task as it was a moment ago."""

import collections
import dataclasses
import math

from sigmic_guard.emulator.world import Task


class Past:
    """How tasks were, after each change. Remembers nothing unless there is a lag, in seconds.

    Raises:
        ValueError: the lag is negative, or not finite.
    """

    def __init__(self, lag: float) -> None:
        """Begin with nothing."""
        if not (math.isfinite(lag) and lag >= 0):
            raise ValueError(f"reads lag by 0 or more seconds, not by {lag!r}")
        self.lag = lag
        self._shown: dict[str, collections.deque[Task]] = {}

    def note(self, task: Task) -> None:
        """Remember a task as it is now."""
        if self.lag:
            copy = dataclasses.replace(task, messages=list(task.messages))
            self._shown.setdefault(task.id, collections.deque()).append(copy)

    def seen(self, task_id: str, now: float) -> Task | None:
        """The task as it was `lag` seconds before `now`; None if it was not there yet."""
        shown = self._shown.get(task_id, collections.deque())
        while len(shown) > 1 and shown[1].activity_at <= now - self.lag:
            shown.popleft()
        return shown[0] if shown and shown[0].activity_at <= now - self.lag else None

    def page(self, owner: str, limit: int, offset: int, now: float) -> tuple[list[Task], int]:
        """What `World.page` gave `lag` seconds before `now`."""
        seen = [task for key in self._shown if (task := self.seen(key, now)) is not None]
        mine = [task for task in seen if task.owner == owner]
        mine.sort(key=lambda task: task.activity_at, reverse=True)
        return mine[offset : offset + limit], len(mine)

    def clear(self) -> None:
        """Forget everything."""
        self._shown.clear()
