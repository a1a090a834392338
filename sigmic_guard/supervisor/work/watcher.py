"""Learning how tasks go without a connection for each: the list tells what changed, GET tells what.

The list is sorted by latest activity and carries 100 statuses a page, so reading down to what was
read before finds everything that changed, at a cost that grows with the changes and not with the
tasks. What was not seen for long is looked at with GET. A task needs no watching while somebody
waits for its events; a consumer who does something else meanwhile would learn of no end. One that
is to be ended, and that the API does not let us end, is watched as well: it may end by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from random import random
from typing import TYPE_CHECKING, Final

from anyio import Event, current_time, move_on_after, sleep_until

from sigmic_guard.errors import ProtocolError, SigmicGuardError, TaskNotFound
from sigmic_guard.lifecycle import Backoff, State
from sigmic_guard.supervisor.ground.pacing import REFUSALS, SLOWLY, asked_pause
from sigmic_guard.supervisor.ground.timer import Slices
from sigmic_guard.supervisor.ground.workers import Pool
from sigmic_guard.supervisor.work.listing import (
    AIMLESS,
    MAX_CLOCK_AHEAD,
    EndlessList,
    active_at,
    middle_of,
)
from sigmic_guard.supervisor.work.looking import TRIES

if TYPE_CHECKING:
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.audience import Audience
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.access import Access
    from sigmic_guard.supervisor.work.listing import Lister
    from sigmic_guard.supervisor.work.looking import Looker

#: Seconds between two readings of the list: while things change, and at most.
MIN_PAUSE_SECONDS: Final = 0.2
MAX_PAUSE_SECONDS: Final = 2.0
PAUSE_FACTOR: Final = 1.3
#: A reading is followed by a pause so many times as long, so that watching stays cheap at any size.
PAUSE_PER_READING: Final = 8
#: Seconds after which a task that no list showed is looked at, and how many at a time.
UNSEEN_SECONDS: Final = 60.0
MAX_UNSEEN_LOOKS: Final = 16
#: The same while no list can be read, and how often it is seen to meanwhile who is due.
UNLISTED_SECONDS: Final = 3.0
RECHECK_SECONDS: Final = 1.0
#: Tasks that are watched, for each page of a reading that may lead no further back in time.
WATCHED_A_PAGE: Final = 50
#: Seconds without an event after which a stream is not waited for, if GET has told the end.
IDLE_STREAM_SECONDS: Final = 5.0
#: Seconds after which a consumer who went away with an event does not count as a listener.
LISTENING_SECONDS: Final = 0.5
#: Seconds of what was read before that are read again: a server has more than one clock.
OVERLAP_SECONDS: Final = 1.0
#: Seconds that one GET may take.
GET_TIMEOUT: Final = 10.0
#: GETs under way at once.
MAX_LOOKS: Final = 16

_WATCHED: Final = frozenset({State.RUNNING, State.UNCONFIRMED})


class Watcher:
    """Watches running tasks. :meth:`watch_list` is the worker that reads the list."""

    def __init__(
        self,
        ground: Ground,
        looker: Looker,
        lister: Lister,
        access: Access,
    ) -> None:
        self._roster = ground.roster
        self._readings = ground.readings
        self._timer = ground.timer
        self._looker = looker
        self._lister = lister
        self._access = access
        access.get_soon = self.get_soon
        self._backoff = Backoff(first=0.2, most=10.0)
        self._pool: Pool[Entry] = Pool(
            ground.workers, "look", self._look, MAX_LOOKS, failed=self._look_later
        )
        #: By remote id; the one that was not seen for longest comes first.
        self._watched: OrderedDict[str, Entry] = OrderedDict()
        self._joined = Event()
        self._pause = MIN_PAUSE_SECONDS
        self._least = MIN_PAUSE_SECONDS
        self._read_until: float | None = None
        self._unlisted = False  # whether the list came last time, and could not be read
        self._news_at = 0.0  # when the former last changed, on anyio's clock
        #: Those for which a GET is queued, under way, or to be made again soon.
        self._looking: set[Entry] = set()
        #: How often a GET was refused, or told of another task, in a row.
        self._in_vain: dict[Entry, int] = {}
        #: What the list says of those that are to be ended, and have: it counts where GET may not.
        self._told: dict[Entry, TaskInfo] = {}
        self._roster.finished.append(self.leave)

    def listen(self, task: Entry) -> None:
        """Leave the watching to somebody who waits for the task's events."""
        self.leave(task)
        audience = task.gather_audience()
        if audience.glance_alarm is None:
            delay = UNSEEN_SECONDS if task.record.state is State.RUNNING else IDLE_STREAM_SECONDS
            audience.glance_alarm = self._timer.after(delay, self._glance, task, audience)

    def pause(self, task: Entry) -> None:
        """Handle a consumer who went away with an event, if that lasts."""
        audience = task.gather_audience()
        audience.pauses += 1
        if audience.pause_alarm is None:
            self._arm_pause(task, audience)

    def _arm_pause(self, task: Entry, audience: Audience) -> None:
        if not audience.listening and task.record.state in _WATCHED:
            audience.pause_alarm = self._timer.after(
                LISTENING_SECONDS, self._after_the_pause, task, audience, audience.pauses
            )

    def _after_the_pause(self, task: Entry, audience: Audience, pauses: int) -> None:
        audience.pause_alarm = None
        if audience.pauses == pauses:
            self.join(task)
        else:  # somebody came in between, and went again
            self._arm_pause(task, audience)

    def _glance(self, task: Entry, audience: Audience) -> None:
        """Look at a task although it is listened to: a stream can beat and tell nothing."""
        audience.glance_alarm = None
        if not audience.listening:
            return
        if task.record.state is State.RUNNING:
            self.get_soon(task)
        else:
            audience.hang_up_idle()
        audience.glance_alarm = self._timer.after(
            IDLE_STREAM_SECONDS, self._after_the_glance, task, audience
        )

    def _after_the_glance(self, task: Entry, audience: Audience) -> None:
        audience.glance_alarm = None
        if task.record.state is not State.RUNNING:
            self._glance(task, audience)
        elif audience.listening:
            self.listen(task)

    def join(self, task: Entry) -> None:
        """Watch a task from now on, unless somebody waits for its events."""
        if task.listening:
            return
        if (audience := task.audience) is not None:
            self._timer.forget(audience.glance_alarm)
            self._timer.forget(audience.pause_alarm)
            audience.glance_alarm = audience.pause_alarm = None
        if self._is_to_be_watched(task):
            # Its write is as good as a sight of it, and saves a number for each of many tasks.
            lags = self._readings.may_lag(task)
            task.seen_at = task.written_at if lags else self._roster.moment()
            self._watched[task.id] = task
            self._watched.move_to_end(task.id)
            self._pause = MIN_PAUSE_SECONDS
            self._joined.set()

    def _is_to_be_watched(self, task: Entry) -> bool:
        if task.record.state is State.UNCONFIRMED:
            # A dead owner's may be somebody's by now, who watches it already.
            return self._watched.get(task.id, task) is task
        return task.record.state is State.RUNNING

    def leave(self, task: Entry) -> None:
        """Watch it no more."""
        remote_id = task.record.remote_id
        # An adopted task may have an older handle, which must not end its watching.
        if remote_id is not None and self._watched.get(remote_id) is task:
            del self._watched[remote_id]
        self._forget(task)

    def _count_in_vain(self, task: Entry) -> int:
        times = self._in_vain[task] = self._in_vain.get(task, 0) + 1
        return times

    def _forget(self, task: Entry) -> None:
        self._in_vain.pop(task, None)
        self._told.pop(task, None)

    def get_soon(self, task: Entry) -> None:
        """Read the task with GET as soon as a worker is free."""
        if task not in self._looking and task.record.state in _WATCHED:
            self._looking.add(task)
            self._pool.put(task)

    async def watch_list(self) -> None:
        """Read the list for ever, as long as there is anything to watch."""
        failures = refusals = 0
        while True:
            if not self._watched:
                self._joined = Event()
                await self._joined.wait()
            if not failures:
                await self._rest(self._pause)
            if not self._watched:
                continue
            began = current_time()
            try:
                changed = await self._read()
            except SigmicGuardError as error:
                self._access.note_refusal(error, listed=True)
                self._unlisted = isinstance(error, ProtocolError)
                refused = isinstance(error, REFUSALS)
                failures, refusals = failures + 1, refusals + 1 if refused else 0
                backoff = SLOWLY if refused else self._backoff
                delay = backoff.delay(
                    refusals or failures, random(), retry_after=asked_pause(error)
                )
                if isinstance(error, EndlessList):
                    delay = max(delay, error.pause)
                await self._do_without(current_time() + delay)
                continue
            failures = refusals = 0
            self._unlisted = False
            self._access.worked(listed=True)
            self._pause = (
                MIN_PAUSE_SECONDS if changed else min(self._pause * PAUSE_FACTOR, MAX_PAUSE_SECONDS)
            )
            self._least = max(MIN_PAUSE_SECONDS, PAUSE_PER_READING * (current_time() - began))
            self._look_at_the_unseen()

    async def _do_without(self, until: float) -> None:
        """Leave the list alone; one that never answers shows nobody, so look at those."""
        while True:
            self._look_at_the_unseen()
            now = current_time()
            if now >= until:
                return
            step = RECHECK_SECONDS if self._unlisted else self._backoff.most
            await sleep_until(min(until, now + step))

    async def _rest(self, pause: float) -> None:
        """Pause; somebody who joins cuts it short, but not below the least."""
        began = current_time()
        self._joined = Event()
        with move_on_after(pause):
            await self._joined.wait()
        await sleep_until(began + self._least)

    async def _read(self) -> bool:
        """Read down to what was read before; ``True`` if there was anything to look at."""
        changed, middle, slices = False, None, Slices()
        horizon = self._roster.now() + MAX_CLOCK_AHEAD
        aimless = max(AIMLESS, len(self._watched) // WATCHED_A_PAGE)
        listing = self._lister.read(aimless=aimless, horizon=horizon)
        # Where there was no news for a while none can come late either: else a crowd of tasks that
        # were last active in one second would be read whole each time.
        overlap = OVERLAP_SECONDS if current_time() - self._news_at < 4 * OVERLAP_SECONDS else 0.0
        while page := await listing.next_page():
            now, dated, reached = current_time(), False, self._read_until is None
            middle = middle_of(page, horizon) if middle is None else middle
            for info in page:
                at = active_at(info, horizon)
                if at is not None:
                    dated = True
                    reached |= self._read_until is not None and at <= self._read_until - overlap
                named = self._roster.named.get(info.id)
                if named is not None:
                    self._roster.origins.recognise(named, info)
                task = self._watched.get(info.id)
                if task is not None:
                    task.seen_at = now
                    self._watched.move_to_end(info.id)
                    changed |= self._compare(task, info)
                await slices.yield_if_due()
            if reached and dated:  # pages without times are in no order that is known
                break
        if middle is not None and middle != self._read_until:
            self._read_until, self._news_at = middle, current_time()
        return changed

    def _compare(self, task: Entry, info: TaskInfo) -> bool:
        if info.terminal:
            if task.record.state is State.UNCONFIRMED:
                self._told[task] = info
            self.get_soon(task)  # the list has no output
        return info.terminal

    def _look_at_the_unseen(self) -> None:
        now = current_time()
        unseen = min(UNSEEN_SECONDS, UNLISTED_SECONDS) if self._unlisted else UNSEEN_SECONDS
        for _ in range(MAX_UNSEEN_LOOKS):
            task = next(iter(self._watched.values()), None)
            if task is None or now - task.seen_at < unseen:
                return
            task.seen_at = now
            self._watched.move_to_end(task.id)
            self.get_soon(task)

    async def _look(self, task: Entry) -> None:
        generation, lags, delay = task.generation, False, MIN_PAUSE_SECONDS
        remote_id = task.record.remote_id
        if remote_id is None:  # it is looked for
            self._looking.discard(task)
            return
        try:
            info = await self._looker.get(remote_id, timeout=GET_TIMEOUT, tries=TRIES)
        except TaskNotFound:
            self._access.worked(read=task)
            if task.record.remote_id == remote_id:
                self._readings.miss(task)
            lags = task.record.state is State.RUNNING  # it was not believed
        except REFUSALS as error:
            self._access.note_refusal(error, read=task)
            if task in self._told and self._readings.observe(task, self._told[task], generation):
                return
            pause = asked_pause(error)
            delay = SLOWLY.delay(self._count_in_vain(task), random(), retry_after=pause)
            self._timer.after(delay, self.get_soon, task)
        except SigmicGuardError as error:
            self._access.note_refusal(error, read=task)
            self._look_later(task, error)
        else:
            self._access.worked(read=task)
            # If not, it is from before a follow-up, and no list may show the task again.
            lags = not self._readings.observe(task, info, generation) and info.terminal
            if task.record.remote_id != remote_id:
                lags = False  # what was read is another create's task
            elif self._readings.is_about(task, info):
                self._forget(task)
            else:
                delay = self._backoff.delay(self._count_in_vain(task), random())
        finally:
            self._looking.discard(task)
        if lags:
            # Until then nobody needs to look: else each list that lags would begin such a row.
            self._looking.add(task)
            self._timer.after(self._readings.recheck_in(task, delay), self._look_again, task)

    def _look_again(self, task: Entry) -> None:
        self._looking.discard(task)
        self.get_soon(task)

    def _look_later(self, task: Entry, error: Exception | None = None) -> None:
        """Look again when whatever kept us from it may be over."""
        delay = self._backoff.delay(8, random(), retry_after=asked_pause(error))
        self._timer.after(delay, self.get_soon, task)
