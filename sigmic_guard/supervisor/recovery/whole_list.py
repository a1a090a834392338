"""Reading the list as a whole, although it shifts meanwhile."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from sigmic_guard.supervisor.ground.timer import Slices
from sigmic_guard.supervisor.work.listing import active_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.sigmic.models import Scrap, TaskInfo
    from sigmic_guard.supervisor.work.listing import Listing

#: How often the top of the list is read again, for what moved up during a reading, although that
#: does not get less.
REREADINGS: Final = 5


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
            await slices.yield_if_due()
        turn_page()
    for scrap in listing.scraps:
        leave_out(scrap)
        await slices.yield_if_due()
    return reading
