"""Finding the tasks whose create got no answer.

The create carried its intent id in ``env``, and the list gives ``env`` back. So an ``UNKNOWN`` task
is found by reading the list, and never by sending the POST again. That it does not exist is proven
by two complete scans that both began after the server can no longer be at work on the POST. Should
it appear after that it is a *stray*, and is told by its mark as well.

A create that could carry no mark is told by its message and the time of its creation, which is no
proof: such *candidates* are reported, and touched only where the policy says so.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final

from anyio import Event, sleep

from sigmic_guard.errors import LedgerError, SigmicGuardError
from sigmic_guard.lifecycle import Backoff
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.sigmic import is_id
from sigmic_guard.supervisor.listing import read_all, seconds_of
from sigmic_guard.supervisor.marking import digest, marked_with
from sigmic_guard.supervisor.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
#: Seconds by which the two clocks may differ where a candidate's time of creation is compared.
NEAR: Final = 60.0


class _Sought:
    """An ``UNKNOWN`` task that is looked for."""

    __slots__ = ("candidates", "scans", "task")

    def __init__(self, task: Entry) -> None:
        self.task = task
        #: Complete scans that did not show it, past its time-out.
        self.scans = 0
        self.candidates: dict[str, None] = {}


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
        self._backoff = Backoff(first=0.1, most=2.0)
        #: By intent id.
        self._sought: dict[str, _Sought] = {}
        #: By intent id: records whose absence was proven, and who may appear all the same.
        self._strays: dict[str, Record] = {}
        self._wanted = Event()
        #: What to do with a task that does not exist, and with a stray.
        self._absent = absent
        self._found_stray = found_stray

    def take(self, task: Entry) -> None:
        """Look for a task whose create got no answer."""
        task.sought = True
        self._sought[task.record.intent_id] = _Sought(task)
        self._wanted.set()

    def beware_of(self, records: Iterable[Record]) -> None:
        """Read the list once for tasks that were proven absent and may have appeared since."""
        for record in records:
            self._strays[record.intent_id] = record
            self._wanted.set()

    async def run(self) -> None:
        """Scan the list for as long as a task is unknown."""
        fruitless = 0
        while True:
            if not self._sought and not self._strays:
                fruitless = 0
                await self._wanted.wait()
            self._wanted = Event()
            fruitless += 1
            await sleep(self._backoff.delay(fruitless, random()))
            try:
                await self._scan()
            except LedgerError as error:
                self._observer.ledger_failed(0, error)
            except SigmicGuardError:
                continue  # an incomplete scan proves nothing

    async def _scan(self) -> None:
        began = self._roster.now()
        sought, strays = dict(self._sought), dict(self._strays)
        if not sought and not strays:
            return
        records = [*strays.values(), *(one.task.record for one in sought.values())]
        oldest = min(record.posted_at or record.created_at for record in records)
        age = began - oldest

        def too_old(at: float, newest: float) -> bool:
            # By the server's own clock as well: ours may be far ahead of it.
            return at < min(oldest, newest - age) - SKEW

        if not await read_all(self._api, self._recognise, too_old):
            return  # too much moves: this proves nothing
        for intent_id in strays:
            self._strays.pop(intent_id, None)
        slices = Slices()
        for intent_id, one in sought.items():
            if self._sought.get(intent_id) is one:
                await self._not_seen(one, began)
            await slices.breathe()

    def _recognise(self, info: TaskInfo) -> None:
        if not is_id(info.id):
            return
        intent_id = marked_with(info)
        if intent_id is None:
            self._compare(info)
        elif (one := self._sought.get(intent_id)) is not None:
            self._found(one, info.id, info.status)
            if info.terminal:
                self._watcher.look(one.task)
        elif intent_id in self._strays and not info.terminal and info.id not in self._roster.named:
            self._found_stray(self._strays.pop(intent_id), info.id)

    def _found(self, one: _Sought, task_id: str, status: str | None = None) -> None:
        self._sought.pop(one.task.record.intent_id, None)
        one.task.sought = False
        one.task.failure = None
        self._roster.apply(one.task, Happening.CREATED, remote_id=task_id, status=status)

    async def _not_seen(self, one: _Sought, scan_began: float) -> None:
        record = one.task.record
        sent_at = record.posted_at or record.lost_at or scan_began
        if scan_began < sent_at + self._create_timeout:
            return
        if one.candidates and await self._propose(one):
            return
        one.scans += 1
        if one.scans >= PROOF and self._sought.pop(record.intent_id, None) is one:
            one.task.sought = False
            self._absent(one.task)

    # --- candidates: creates without a mark -----------------------------------------------------

    def _compare(self, info: TaskInfo) -> None:
        """Note a task that may be one of those sought."""
        if info.terminal or info.message is None or info.id in self._roster.named:
            return
        its_digest: str | None = None
        for one in self._sought.values():
            if one.task.record.message_digest is None:
                continue
            its_digest = its_digest or digest(info.message)
            if its_digest == one.task.record.message_digest and self._near(one, info):
                one.candidates[info.id] = None

    def _near(self, one: _Sought, info: TaskInfo) -> bool:
        record, created_at = one.task.record, seconds_of(info.created_at)
        if created_at is None:
            return True  # nothing speaks against it
        latest = (record.posted_at or record.lost_at or record.created_at) + self._create_timeout
        return (record.posted_at or record.created_at) - NEAR <= created_at <= latest + NEAR

    async def _propose(self, one: _Sought) -> bool:
        """Report the candidates that belong to nobody; ``False`` if there is none."""
        record = one.task.record
        free = [
            task_id
            for task_id in one.candidates
            if task_id not in self._roster.named and not await self._ledger.find(task_id)
        ]
        one.candidates.clear()
        if not free or self._sought.pop(record.intent_id, None) is not one:
            return False
        self._observer.candidates_found(record, free)
        if record.policy.on_lost == "cancel":
            self._found(one, free[0])
            for task_id in free[1:]:
                self._found_stray(record, task_id)
        else:
            one.task.sought = False
            one.task.wake()  # nobody here will learn more
        return True
