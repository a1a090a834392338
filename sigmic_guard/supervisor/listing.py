"""Reading the list from its top: page by page, and as a whole although it shifts meanwhile."""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Final

from sigmic_guard.errors import ProtocolError
from sigmic_guard.supervisor.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo

#: The most that the API gives at once.
PAGE: Final = 100
#: Seconds that one page may take.
PATIENCE: Final = 10.0
#: How often the top of the list is read again, for what moved up during a reading, although that
#: does not get less.
REREADINGS: Final = 5


class Listing:
    """One reading. Pages shift while tasks are active, so a task may be shown twice."""

    def __init__(self, api: TaskApi) -> None:
        self._api = api
        self._offset = 0
        self._last_id: str | None = None
        self._more = True

    async def next_page(self) -> Sequence[TaskInfo]:
        """Return the next tasks, most recent activity first; an empty sequence at the end.

        :raises ProtocolError: the API gives the same page again, whatever it is asked for, or
            breaks off although it says that there is more.
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
        # A server may be wrong about one of them; it takes both to break off in the middle.
        more_by_count = page.total is not None and self._offset < page.total
        if not page.tasks and page.has_more and more_by_count:
            raise ProtocolError("the list breaks off before its end")
        self._more = page.has_more or more_by_count
        return page.tasks


def active_at(info: TaskInfo) -> float | None:
    """Return the time of a task's last activity, in seconds since the epoch, if it is told."""
    return seconds_of(info.last_activity_at)


def seconds_of(time: str | None) -> float | None:
    """Return one of the API's times in seconds since the epoch, if it is one."""
    if not time:
        return None
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo is not None else None


async def read_all(
    api: TaskApi, take: Callable[[TaskInfo], None], passed: Callable[[float, float], bool]
) -> bool:
    """Show ``take`` every task of the list down to what is ``passed``; ``True`` if none was missed.

    :param passed: is given a task's latest activity, and that of the newest one seen.
    :raises SigmicGuardError: the API refused, or gave no answer.
    """
    reading = await _read(api, take, passed)
    left = REREADINGS
    # What was active meanwhile has moved up, past the reader: read the top again, down to where
    # the last reading began. One page is one instant, and nobody moves within it.
    while reading.pages > 1 and reading.newest > -inf:  # without times there is nothing to go by
        if not left:
            return False
        last, reading = reading, await _read(api, take, _before(reading.newest))
        if reading.still and reading.newest <= last.newest:
            return True  # many are as old as the newest, and none was active meanwhile
        left -= reading.pages >= last.pages
    return True


def _before(top: float) -> Callable[[float, float], bool]:
    return lambda at, _: at < top


class _Reading:
    """What one reading showed."""

    def __init__(self) -> None:
        self.pages = 0
        #: The latest activity.
        self.newest = -inf
        #: Whether no page began with what the page before had shown: who moves up, past the
        #: reader, pushes all in between one place down.
        self.still = True


async def _read(
    api: TaskApi, take: Callable[[TaskInfo], None], passed: Callable[[float, float], bool]
) -> _Reading:
    """Read down to what is passed."""
    reading, done, shown, slices = _Reading(), False, frozenset[str](), Slices()
    listing = Listing(api)
    while not done and (page := await listing.next_page()):
        reading.pages += 1
        reading.still &= page[0].id not in shown
        shown = frozenset(info.id for info in page)
        for info in page:
            take(info)
            at = active_at(info)
            if at is not None:
                reading.newest = max(reading.newest, at)
                done |= passed(at, reading.newest)
            await slices.breathe()
    return reading
