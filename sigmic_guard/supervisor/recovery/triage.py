"""Seeing to the orphans that are ours by now: a GET tells how each is; then it is ended, or let go.

A task that somebody has adopted meanwhile is spared, however late that is found out.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final

from sigmic_guard.errors import (
    ApiError,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicGuardError,
    TaskNotFound,
)
from sigmic_guard.lifecycle import (
    Backoff,
    CancelReason,
    Event,
    State,
    terms_of_orphan,
)
from sigmic_guard.supervisor.ground.from_entry import result_of_orphan
from sigmic_guard.supervisor.ground.pacing import REFUSALS, asked_pause
from sigmic_guard.supervisor.ground.timer import Slices
from sigmic_guard.supervisor.ground.workers import Pool
from sigmic_guard.supervisor.recovery.tally import Tally
from sigmic_guard.supervisor.work.listing import seconds_of

if TYPE_CHECKING:
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entries import Entries
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.canceller import Canceller
    from sigmic_guard.supervisor.work.looking import Looker
    from sigmic_guard.supervisor.work.sparing import Sparer

#: GETs under way at once, and seconds that one may take.
MAX_LOOKS: Final = 32
GET_TIMEOUT: Final = 10.0
#: Looks, after which an answer that makes no sense is taken for the only one there is.
MAX_NONSENSE: Final = 5
#: Seconds before a task is looked at again whose end was not believed.
RECHECK_SECONDS: Final = 1.0


class Triage:
    """Takes orphans whose row is ours; they end, or are let go."""

    def __init__(
        self,
        ground: Ground,
        looker: Looker,
        canceller: Canceller,
        entries: Entries,
        sparer: Sparer,
    ) -> None:
        self._roster = ground.roster
        self._readings = ground.readings
        self._timer = ground.timer
        self._api = ground.api
        self._outbox = ground.outbox
        self._looker = looker
        self._canceller = canceller
        self._entries = entries
        self._sparer = sparer
        self._backoff = Backoff(first=0.2, most=10.0)
        self._pool: Pool[Entry] = Pool(
            ground.workers, "triage", self._decide_on, MAX_LOOKS, failed=self._look_later
        )
        #: The live ones.
        self.tasks: set[Entry] = set()
        self.tally = Tally(self.tasks, ground)
        #: How often it was looked at a task in vain.
        self._failures: dict[Entry, int] = {}
        #: When a task ended by itself, in seconds since the epoch, where the API told.
        self._ended_at: dict[Entry, float] = {}
        self._roster.finished.append(self._finished)

    def ask_again(self) -> None:
        """Come back for those whose end could not be proven, and that nobody asks about by now."""
        for task in self.tasks:
            if task.state is State.UNCONFIRMED and task.retry_alarm is None:
                self._canceller.send_delete(task)

    def join(self, task: Entry) -> None:
        """Count a task among the orphans from now on."""
        self.tasks.add(task)
        self.tally.count(task)

    def is_within_reach(self, record: Record) -> bool:
        """Tell whether a task is of our API, and of our credential."""
        return (
            record.base_url == self._api.base_url
            and record.credential_fingerprint == self._api.credential_fingerprint
        )

    # --- one by one -------------------------------------------------------------------------------

    def decide(self, task: Entry) -> None:
        """Find out by GET whether the task still runs, as soon as a worker is free."""
        self._failures.pop(task, None)
        self._pool.put(task)

    async def _decide_on(self, task: Entry) -> None:
        if task.record.state is not State.TAKEN_OVER:
            return
        remote_id, generation = task.id, task.generation
        try:
            info = await self._look(task)
            # Its id may have become known only now, and somebody may have adopted it since.
            wanted = await self._sparer.is_wanted(task.record)
        except SigmicGuardError as error:
            self._look_later(task, error)
        except BaseException as hit:
            if not isinstance(hit, Exception):
                self._pool.put(task)  # the worker was hit, the task is as it was
            raise
        else:
            if info is not None and self._is_mistaken(task, info, remote_id):
                return  # and is decided on when it is found
            if info is not None and info.terminal and task in self.tasks:
                ended_at = seconds_of(info.completed_at)
                if ended_at is not None:
                    self._ended_at[task] = ended_at
            if info is not None and self._readings.observe(task, info, generation):
                return
            if task.record.state is not State.TAKEN_OVER or task.id != remote_id:
                return  # somebody decided on it meanwhile, or will
            if info is not None and info.terminal:  # and not believed, for now
                self._timer.after(RECHECK_SECONDS, self._pool.put, task)
            elif wanted:
                self._sparer.let_go(task)
            else:
                self.end_now(task)

    def _is_mistaken(self, task: Entry, info: TaskInfo, remote_id: str) -> bool:
        """Tell whether its id was another create's, as is known by now or shown by the answer."""
        if task.record.remote_id == remote_id == info.id and self._roster.origins.is_anothers(
            task, info
        ):
            self._roster.origins.mistaken(task, info)
        return task.record.remote_id != remote_id

    def _look_later(self, task: Entry, error: Exception) -> None:
        failures = self._failures.get(task, 0)
        self._failures[task] = failures + 1
        delay = self._backoff.delay(failures, random(), retry_after=asked_pause(error))
        self._timer.after(delay, self._pool.put, task)

    async def _look(self, task: Entry) -> TaskInfo | None:
        """Ask how the task is; ``None`` where the DELETE will tell.

        :raises SigmicGuardError: it is worth while to ask again.
        """
        try:
            return await self._looker.get(task.id, timeout=GET_TIMEOUT)
        except (*REFUSALS, TaskNotFound):
            return None
        except (ApiError, ProtocolError) as error:
            failures = self._failures.get(task, 0)
            if isinstance(error, RateLimited | ServerError) or failures < MAX_NONSENSE:
                raise
            return None

    def end_stray(self, absent: Record, task_id: str) -> None:
        """End a task that was proven not to exist and did appear, or may be what was lost."""
        since = absent.finished_at or self._roster.now()
        terms = terms_of_orphan(absent.policy)
        record = self._entries.intend(terms, None, None, orphaned_at=since)
        task = self._entries.enlist(record, None)
        self.join(task)
        self._outbox.insert(record)
        self._roster.apply(task, Event.ADOPT, remote_id=task_id)

    async def release_adopted(self) -> None:
        """Leave orphans that were adopted here to those who adopted them."""
        slices = Slices()
        for task in tuple(self.tasks):
            if self._sparer.is_wanted_here(task.record):
                self._sparer.let_go(task)
            await slices.yield_if_due()

    def end_now(self, task: Entry) -> None:
        """Let the task go, or have it ended without another look."""
        if task.record.state is not State.TAKEN_OVER:
            self._canceller.send_delete(task)
        elif task.record.to_be_released:
            self._roster.apply(task, Event.DETACH)
        else:
            self._roster.cancel(task, CancelReason.ORPHAN)

    def _finished(self, task: Entry) -> None:
        ended_at = self._ended_at.pop(task, None)
        self._failures.pop(task, None)
        if task in self.tasks:
            self.tasks.discard(task)
            record = task.record
            result = result_of_orphan(record, task.cancel_result)
            assert result is not None
            self.tally.record(task, result, orphaned_at=record.orphaned_at, ended_at=ended_at)
            self.tally.count()
