"""Finding the tasks whose create got no answer.

The create carried its intent id in ``env``, and the list gives ``env`` back. So an ``UNKNOWN`` task
is found by reading the list, and never by sending the POST again. That it does not exist is proven
by two complete scans that both began after the server can no longer be at work on the POST. Should
it appear after that it is a *stray*, and is told by its mark as well.

A create that could carry no mark is told by its message and the time of its creation, which is no
proof: such *candidates* are reported, and touched only where the policy says so.
"""

from __future__ import annotations

from itertools import chain
from math import inf
from random import random
from typing import TYPE_CHECKING, Final

from anyio import Event, current_time, move_on_after, sleep_until

from sigmic_guard.errors import LedgerError, SigmicGuardError
from sigmic_guard.lifecycle import Backoff, Verdict
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.sigmic import is_id
from sigmic_guard.supervisor.candidates import Candidates
from sigmic_guard.supervisor.listing import read_all
from sigmic_guard.supervisor.marking import marked_with
from sigmic_guard.supervisor.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe import Observer
    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.entry import Entry
    from sigmic_guard.supervisor.roster import Roster
    from sigmic_guard.supervisor.watcher import Watcher

#: Complete scans, past the create's time-out, that prove a task's absence.
PROOF: Final = 2
#: Seconds by which the server's clock and ours may differ: a scan ends at tasks that were last
#: active so long before the create.
SKEW: Final = 3600.0
#: How long to pause between two scans: while a caller may wait for what they find, and later.
SOON: Final = Backoff(first=0.1, most=2.0)
SELDOM: Final = Backoff(first=0.1, most=10.0)
#: Seconds after which no caller waits any more; at least so many, and twice the create's time-out.
AWAITED: Final = 60.0
#: A scan is followed by a pause so many times as long, so that it stays cheap at any size.
SHARE: Final = 3


class _Sought:
    """An ``UNKNOWN`` task that is looked for."""

    __slots__ = ("scans", "sent_by", "task")

    def __init__(self, task: Entry, now: float) -> None:
        record = task.record
        self.task = task
        #: When its POST had been sent at the latest, by our own clock: a dead owner may have sent
        #: it, unwritten, until the moment it died, and its clock need not have been ours.
        self.sent_by = now if record.orphaned_at is not None else record.posted_at or now
        #: Complete scans that did not show it, past its time-out.
        self.scans = 0


class Reconciler:
    """Resolves ``UNKNOWN`` tasks. :meth:`run` is the worker."""

    def __init__(
        self,
        roster: Roster,
        watcher: Watcher,
        api: TaskApi,
        ledger: Ledger,
        observer: Observer,
        *,
        create_timeout: float,
        absent: Callable[[Entry], None],
        found_stray: Callable[[Record, str], None],
    ) -> None:
        self._roster = roster
        self._watcher = watcher
        self._api = api
        self._ledger = ledger
        self._observer = observer
        self._create_timeout = create_timeout
        #: By intent id.
        self._sought: dict[str, _Sought] = {}
        #: By intent id: records whose absence was proven, and who may appear all the same.
        self._strays: dict[str, Record] = {}
        #: More of these. There may be many, so they are sorted in by the worker.
        self._warnings: list[Iterator[Record]] = []
        self._candidates = self._compare_nothing()
        self._wanted = Event()
        #: Scans in a row that were not what somebody new waits for.
        self._rounds = 0
        self._awaited_until = -inf
        #: What to do with a task that does not exist, and with a stray.
        self._absent = absent
        self._found_stray = found_stray

    def take(self, task: Entry) -> None:
        """Look for a task whose create got no answer."""
        now = self._roster.now()
        task.sought = True
        self._sought[task.record.intent_id] = _Sought(task, now)
        self._awaited_until = now + max(AWAITED, 2 * self._create_timeout)
        self.hurry()

    def hurry(self) -> None:
        """Look soon: somebody waits."""
        self._rounds = 0
        self._wanted.set()

    def beware_of(self, records: Iterable[Record]) -> None:
        """Read the list once for tasks that were proven absent and may have appeared since."""
        rest = iter(records)
        for first in rest:
            self._warnings.append(chain((first,), rest))
            self._wanted.set()
            break

    # --- when to scan ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Scan the list for as long as a task is unknown."""
        least = 0.0
        while True:
            await self._heed_warnings()
            if not self._sought and not self._strays:
                await self._wanted.wait()
                self._wanted, self._rounds = Event(), 0
                continue_at_once = not self._sought
                if continue_at_once:
                    continue
            await self._rest(least)
            began, told_to_wait = current_time(), 0.0
            try:
                await self._scan()
            except LedgerError as error:
                self._observer.ledger_failed(0, error)
            except SigmicGuardError as error:  # an incomplete scan proves nothing
                told_to_wait = getattr(error, "retry_after", None) or 0.0
            least = max(SHARE * (current_time() - began), told_to_wait)
