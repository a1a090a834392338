"""Ending tasks: DELETE, asked again until there is proof, or nobody may ask any more.

A task in ``CANCELLING`` is always in one of three places: in the queue, in a worker's hands, or
with the timer until its next attempt. It leaves ``CANCELLING`` by proof, or by giving up, which
happens at the end of a shutdown's budget, and where the API refuses us in its own words (401, 403).
Such a refusal is believed and told once, as ``UNCONFIRMED``, and asked about again, slowly, for as
long as the task may run.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final, TypeGuard

from sigmic_guard.errors import (
    ApiError,
    ConnectionFailed,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicGuardError,
    TaskNotFound,
    bare,
)
from sigmic_guard.lifecycle import Backoff, CancelResult, Event, State, may_be_wanted
from sigmic_guard.lifecycle.states import TO_BE_ENDED
from sigmic_guard.lifecycle.text import tidy_status
from sigmic_guard.observe import CancellationAcknowledged, DeleteAnswered, status_of
from sigmic_guard.supervisor.ground.durations import seconds_since_cancel
from sigmic_guard.supervisor.ground.pacing import REFUSALS, SLOWLY, asked_pause
from sigmic_guard.supervisor.ground.phases import NextRequest
from sigmic_guard.supervisor.ground.workers import Pool
from sigmic_guard.supervisor.work.clearing import Clearing

if TYPE_CHECKING:
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.access import Access
    from sigmic_guard.supervisor.work.looking import Looker
    from sigmic_guard.supervisor.work.sparing import Sparer

#: Seconds that one DELETE or GET may take.
REQUEST_TIMEOUT: Final = 5.0
#: The least, however many tasks share what is left of a shutdown's budget.
MIN_REQUEST_TIMEOUT: Final = 0.1
#: An acknowledged task that still runs after so many looks was not cancelled: DELETE it again.
MAX_LOOKS: Final = 4
#: After so many DELETEs without an answer it is looked whether one of them was obeyed.
DELETES_A_LOOK: Final = 3
#: A task that a bug hits is unconfirmed after so many attempts.
MAX_BUGS: Final = 3
#: Seconds before it is asked again, times its attempts, of which no more than the second count.
BUG_SECONDS: Final = 1.0
MOST_BUG_PAUSES: Final = 60

_WORTH_RETRYING: Final = (RateLimited, ServerError, ConnectionFailed)


def _is_worth_retrying(error: SigmicGuardError) -> bool:
    """Whether the DELETE probably never came to the API, so that GET has nothing new to tell."""
    too_many = isinstance(error, ProtocolError) and error.status == 429
    return too_many or isinstance(error, _WORTH_RETRYING)


def _has_its_reason(error: SigmicGuardError | None) -> TypeGuard[ApiError]:
    """Whether the API has refused a DELETE for what the task is: only GET has anything to add."""
    return isinstance(error, ApiError) and not isinstance(error, (*_WORTH_RETRYING, TaskNotFound))


def _next_request(task: Entry) -> NextRequest:
    return NextRequest.DELETE if task.cancelling is None else task.cancelling.next_request


class Canceller:
    """Takes tasks that must end; they end."""

    def __init__(
        self,
        ground: Ground,
        looker: Looker,
        access: Access,
        sparer: Sparer,
    ) -> None:
        self._roster = ground.roster
        self._readings = ground.readings
        self._timer = ground.timer
        self._api = ground.api
        self._moment = ground.lifetime.moment
        self._observer = ground.observer
        self._looker = looker
        self._access = access
        self._backoff = Backoff(first=0.1, most=10.0)
        self._pool: Pool[Entry] = Pool(
            ground.workers, "cancel", self._work, ground.settings.max_cancels, failed=self._failed
        )
        self._clearing = Clearing(
            ground,
            sparer,
            seconds=self._seconds_for_a_row,
            cleared=self._pool.put,
            failed=self._not_cleared,
        )
        self.clear_all = self._clearing.clear_all
        #: In a queue, or in a worker's hands: nobody is asked for twice at once.
        self._here: set[Entry] = set()
        #: When the shutdown's budget ends, on anyio's clock; every wait here ends before.
        self.budget_end: float | None = None
        self.hold = self._pool.hold
        self.release = self._pool.release

    def send_delete(self, task: Entry) -> None:
        """Send a DELETE for the task as soon as a worker is free."""
        if task.record.state not in TO_BE_ENDED:
            return
        if task.sending:
            # A follow-up under way could start the task again behind the DELETE's back. The request
            # comes back here when it is answered; the alarm is for the one that never is.
            if task.retry_alarm is None:  # who asks again and again does not put it off
                self._set_alarm(task, self._request_timeout() / 2)
        else:
            self._forget_alarm(task)
            self._enqueue(task)

    def _enqueue(self, task: Entry) -> None:
        if task not in self._here:
            self._here.add(task)
            if _next_request(task) is NextRequest.DELETE and may_be_wanted(task.record):
                self._clearing.take(task)
            else:
                self._pool.put(task)

    def hurry(self, task: Entry) -> None:
        """Do not wait for the time of the next attempt: somebody asks for it."""
        if task.retry_alarm is not None or task.record.state is State.UNCONFIRMED:
            self.send_delete(task)

    def hasten(self) -> None:
        """Let no request that is under way take longer than one that begins now may."""
        self._pool.cut_off(self._moment() + self._request_timeout())

    def give_up(self, task: Entry, error: str | None = None) -> None:
        """Let it be known that the task may still run, and that nothing more is expected soon."""
        self._forget_alarm(task)
        if task.record.state is State.CANCELLING:
            self._roster.apply(task, Event.GIVE_UP, error=error)
        elif task.record.state is State.UNCONFIRMED:
            self._roster.apply(task, Event.ATTEMPT, error=error)  # so that who asked is told

    async def _work(self, task: Entry) -> None:
        again, remote_id = False, task.record.remote_id
        try:
            await self._timer.until_swept()
            if task.record.state not in TO_BE_ENDED:
                return  # ended by itself, or seen ended, while it waited here
            if _next_request(task) is NextRequest.DELETE:
                again = await self._delete(task)
            else:
                await self._look(task, task.begin_cancelling().refusal)
        except BaseException as hit:
            again = not isinstance(hit, Exception)  # the worker was hit, the task is as it was
            raise
        finally:
            self._here.discard(task)
            if again or task.record.remote_id != remote_id:
                self._enqueue(task)

    def _not_cleared(self, task: Entry, bug: Exception) -> None:
        self._here.discard(task)
        self._failed(task, bug)

    def _failed(self, task: Entry, bug: Exception) -> None:
        """Ask again, slowly, and after some attempts let it be known that it may still run."""
        if task.record.remote_id is None:
            return  # it is looked for
        error = f"bug: {type(bug).__name__}"
        self._roster.apply(task, Event.ATTEMPT, error=error)
        if task.record.attempts >= MAX_BUGS:
            self.give_up(task, error)
        if task.record.state in TO_BE_ENDED and (
            self.budget_end is None or task.record.state is State.CANCELLING
        ):
            delay = BUG_SECONDS * (0.5 + random()) * min(task.record.attempts, MOST_BUG_PAUSES)
            if self.budget_end is not None:
                delay = MIN_REQUEST_TIMEOUT
            self._set_alarm(task, delay)

    async def _delete(self, task: Entry) -> bool:
        """Send the DELETE; ``True`` if it is to be looked what came of it, after other DELETEs."""
        record = task.record
        assert record.remote_id is not None
        try:
            with self._observer.around("cancel", record):
                documented = await self._api.delete(
                    record.remote_id, timeout=self._request_timeout()
                )
        except REFUSALS as error:
            if task.record.remote_id != record.remote_id:
                return False  # that was about another create's task
            self._refused(task, error)  # first: this is what is told of it, the attempt is counted
            self._observer.observe(DeleteAnswered(task.record, status_of(error)))
            return False
        except SigmicGuardError as error:
            self._observer.observe(DeleteAnswered(task.record, status_of(error)))
            if task.record.remote_id != record.remote_id:
                return False
            await self._unproven(task, error)
            return False
        self._observer.observe(DeleteAnswered(task.record, "200"))
        if task.record.remote_id != record.remote_id:
            return False
        self._observer.observe(CancellationAcknowledged(task.record, seconds_since_cancel(task)))
        if documented and record.policy.confirm == "accepted":
            self._ended(task, CancelResult.ACKNOWLEDGED)
            return False
        task.begin_cancelling().next_request = NextRequest.GET_TO_CONFIRM
        return True

    def _ended(self, task: Entry, result: CancelResult) -> None:
        if task.record.state in TO_BE_ENDED:  # somebody may have seen its end while we asked
            self._roster.end(task, result)

    def _refused(self, task: Entry, error: SigmicGuardError) -> None:
        """Believe that we may not, and ask again slowly; in a shutdown, leave it to others."""
        self._access.note_refusal(error)
        self.give_up(task, str(error))
        if task.record.state is State.UNCONFIRMED:
            cancelling = task.begin_cancelling()
            cancelling.refusals += 1
            if self.budget_end is None:
                again = SLOWLY.delay(cancelling.refusals, random(), retry_after=asked_pause(error))
                self._set_alarm(task, again)

    async def _unproven(self, task: Entry, error: SigmicGuardError) -> None:
        if isinstance(error, TaskNotFound) and not self._readings.may_lag(task):
            self._ended(task, CancelResult.NOT_FOUND)
        elif _is_worth_retrying(error) and (task.record.attempts + 1) % DELETES_A_LOOK:
            self._again(task, error)
        else:
            # Any other refusal may well mean that the task has ended, and so may a 404 that may
            # only lag; a gateway's page may have replaced any answer, and others are lost again
            # and again: look.
            await self._look(task, error)

    def _unknown(self, task: Entry, error: TaskNotFound) -> None:
        """Handle a 404, which is no proof while reads may lag."""
        if self._readings.may_lag(task):
            self._again(task, error)
        else:
            self._ended(task, CancelResult.NOT_FOUND)

    async def _look(self, task: Entry, refusal: SigmicGuardError | None = None) -> None:
        remote_id, generation = task.record.remote_id, task.generation
        assert remote_id is not None
        try:
            with self._observer.around("confirm", task.record):
                info = await self._looker.get(remote_id, timeout=self._request_timeout())
        except (ApiError, ConnectionFailed, ProtocolError) as error:
            if task.record.remote_id != remote_id:
                return
            if isinstance(error, TaskNotFound):
                self._unknown(task, error)
            elif isinstance(error, REFUSALS):
                self._refused(task, error)
            else:
                if _has_its_reason(refusal):
                    cancelling = task.begin_cancelling()
                    cancelling.refusal = bare(refusal)
                    cancelling.next_request = NextRequest.GET_AFTER_REFUSAL
                self._again(task, refusal or error)
        else:
            if self._readings.observe(task, info, generation) or task.record.remote_id != remote_id:
                return
            self._note_running(task)
            self._again(task, refusal, status=info.status)

    def _note_running(self, task: Entry) -> None:
        """Take in that a GET shows a task running that is to end."""
        cancelling = task.begin_cancelling()
        if cancelling.next_request is NextRequest.GET_TO_CONFIRM:
            cancelling.looks += 1
            if cancelling.looks < MAX_LOOKS:
                return
        cancelling.next_request, cancelling.looks = NextRequest.DELETE, 0
        cancelling.refusal = None

    def _again(
        self, task: Entry, error: SigmicGuardError | None, *, status: str | None = None
    ) -> None:
        """Leave the task with the timer until its next attempt."""
        said = (
            str(error)
            if error is not None
            else f"acknowledged, and still {tidy_status(status or '')}"
        )
        if not self._roster.apply(task, Event.ATTEMPT, error=said, status=status):
            return  # it ended while we asked
        asked = asked_pause(error)
        delay = self._backoff.delay(task.record.attempts, random(), retry_after=asked)
        if isinstance(error, TaskNotFound):
            delay = self._readings.recheck_in(task, delay)
        if self.budget_end is not None:
            # One more attempt fits in before the end, whatever was asked for; else there are some.
            left = self.budget_end - self._moment()
            most = left - 2 * MIN_REQUEST_TIMEOUT if asked else left / 2
            delay = min(delay, max(most, MIN_REQUEST_TIMEOUT))
        self._set_alarm(task, delay)

    def _set_alarm(self, task: Entry, delay: float) -> None:
        """Have the next attempt made in ``delay`` seconds, unless somebody asks before."""
        cancelling = task.begin_cancelling()
        self._timer.forget(cancelling.retry_alarm)
        cancelling.retry_alarm = self._timer.after(delay, self._due, task)

    def _forget_alarm(self, task: Entry) -> None:
        if task.cancelling is not None:
            self._timer.forget(task.cancelling.retry_alarm)
            task.cancelling.retry_alarm = None

    def start_over(self, task: Entry) -> None:
        """Forget what was learned of the task: it was about another one."""
        self._forget_alarm(task)
        task.cancelling = None

    def _due(self, task: Entry) -> None:
        task.begin_cancelling().retry_alarm = None
        self._enqueue(task)

    def _seconds_for_a_row(self) -> float:
        seconds = self._request_timeout()
        return seconds if self.budget_end is None else seconds / 4

    def _request_timeout(self) -> float:
        """Seconds for one request: in a shutdown, so that each waiting task gets its attempt."""
        if self.budget_end is None:
            return REQUEST_TIMEOUT
        left = max(self.budget_end - self._moment(), MIN_REQUEST_TIMEOUT)
        rounds = 1 + len(self._pool) // self._pool.size
        return min(REQUEST_TIMEOUT, max(left / rounds, MIN_REQUEST_TIMEOUT))
