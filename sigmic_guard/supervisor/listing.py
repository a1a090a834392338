"""Reading the list from its top: page by page, and as a whole although it shifts meanwhile.

A list can be too large to be read in whole pages, show the same page again and again, or have no
end. So a page that cannot be read is asked for in smaller parts, and every reading is bounded.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from math import inf
from statistics import median_low
from typing import TYPE_CHECKING, Final

from anyio import current_time

from sigmic_guard.errors import ConnectionFailed, ProtocolError
from sigmic_guard.sigmic.models import Scrap
from sigmic_guard.supervisor.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo, TaskPage

#: The most that the API gives at once.
PAGE: Final = 100
#: Seconds that one page may take.
PATIENCE: Final = 10.0
#: Seconds for which no larger page is asked for than could be read.
REMEMBERED: Final = 60.0
#: The size to try after a single task that is too large was passed over.
AFTER_SKIP: Final = 16
#: Tasks that one reading passes over because they are too large, at most.
MAX_SKIPPED: Final = 8
#: The smallest page that is asked for because a larger one took too long.
LEAST_FOR_TIME: Final = 10
#: Pages in a row without anything new, after which a reading gives up.
REPEATS: Final = 3
#: Pages of one reading that may lead no further back in time, and pages of any kind.
AIMLESS: Final = 20
MAX_AIMLESS: Final = 200
MAX_PAGES: Final = 5000
#: Seconds before each of the former, after the first ``AIMLESS``.
PACE: Final = 0.3
#: Pages a second of a list without an end, on average, and seconds between two readings at least.
ENDLESS_RATE: Final = 3.0
LEAST_PAUSE: Final = 5.0
#: Seconds by which a server's clock may be ahead of ours: what is later tells nothing.
AHEAD: Final = 86400.0
#: How often the top of the list is read again, for what moved up during a reading, although that
#: does not get less.
REREADINGS: Final = 5


class EndlessList(ProtocolError):
    """The list repeats itself, or does not end within the bounds of a reading.

    :ivar pause: seconds before it is worth while to read it again from its top.
    """

    def __init__(self, message: str, pages: int) -> None:
        super().__init__(message)
        self.pause = max(pages / ENDLESS_RATE, LEAST_PAUSE)


class Lister:
    """Makes readings, and remembers which page size could be read lately."""

    def __init__(self, api: TaskApi) -> None:
        self._api = api
        self._most = PAGE
        self._until = -inf  # on anyio's clock
        #: The size that was fallen back to, while nothing larger was read since; 0 for none.
        self._fallback = 0

    @property
    def most(self) -> int:
        """The largest page that is worth asking for now."""
        if self._most < PAGE and current_time() >= self._until:
            self._most = PAGE
        return self._most

    def limit(self, size: int) -> None:
        """Fall back to that size; if this is the second time in a row, ask for no more for a while.

        Once proves little: any one answer can be late or garbled, whatever its size.
        """
        size = max(size, 1)
        if self._fallback:
            self._most, self._until = size, current_time() + REMEMBERED
        self._fallback = size

    async def ask(self, limit: int, offset: int) -> TaskPage:
        """Read one page; one that takes too long makes the later ones smaller.

        :raises SigmicGuardError: the API refused, or gave no answer.
        """
        try:
            page = await self._api.list(limit=limit, offset=offset, timeout=PATIENCE)
        except ConnectionFailed as error:
            if error.timed_out and limit > LEAST_FOR_TIME:
                self.limit(max(limit // 2, LEAST_FOR_TIME))
            raise
        if limit > self._fallback:
            self._fallback = 0
        return page

    def read(
        self,
        *,
        pages: int = MAX_PAGES,
        aimless: int = AIMLESS,
        horizon: float = inf,
        trust_total: bool = False,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> Listing:
        """Begin a reading; see :class:`Listing`."""
        return Listing(
            self,
            pages=pages,
            aimless=aimless,
            horizon=horizon,
            trust_total=trust_total,
            pause=pause,
        )


class Listing:
    """One reading. Pages shift while tasks are active, so a task may be shown twice.

    :param pages: how many there may be.
    :param aimless: how many of them may lead no further back in time.
    :param horizon: times after this one, in seconds since the epoch, tell nothing.
    :param trust_total: whether pages up to the first page's ``total`` do not count as such.
    :param pause: waits for so many seconds; with it, aimless pages beyond ``AIMLESS`` are paced.
    :ivar scraps: what told no task in the pages so far, the too large included.
    """

    def __init__(
        self,
        lister: Lister,
        *,
        pages: int,
        aimless: int,
        horizon: float,
        trust_total: bool,
        pause: Callable[[float], Awaitable[None]] | None,
    ) -> None:
        self._lister = lister
        self._size = lister.most
        self._max_pages = pages
        self._aimless = aimless
        self._horizon = horizon
        self._trust_total = trust_total
        self._pause = pause
        self._offset = 0
        self._more = True
        self.scraps: list[Scrap] = []
        self._skipped = 0
        self._pages = 0
        self._aimless_pages = 0
        self._repeats = 0
        self._earliest = inf
        self._expected = 0  # how many tasks there are, if that can be
        self._endless: EndlessList | None = None
        #: The ids on the last pages.
        self._lately: deque[frozenset[str]] = deque(maxlen=8)

    async def next_page(self) -> Sequence[TaskInfo]:
        """Return the next tasks, most recent activity first; an empty sequence at the end.

        :raises EndlessList: the API gives the same again, whatever it is asked for, or goes on and
            on without leading back in time.
        :raises ProtocolError: it breaks off although it says that there is more, or too many of its
            tasks are too large to be read one by one.
        :raises SigmicGuardError: the API refused, or gave no answer.
        """
        again = False
        while self._more:
            if self._endless is not None:
                raise self._endless
            if self._pause is not None and self._aimless_pages >= AIMLESS:
                await self._pause(PACE)
            try:
                page = await self._lister.ask(self._size, self._offset)
            except ProtocolError as error:
                if not error.unreadable:
                    raise
                if error.broken and not again:
                    again = True  # that is no matter of size, unless it stays
                    continue
                self._ask_for_less(error)
                continue
            self._size = min(2 * self._size, self._lister.most)
            self._take(page)
            if page.tasks:
                return page.tasks
        return ()

    def _ask_for_less(self, error: ProtocolError) -> None:
        """Halve the page that cannot be read; pass over a single task that cannot.

        :raises ProtocolError: that happened too often.
        """
        if self._size > 1:
            self._size //= 2
            self._lister.limit(self._size)
            return
        self._skipped += 1
        if self._skipped > MAX_SKIPPED:
            raise error
        self._lister.limit(AFTER_SKIP)  # what stood in the way is known
        self.scraps.append(Scrap(b""))
        self._offset += 1

    def _take(self, page: TaskPage) -> None:
        self.scraps.extend(page.scraps)
        self._offset += page.places
        if self._pages == 0 and self._trust_total and page.total is not None:
            self._expected = page.total if page.total <= PAGE * MAX_PAGES else 0
        # A server may be wrong about one of them; it takes both to break off in the middle.
        more_by_count = page.total is not None and self._offset < page.total
        if not page.places and page.has_more and more_by_count:
            raise ProtocolError("the list breaks off before its end")
        # Without a place there is nowhere to go on.
        self._more = page.places > 0 and (page.has_more or more_by_count)
        self._pages += 1
        self._bound(page)

    def _bound(self, page: TaskPage) -> None:
        """Count what leads nowhere; the tasks on the last page that counts are shown still."""
        ids = frozenset(info.id for info in page.tasks)
        new = ids.difference(*self._lately)
        self._lately.append(ids)
        self._repeats = 0 if new or not ids else self._repeats + 1
        if self._repeats >= REPEATS:
            what = "the list shows the same page at another offset"
            self._endless = EndlessList(what, self._pages)
        at = active_at(page.tasks[-1], self._horizon) if page.tasks else None
        if at is not None and at < self._earliest:
            self._earliest = at
        elif self._offset > self._expected:
            self._aimless_pages += 1
        if self._aimless_pages >= self._aimless or self._pages >= self._max_pages:
            self._endless = EndlessList("the list goes on and on", self._pages)


def active_at(info: TaskInfo, horizon: float = inf) -> float | None:
    """Return the time of a task's last activity, in seconds since the epoch, if it is told.

    :param horizon: a later one is not taken for a time: it would hide all that follows.
    """
    at = seconds_of(info.last_activity_at)
    return at if at is None or at <= horizon else None


def seconds_of(time: str | None) -> float | None:
    """Return one of the API's times in seconds since the epoch, if it is one."""
    if not time:
        return None
    try:
        at = datetime.fromisoformat(time)
        return at.timestamp() if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def middle_of(page: Sequence[TaskInfo], horizon: float) -> float | None:
    """Return the time to read down to next time: of the task in the middle of the first page.

    That page is read anyway; and some tasks may be told to have been active later than they were,
    behind which all others would hide.
    """
    times = [at for info in page if (at := active_at(info, horizon)) is not None]
    return median_low(times) if times else None


async def read_all(
    begin: Callable[[], Listing],
    take: Callable[[TaskInfo], None],
    passed: Callable[[float, float], bool],
    *,
    horizon: float = inf,
    turn_page: Callable[[], None],
    leave_out: Callable[[Scrap], None],
) -> bool:
    """Show ``take`` every task of the list down to what is ``passed``; ``True`` if none was missed.

    :param begin: begins a reading of the list.
    :param passed: is given a task's latest activity, and that of the newest one seen.
    :param horizon: times after this one tell nothing.
    :param turn_page: is called after each page: what stands on one is of one instant.
    :param leave_out: is shown what told no task. It says what that means for ``True``.
    :raises SigmicGuardError: the API refused, or gave no answer.
    """

    async def read(passed: Callable[[float, float], bool]) -> _Reading:
        return await _read(begin(), take, passed, horizon, turn_page, leave_out)

    reading = await read(passed)
    left = REREADINGS
    # What was active meanwhile has moved up, past the reader: read the top again, down to where
    # the last reading began. One page is one instant, and nobody moves within it.
    while reading.pages > 1 and reading.newest > -inf:  # without times there is nothing to go by
        if not left:
            return False
        last, reading = reading, await read(_before(reading.newest))
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
    listing: Listing,
    take: Callable[[TaskInfo], None],
    passed: Callable[[float, float], bool],
    horizon: float,
    turn_page: Callable[[], None],
    leave_out: Callable[[Scrap], None],
) -> _Reading:
    """Read down to what is passed."""
    reading, done, shown, slices = _Reading(), False, frozenset[str](), Slices()
    while not done and (page := await listing.next_page()):
        reading.pages += 1
        reading.still &= page[0].id not in shown
        shown = frozenset(info.id for info in page)
        for info in page:
            take(info)
            at = active_at(info, horizon)
            if at is not None:
                reading.newest = max(reading.newest, at)
                done |= passed(at, reading.newest)
            await slices.breathe()
        turn_page()
    for scrap in listing.scraps:
        leave_out(scrap)
        await slices.breathe()
    return reading
