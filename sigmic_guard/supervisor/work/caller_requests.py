"""Requests that callers wait for and do not carry themselves: follow-ups, approvals, reads.

They run in the supervisor's workers, so that a caller who is cancelled does not tear a request
apart whose effect starts a task again, and so that nobody waits past the shutdown.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from anyio import Event, move_on_after

from sigmic_guard.errors import (
    ConnectionFailed,
    ProtocolError,
    SigmicGuardError,
    SupervisorShutdown,
    bare,
)
from sigmic_guard.lifecycle import Event as Happening
from sigmic_guard.lifecycle import State
from sigmic_guard.supervisor.ground.lag import BRAND_NEW, end_in
from sigmic_guard.supervisor.ground.workers import Pool
from sigmic_guard.supervisor.work.creating import interrupted, refused_outright

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sigmic_guard.sigmic.api import ApprovalOutcome
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.canceller import Canceller
    from sigmic_guard.supervisor.work.watcher import Watcher
    from sigmic_guard.supervisor.work.wish import Wish

#: Requests under way at once.
MAX_REQUESTS: Final = 64


class _Request:
    """A request, and where its answer is left."""

    __slots__ = ("answer", "done", "error", "request")

    def __init__(self, request: Callable[[], Awaitable[Any]]) -> None:
        self.request = request
        self.done = Event()
        self.answer: Any = None
        self.error: BaseException | None = None


class CallerRequests:
    """Sends them; callers wait."""

    def __init__(
        self,
        ground: Ground,
        canceller: Canceller,
        watcher: Watcher,
    ) -> None:
        self._roster = ground.roster
        self._readings = ground.readings
        self._outbox = ground.outbox
        self._api = ground.api
        self._observer = ground.observer
        self._timeout = ground.settings.create_timeout
        self._canceller = canceller
        self._watcher = watcher
        self._pool: Pool[_Request] = Pool(
            ground.workers, "caller request", self._run, MAX_REQUESTS, failed=self._break_off
        )
        self._under_way: set[_Request] = set()

    async def send(self, task: Entry, follow_up: Wish) -> None:
        """Send a follow-up message that was checked."""
        # From here on the task counts as running, and a DELETE waits for the answer: a task that is
        # asked again, with the answer lost, must not be taken for completed.
        follow_ups = task.begin_follow_up()
        follow_ups.sending += 1
        follow_ups.generation += 1
        generation = task.generation if _asleep(task) else None
        first = task.record.asked_at is None
        self._roster.apply(task, Happening.FOLLOW_UP)
        remote_id = task.id
        await self._request(
            lambda: self._send(
                task, follow_up, reopened_in=generation, first=first, remote_id=remote_id
            )
        )

    async def _send(
        self,
        task: Entry,
        follow_up: Wish,
        *,
        reopened_in: int | None,
        first: bool,
        remote_id: str,
    ) -> None:
        refused = False
        try:
            # Whoever comes after us must know that it may be on its way.
            with move_on_after(self._timeout):
                await self._outbox.flush()
            if reopened_in is not None:
                await self._learn_last_end(task, first=first)
            if task.record.remote_id != remote_id:
                raise ConnectionFailed("the task is looked for", sent=False)
            message, files = follow_up.message, follow_up.options["files"]
            self._observer.detail(task.record, "message", message)
            with self._observer.around("send", task.record):
                await self._api.send(remote_id, message, files=files, timeout=self._timeout)
        except SigmicGuardError as error:
            refused = refused_outright(error)
            raise
        finally:
            alone = task.generation == reopened_in  # else another message may have started it again
            follow_ups = task.begin_follow_up()
            follow_ups.generation += 1
            follow_ups.sending -= 1
            if not refused:
                task.note_write()
            if task.record.remote_id != remote_id:
                pass  # it is another task that was asked, or would have been
            elif refused and alone:
                self._readings.complete_again(task)
            elif refused:
                self._watcher.get_soon(task)  # what was read meanwhile was not believed
            self._canceller.send_delete(task)

    async def _learn_last_end(self, task: Entry, *, first: bool) -> None:
        """Ask when the turn before ended, if nobody told: by that its end is told from the next."""
        before = task.last_end
        if before is None or before.completed_at is not None:
            return
        if self._readings.may_lag(task) and not first:
            return  # the answer might show an older end
        with suppress(SigmicGuardError):
            info = await self._api.get(task.id, timeout=BRAND_NEW)  # longer would gain nothing
            if info.id == task.id and info.status == "completed":
                end = end_in(info)._replace(final_response=before.final_response)
                self._readings.learn_last_end(task, end)

    async def approve(self, task: Entry, call_id: str, outcome: ApprovalOutcome) -> bool:
        """Decide on a tool call."""
        task_id = task.id
        answer: bool = await self._request(lambda: self._approve(task, task_id, call_id, outcome))
        return answer

    async def _approve(
        self, task: Entry, task_id: str, call_id: str, outcome: ApprovalOutcome
    ) -> bool:
        with self._observer.around("approve", task.record):
            return await self._api.approve(task_id, call_id, outcome, timeout=self._timeout)

    async def read(self, task_id: str) -> TaskInfo:
        """Read a task for a caller who waits for it."""
        info: TaskInfo = await self._request(lambda: self._api.get(task_id, timeout=self._timeout))
        if info.id != task_id:
            raise ProtocolError("the API answered with another task than was asked for")
        return info

    def close(self) -> None:
        """Tell those who wait that no answer comes any more."""
        for waiting in self._pool.clear():
            waiting.error = SupervisorShutdown("the supervisor shut down; the request was not sent")
            waiting.done.set()
        for waiting in self._under_way:
            waiting.error = ConnectionFailed("the supervisor shut down meanwhile", sent=True)
            waiting.done.set()

    async def _request(self, request: Callable[[], Awaitable[Any]]) -> Any:
        waiting = _Request(request)
        self._pool.put(waiting)
        await waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error
        return waiting.answer

    async def _run(self, waiting: _Request) -> None:
        self._under_way.add(waiting)
        try:
            waiting.answer = await waiting.request()
        except SigmicGuardError as error:
            waiting.error = bare(error)  # the frames of the client hold what was to be sent
        except BaseException as hit:
            if not isinstance(hit, Exception):
                self._break_off(waiting, hit)
            raise
        self._done(waiting)

    def _break_off(self, waiting: _Request, hit: BaseException) -> None:
        waiting.error = interrupted("request", hit, sent=True)
        self._done(waiting)

    def _done(self, waiting: _Request) -> None:
        self._under_way.discard(waiting)
        waiting.done.set()


def _asleep(task: Entry) -> bool:
    return task.record.state is State.COMPLETED
