"""Pages of the list that fail: a long reading gets through all the same, and proves what it should.

A crowd of 950 tasks stands in the list: ten pages, and then the top again.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest
from anyio import create_task_group, current_time, sleep, sleep_until

from sigmic_guard import (
    AuthenticationError,
    ConnectionFailed,
    PermissionDenied,
    ProtocolError,
    SigmicGuardError,
    State,
    SupervisorShutdown,
)
from sigmic_guard.supervisor.work import listing
from sigmic_guard.testing import HANG
from tests.backends import TRIO_VIRTUAL
from tests.families import slow_if
from tests.supervisor.lab import UNAVAILABLE, too_many
from tests.supervisor.losses import GONE, LossLab, unwanted

if TYPE_CHECKING:
    from sigmic_guard import Supervisor
    from sigmic_guard.sigmic.models import TaskPage

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

CROWD = 950
TIMED_OUT = ConnectionFailed("There was no answer within 10 seconds.", sent=True, timed_out=True)
REDIRECT = ProtocolError("The API answered HTTP 302: a redirect, which is never followed.")
BROKEN = ProtocolError("The answer is no envelope.", status=200, unreadable=True, broken=True)
EXPIRED = AuthenticationError("expired", code="UNAUTHORIZED", status=401)
FORBIDDEN = PermissionDenied("no", code="FORBIDDEN", status=403)


class Failing:
    """Lets some requests for some pages of the list fail.

    :param times: so many requests for each page.
    :param first: from which offset on.
    """

    def __init__(self, error: SigmicGuardError, *, times: float = 1, first: int = 0) -> None:
        self.lab = LossLab()
        for _ in range(CROWD):
            self.lab.fake.add()
        self.lab.fake.on("create", GONE)
        self.lab.fake.bend = self._bend
        self.asked = Counter[int]()
        self.times = dict[int, list[float]]()
        self._error, self._times, self._first = error, times, first

    def _bend(self, page: TaskPage, offset: int) -> TaskPage:
        self.asked[offset] += 1
        self.times.setdefault(offset, []).append(current_time())
        if offset >= self._first and self.asked[offset] <= self._times:
            raise self._error.with_traceback(None)
        return page


async def proven_absent(supervisor: Supervisor, *, within: float) -> None:
    """Start a task that does not exist; so many seconds later that is known."""
    began = current_time()
    await unwanted(supervisor)
    await sleep_until(began + within)
    assert not supervisor.snapshot()


async def unwanted_by(supervisor: Supervisor) -> None:
    """Start a task that does not exist, and do not wait for what comes of it."""
    with suppress(ConnectionFailed, SupervisorShutdown):
        await supervisor.start("m")


@pytest.mark.parametrize("error", [UNAVAILABLE, too_many(0.5), GONE, TIMED_OUT, REDIRECT, BROKEN])
async def test_each_page_fails_once(error: SigmicGuardError) -> None:
    """What was read is not lost: two readings prove the absence."""
    world = Failing(error)
    async with world.lab.open(left=CROWD, create_timeout=1) as supervisor:
        await proven_absent(supervisor, within=30)


@pytest.mark.parametrize("error", [UNAVAILABLE, too_many(0.5), GONE, REDIRECT])
async def test_every_third_page_fails(error: SigmicGuardError) -> None:
    """No reading of eleven pages would come to its end if it had to begin anew each time."""
    lab = LossLab()
    for _ in range(CROWD):
        lab.fake.add()
    lab.fake.on("create", GONE)
    requests = count()
    lab.fake.always("list", lambda _: error if next(requests) % 3 == 2 else None)
    async with lab.open(left=CROWD, create_timeout=1) as supervisor:
        await proven_absent(supervisor, within=60)


async def test_a_page_that_hangs() -> None:
    """It is asked for again where it stands."""
    lab = LossLab()
    for _ in range(CROWD):
        lab.fake.add()
    lab.fake.on("create", GONE)
    lab.fake.on("list", None, None, HANG)
    async with lab.open(left=CROWD, create_timeout=5) as supervisor:
        await proven_absent(supervisor, within=listing.PAGE_TIMEOUT + 6)


@pytest.mark.parametrize(
    "error",
    slow_if(
        lambda error: error not in {UNAVAILABLE, FORBIDDEN},
        [UNAVAILABLE, too_many(0.5), GONE, TIMED_OUT, REDIRECT, BROKEN, EXPIRED, FORBIDDEN],
    ),
)
async def test_a_page_that_always_fails(error: SigmicGuardError) -> None:
    """A reading that never gets past it proves nothing; it asks a bounded number of times."""
    world = Failing(error, times=float("inf"), first=500)
    async with world.lab.open(left=CROWD, create_timeout=1, grace=5) as supervisor:
        await unwanted(supervisor)
        await sleep(300)
        assert [row.state for row in supervisor.snapshot()] == [State.UNKNOWN]
        assert world.asked[500] <= listing.TRIES * world.asked[400] + listing.MAX_SKIPPED
        world.lab.fake.bend = lambda page, _: page
        await sleep(120)
        assert not supervisor.snapshot()


@pytest.mark.parametrize("error", [EXPIRED, FORBIDDEN])
async def test_a_refusal_is_believed(error: SigmicGuardError) -> None:
    """The API's own word is not asked about again at once."""
    world = Failing(error, first=500)
    async with world.lab.open(left=CROWD, create_timeout=1) as supervisor:
        await proven_absent(supervisor, within=90)
    assert world.asked[0] > 2 * 2, "the reading began anew"


async def test_what_the_server_asks_for_is_waited_out_within_a_reading() -> None:
    """``Retry-After`` in the middle of a reading puts off its next page, and loses no page."""
    world = Failing(too_many(20), first=500)
    async with world.lab.open(left=CROWD, create_timeout=1) as supervisor:
        await proven_absent(supervisor, within=5 * 21 + 10)
    first, again = world.times[500][:2]
    assert 20 <= again - first < 21


async def test_an_outage_makes_no_more_requests() -> None:
    """While nothing answers, a reading is one request."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(grace=1) as supervisor:
        await unwanted(supervisor)
        scans = lab.lists()
        await sleep(3600)
        assert 6 <= (lab.lists() - scans) / 60 <= 13, "a minute"


async def test_a_smaller_page_is_not_halved_on_and_on() -> None:
    """Two late pages in a row halve it; single ones, between many that are not late, do not."""
    lab = LossLab()
    for _ in range(CROWD):
        lab.fake.add()
    lab.fake.on("create", GONE)
    requests, limits = count(), list[int]()

    def bend(page: TaskPage, _: int) -> TaskPage:
        limits.append(len(page.tasks))
        if (number := next(requests)) % 4 == 3 or number == 4:
            raise TIMED_OUT.with_traceback(None)
        return page

    lab.fake.bend = bend
    async with lab.open(left=CROWD, create_timeout=1) as supervisor:
        await proven_absent(supervisor, within=90)
    assert min(limits) == listing.MAX_PAGE / 2


@pytest.mark.parametrize("hanging, grace", [(1, 4), (3, 8)])
async def test_pages_share_what_is_left_of_a_drain(hanging: int, grace: float) -> None:
    """Neither the page that is under way as it begins nor the next ones keep their ten seconds."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    lab.fake.on("list", *[HANG] * hanging)
    async with (
        lab.open(create_timeout=0.5, grace=grace) as supervisor,
        create_task_group() as group,
    ):
        gate = lab.fake.gate("list")
        group.start_soon(unwanted_by, supervisor)
        await gate.entered.wait()
        gate.open()
        await sleep(0.1)
        supervisor.request_shutdown()
    report = await supervisor.shutdown()
    assert report.clean
    assert report.never_created == 1
