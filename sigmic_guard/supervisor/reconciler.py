"""Finding the tasks whose create got no answer.

The create carried its intent id in ``env``, and the list gives ``env`` back. So an ``UNKNOWN`` task
is found by reading the list, and never by sending the POST again. That it does not exist is proven
by two complete scans that both began after the server can no longer be at work on the POST.
"""

from __future__ import annotations

from math import inf
from random import random
from typing import TYPE_CHECKING, Final

from anyio import Event, sleep

from sigmic_guard.errors import SigmicGuardError
from sigmic_guard.lifecycle import Backoff
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.sigmic import is_id
from sigmic_guard.supervisor.listing import Listing, active_at
from sigmic_guard.supervisor.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.entry import Entry
    from sigmic_guard.supervisor.roster import Roster
    from sigmic_guard.supervisor.watcher import Watcher

#: The variable of ``env`` that holds the intent id.
MARKER: Final = "SIGMIC_GUARD_INTENT"
#: Complete scans, past the create's time-out, that prove a task's absence.
PROOF: Final = 2
#: How often the top of the list is read again for what moved up during a scan.
REREADINGS: Final = 5
#: Seconds by which the server's clock and ours may differ: a scan ends at tasks that were last
#: active so long before the create.
SKEW: Final = 3600.0


class Reconciler:
    """Resolves ``UNKNOWN`` tasks. :meth:`run` is the worker."""

    def __init__(
        self, roster: Roster, watcher: Watcher, api: TaskApi, *, create_timeout: float
    ) -> None:
        self._roster = roster
        self._watcher = watcher
        self._api = api
        self._create_timeout = create_timeout
        self._backoff = Backoff(first=0.1, most=2.0)
        #: By intent id, with the number of scans that did not show it, past its time-out.
        self._unknown: dict[str, tuple[Entry, int]] = {}
        self._wanted = Event()

    def take(self, task: Entry) -> None:
        """Look for a task whose create was marked."""
        self._unknown[task.record.intent_id] = (task, 0)
        self._wanted.set()

    async def run(self) -> None:
        """Scan the list for as long as a task is unknown."""
        fruitless = 0
        while True:
            if not self._unknown:
                fruitless = 0
                await self._wanted.wait()
            self._wanted = Event()
            fruitless += 1
            await sleep(self._backoff.delay(fruitless, random()))
            try:
                await self._scan()
            except SigmicGuardError:
                continue  # an incomplete scan proves nothing

    async def _scan(self) -> None:
        began = self._roster.now()
        sought = dict(self._unknown)
        if not sought:
            return
        oldest = min(task.record.posted_at or began for task, _ in sought.values())
        age = began - oldest

        def too_old(at: float, newest: float) -> bool:
            # By the server's own clock as well: ours may be far ahead of it.
            return at < min(oldest, newest - age) - SKEW

        def read_before(at: float, _: float) -> bool:
            return at < top

        top, pages = await self._read(too_old)
        for _ in range(REREADINGS):
            # What was active meanwhile has moved up, past the reader: read the top again, down to
            # where the last reading began. One page is one instant, and nobody moves within it.
            if pages <= 1 or top == -inf:  # or no times are told, and there is nothing to go by
                break
            top, pages = await self._read(read_before)
        else:
            if pages > 1:
                return  # too much moves: this proves nothing
        slices = Slices()
        for intent_id in sought.keys() & self._unknown.keys():
            self._not_seen(intent_id, began)
            await slices.breathe()

    async def _read(self, passed: Callable[[float, float], bool]) -> tuple[float, int]:
        """Read down to what is ``passed``; return the latest activity, and the number of pages."""
        newest, pages, done, slices = -inf, 0, False, Slices()
        listing = Listing(self._api)
        while not done and (page := await listing.next_page()):
            pages += 1
            for info in page:
                self._recognise(info)
                at = active_at(info)
                if at is not None:
                    newest = max(newest, at)
                    done |= passed(at, newest)
                await slices.breathe()
        return newest, pages

    def _recognise(self, info: TaskInfo) -> None:
        intent_id = (info.env or {}).get(MARKER)
        if intent_id in self._unknown and is_id(info.id):
            task, _ = self._unknown.pop(intent_id)
            task.failure = None
            self._roster.apply(task, Happening.CREATED, remote_id=info.id, status=info.status)
            if info.terminal:
                self._watcher.look(task)

    def _not_seen(self, intent_id: str, scan_began: float) -> None:
        task, scans = self._unknown[intent_id]
        if scan_began < (task.record.posted_at or scan_began) + self._create_timeout:
            return
        if scans + 1 < PROOF:
            self._unknown[intent_id] = (task, scans + 1)
        else:
            del self._unknown[intent_id]
            self._roster.apply(task, Happening.ABSENT)
