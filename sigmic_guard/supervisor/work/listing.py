"""Reading the list from its top, page by page.

A list can be too large to be read in whole pages, show the same page again and again, or have no
end. So a page that cannot be read is asked for in smaller parts, and every reading is bounded. A
long reading that began anew whenever a page fails would never end where one in ten does: such a
page is asked for again where it stands.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from math import inf
from random import random
from statistics import median_low
from typing import TYPE_CHECKING, Final, Protocol

from anyio import CancelScope, current_time

from sigmic_guard.errors import (
    ApiError,
    ConnectionFailed,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicGuardError,
)
from sigmic_guard.lifecycle import Backoff
from sigmic_guard.sigmic.models import Scrap
from sigmic_guard.supervisor.ground.pacing import asked_pause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo, TaskPage

#: The most that the API gives at once.
MAX_PAGE: Final = 100
#: Seconds that one page may take.
PAGE_TIMEOUT: Final = 10.0
#: The least, however little is left of a shutdown's budget, and the share of it for one page.
MIN_PAGE_TIMEOUT: Final = 0.1
SHARE_OF_BUDGET: Final = 1 / 4
#: Requests in a row, after which a page that fails is asked for again only by a later reading; and
#: how long after each.
TRIES: Final = 4
RETRY_PAUSE: Final = Backoff(first=0.1, most=1.0)
#: Seconds for which no larger page is asked for than could be read.
SMALL_PAGE_SECONDS: Final = 60.0
#: The size to try after a single task that is too large was passed over.
AFTER_SKIP: Final = 16
#: Tasks that one reading passes over because they are too large, at most.
MAX_SKIPPED: Final = 8
#: The smallest page that is asked for because a larger one took too long.
MIN_PAGE_FOR_TIME: Final = 10
#: Pages in a row without anything new, after which a reading gives up.
MAX_REPEATS: Final = 3
#: Pages of one reading that may lead no further back in time, and pages of any kind.
AIMLESS: Final = 20
MAX_AIMLESS: Final = 200
MAX_PAGES: Final = 5000
#: Seconds before each of the former, after the first ``AIMLESS``.
AIMLESS_PAUSE_SECONDS: Final = 0.3
#: Pages a second of a list without an end, on average, and seconds between two readings at least.
ENDLESS_RATE: Final = 3.0
ENDLESS_PAUSE_SECONDS: Final = 5.0
#: Seconds by which a server's clock may be ahead of ours: what is later tells nothing.
MAX_CLOCK_AHEAD: Final = 86400.0


class EndlessList(ProtocolError):
    """The list repeats itself, or does not end within the bounds of a reading.

    :ivar pause: seconds before it is worth while to read it again from its top.
    """

    def __init__(self, message: str, pages: int) -> None:
        super().__init__(message)
        self.pause = max(pages / ENDLESS_RATE, ENDLESS_PAUSE_SECONDS)


class Pause(Protocol):
    """Waits within a reading."""

    async def __call__(self, seconds: float, *, least: float = 0.0) -> None:
        """Wait for so many seconds; raise if the reading is not wanted any more.

        :param least: seconds that the server asked for.
        """


class Lister:
    """Makes readings, and remembers which page size could be read lately."""

    def __init__(self, api: TaskApi) -> None:
        self._api = api
        self._most = MAX_PAGE
        self._until = -inf  # on anyio's clock
        #: The size that was fallen back to once, while nothing larger was read since; 0 for none.
        self._fallback = 0
        #: Requests in a row that failed, of whatever reading that would ask for a page again.
        self.failures = 0
        #: Seconds that were lost to them so far, pauses included.
        self.lost = 0.0
        #: When the shutdown's budget ends, on anyio's clock.
        self._budget_end = inf
        #: Around the requests that are under way.
        self._under_way: set[CancelScope] = set()

    @property
    def most(self) -> int:
        """The largest page that is worth asking for now."""
        if self._most < MAX_PAGE and current_time() >= self._until:
            self._most = MAX_PAGE
        return self._most

    def hasten(self, budget_end: float) -> None:
        """Let no page, nor one that is under way, take long when a shutdown's budget ends then."""
        self._budget_end = budget_end
        end = current_time() + self._page_timeout()
        for scope in self._under_way:
            scope.deadline = min(scope.deadline, end)

    def limit(self, size: int) -> None:
        """Fall back to that size; if this is the second time in a row, ask for no more for a while.

        Once proves little: any one answer can be late or garbled, whatever its size. And it takes
        two again to fall back further.
        """
        size = max(size, 1)
        if self._fallback:
            self._most, self._until = size, current_time() + SMALL_PAGE_SECONDS
            self._fallback = 0
        else:
            self._fallback = size

    async def ask(self, limit: int, offset: int) -> TaskPage:
        """Read one page; one that takes too long makes the later ones smaller.

        :raises SigmicGuardError: the API refused, or gave no answer.
        """
        try:
            page = await self._ask(limit, offset)
        except SigmicGuardError as error:
            timed_out = isinstance(error, ConnectionFailed) and error.timed_out
            if timed_out and limit > MIN_PAGE_FOR_TIME:
                self.limit(max(limit // 2, MIN_PAGE_FOR_TIME))
            raise
        self.failures = 0
        if limit > self._fallback:
            self._fallback = 0
        return page

    async def _ask(self, limit: int, offset: int) -> TaskPage:
        with CancelScope() as scope:
            self._under_way.add(scope)
            try:
                return await self._api.list(
                    limit=limit, offset=offset, timeout=self._page_timeout()
                )
            finally:
                self._under_way.discard(scope)
        raise ConnectionFailed("the shutdown had no more time for it", sent=True, timed_out=True)

    def _page_timeout(self) -> float:
        left = (self._budget_end - current_time()) * SHARE_OF_BUDGET
        return min(PAGE_TIMEOUT, max(left, MIN_PAGE_TIMEOUT))

    def read(
        self,
        *,
        pages: int = MAX_PAGES,
        aimless: int = AIMLESS,
        horizon: float = inf,
        trust_total: bool = False,
        pause: Pause | None = None,
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
    :param pause: waits; with it, aimless pages beyond ``AIMLESS`` are paced, and a page that
        fails is asked for again, as long as no more than ``TRIES`` requests in a row have failed.
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
        pause: Pause | None,
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
        broken = 0
        while self._more:
            if self._endless is not None:
                raise self._endless
            if self._pause is not None and self._aimless_pages >= AIMLESS:
                await self._pause(AIMLESS_PAUSE_SECONDS)
            sent_at = current_time()
            try:
                page = await self._lister.ask(self._size, self._offset)
            except SigmicGuardError as error:
                if isinstance(error, ProtocolError) and error.unreadable:
                    broken += error.broken
                    if not error.broken or broken > 1:  # once is no matter of size
                        self._ask_for_less(error)
                else:
                    await self._pause_after(error)
                    self._lister.lost += current_time() - sent_at
                    self._size = min(self._size, self._lister.most)
                continue
            broken = 0
            self._size = min(2 * self._size, self._lister.most)
            self._take(page)
            if page.tasks:
                return page.tasks
        return ()

    async def _pause_after(self, error: SigmicGuardError) -> None:
        """Wait until the page that failed may be asked for again, where it stands.

        :raises SigmicGuardError: that error, if it is not worth while.
        """
        self._lister.failures = failures = self._lister.failures + 1
        if self._pause is None or failures >= TRIES or not _may_pass(error):
            raise error
        asked = asked_pause(error)
        pause = RETRY_PAUSE.delay(failures, random(), retry_after=asked)
        await self._pause(pause, least=pause if asked else 0.0)

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
            self._expected = page.total if page.total <= MAX_PAGE * MAX_PAGES else 0
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
        if self._repeats >= MAX_REPEATS:
            what = "the list shows the same page at another offset"
            self._endless = EndlessList(what, self._pages)
        at = active_at(page.tasks[-1], self._horizon) if page.tasks else None
        if at is not None and at < self._earliest:
            self._earliest = at
        elif self._offset > self._expected:
            self._aimless_pages += 1
        if self._aimless_pages >= self._aimless or self._pages >= self._max_pages:
            self._endless = EndlessList("the list goes on and on", self._pages)


def _may_pass(error: SigmicGuardError) -> bool:
    """Whether a page may be answered the next time: not if the API refused it in its own words."""
    return isinstance(error, RateLimited | ServerError) or not isinstance(error, ApiError)


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
