"""Remote systems whose answers are too large to be read, or whose list has no end."""

from __future__ import annotations

from itertools import count
from typing import Any

from sigmic_guard import ProtocolError
from sigmic_guard.sigmic.models import TaskInfo, TaskPage
from tests.supervisor.lab import Lab
from tests.supervisor.losses import Remote, change

TOO_LARGE = ProtocolError("The answer is too large to be read.", status=200, unreadable=True)


class FatRemote(Remote):
    """Has tasks with weights: no answer over ``capacity`` can be read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.capacity = 1000.0
        #: By message. What is not here weighs 1.
        self.weights: dict[str, float] = {}
        #: The pages that were asked for: limit, offset, and whether they could be read.
        self.pages: list[tuple[int, int, bool]] = []

    def _weight(self, info: TaskInfo) -> float:
        return self.weights.get(info.message or "", 1)

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        page = await super().list(limit=limit, offset=offset, timeout=timeout)
        readable = sum(map(self._weight, page.tasks)) <= self.capacity
        self.pages.append((limit, offset, readable))
        if not readable:
            raise TOO_LARGE.with_traceback(None)
        return page


class EndlessRemote(Remote):
    """Has a list that never ends.

    :param repeats: it shows the same page again and again; else new ids each time.
    :param activity: what its tasks tell of their last activity.
    :param shows_ours: whether our own tasks are on its first page.
    """

    def __init__(
        self,
        *,
        repeats: bool = False,
        activity: str | None = None,
        shows_ours: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.repeats = repeats
        self.activity = activity
        self.shows_ours = shows_ours
        self._numbers = count()

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        ours = await super().list(limit=limit, offset=offset, timeout=timeout)
        number = 0 if self.repeats else next(self._numbers)
        strangers = [
            TaskInfo(id=f"o{number}-{at}", status="running", last_activity_at=self.activity)
            for at in range(limit)
        ]
        first = ours.tasks if self.shows_ours and offset == 0 else []
        return change(ours, tasks=[*first, *strangers], total=10**9, has_more=True)


class OddLab(Lab):
    """A lab over one of them."""

    fake: Any

    def __init__(self, fake: Remote) -> None:
        super().__init__()
        self.fake = fake
