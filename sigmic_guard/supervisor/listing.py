"""Reading the list from its top, page by page, for as long as there is something new in it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from sigmic_guard.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo

#: The most that the API gives at once.
PAGE: Final = 100
#: Seconds that one page may take.
PATIENCE: Final = 10.0


class Listing:
    """One reading. Pages shift while tasks are active, so a task may be shown twice."""

    def __init__(self, api: TaskApi) -> None:
        self._api = api
        self._offset = 0
        self._last_id: str | None = None
        self._more = True

    async def next_page(self) -> Sequence[TaskInfo]:
        """Return the next tasks, most recent activity first; an empty sequence at the end.

        :raises ProtocolError: the API gives the same page again, whatever it is asked for.
        :raises SigmicGuardError: the API refused, or gave no answer.
        """
        if not self._more:
            return ()
        page = await self._api.list(limit=PAGE, offset=self._offset, timeout=PATIENCE)
        if page.tasks:
            last_id = page.tasks[-1].id
            if last_id == self._last_id:
                raise ProtocolError("the list shows the same page at another offset")
            self._last_id = last_id
        self._offset += len(page.tasks)
        self._more = page.has_more
        return page.tasks


def active_at(info: TaskInfo) -> float | None:
    """Return the time of a task's last activity, in seconds since the epoch, if it is told."""
    if not info.last_activity_at:
        return None
    try:
        at = datetime.fromisoformat(info.last_activity_at)
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo is not None else None
