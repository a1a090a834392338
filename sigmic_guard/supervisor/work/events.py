"""What a task does, as it does it: :class:`TaskEvents`, over a stream that may break at any time.

The iterator is a plain object, read in its consumer's own task: no scope, task group or generator
is left behind when the consumer leaves. It learns the end from ``done``, from ``history_done`` with
``isStreaming: false``, or from GET, which it asks whenever the stream ends or breaks.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from random import random
from typing import TYPE_CHECKING, Final, Self

from anyio import CancelScope, current_time, move_on_after

from sigmic_guard.errors import (
    ConfigurationError,
    ProtocolError,
    SigmicGuardError,
    TaskNotFound,
)
from sigmic_guard.lifecycle import Backoff, State
from sigmic_guard.lifecycle.backoff import believed
from sigmic_guard.supervisor.ground.pacing import REFUSALS, asked_pause
from sigmic_guard.supervisor.work.looking import TRIES
from sigmic_guard.supervisor.work.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.sigmic.api import EventStream
    from sigmic_guard.sigmic.sse import ServerSentEvent
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.access import Access
    from sigmic_guard.supervisor.work.looking import Looker
    from sigmic_guard.supervisor.work.transcript import TaskEvent
    from sigmic_guard.supervisor.work.watcher import Watcher

#: Three heartbeats. Source: the API page, "stream".
SILENCE_TIMEOUT: Final = 45.0
#: Seconds that opening a stream, or a GET, may take.
REQUEST_TIMEOUT: Final = 10.0

_ENDING: Final = frozenset({State.CANCELLING, State.UNCONFIRMED, State.DETACHED, State.HANDED_OVER})


class Phase(IntEnum):
    """The phases of an iterator, in the order in which it may come into them."""

    OPEN = auto()
    #: Nothing more comes than what is ready.
    OVER = auto()
    #: Nothing comes any more.
    CLOSED = auto()


class Consumer(Enum):
    """What the consumer does."""

    #: It does something else, with the last event or without any.
    AWAY = auto()
    #: It is inside of ``__anext__``.
    WAITS = auto()
    #: And what it waits for is the stream.
    RECEIVES = auto()


class TaskEvents:
    """Iterates over the events of one task; made by :meth:`RemoteTask.events`, for one consumer."""

    def __init__(
        self, task: Entry, ground: Ground, looker: Looker, watcher: Watcher, access: Access
    ) -> None:
        self._task = task
        self._ground = ground
        self._looker = looker
        self._watcher = watcher
        self._access = access
        self._backoff = Backoff(first=0.1, most=10.0)
        self._failures = 0
        #: Until when the API asked us not to open the stream; how the task is, GET tells.
        self._closed_until = 0.0
        self._stream: EventStream | None = None
        self._transcript = Transcript(task, ground)
        self._counted = False
        self._consumer = Consumer.AWAY
        self._batches = 0  # that streams brought
        self._batches_before = -1  # when somebody asked last whether any came
        self._must_look = False
        #: Closed by close(), from whatever task.
        self._phase = Phase.OPEN
        #: What close() cancels while a consumer waits for something else than a stream.
        self._scope: CancelScope | None = None

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def __anext__(self) -> TaskEvent:
        """Return the next event; see :meth:`RemoteTask.events` for what it raises."""
        self._ground.check_here()
        ready = self._transcript.ready
        while self._phase is Phase.CLOSED or not ready:
            if self._phase is not Phase.OPEN:
                raise StopAsyncIteration
            self._begin_to_read()
            try:
                if self._stream is not None and not self._must_look:
                    await self._read()  # close() ends this by the stream
                else:
                    with CancelScope() as self._scope:
                        await self._read()
            except SigmicGuardError:
                self._close()
                raise
            finally:
                self._stop_reading()
        return ready.popleft()

    async def aclose(self) -> None:
        """Drop the connection at once; no further event comes. Again does nothing.

        The iteration of a consumer that waits in another task ends.
        """
        self._ground.check_here()
        self._close()

    def close(self) -> None:
        """Do what :meth:`aclose` does, as a plain call: safe wherever it is made."""
        self._phase = Phase.CLOSED
        self._ground.inbox.leave(self._close)

    def _close(self) -> None:
        self._phase = Phase.CLOSED
        self._transcript.ready.clear()
        self._leave()
        if self._scope is not None:
            self._scope.cancel()

    def __del__(self) -> None:
        # A consumer who breaks out of `async for` leaves nothing else behind.
        if self._counted:
            self._ground.inbox.leave(_drop, self._stream, self._task, self._watcher)

    # --- one stream for as long as somebody reads ---------------------------------------------

    def _begin_to_read(self) -> None:
        if self._consumer is not Consumer.AWAY:
            raise ConfigurationError(
                "another task waits for this iterator's next event: an iterator has one consumer, "
                "and task.events() makes another one"
            )
        self._consumer = Consumer.WAITS
        audience = self._task.gather_audience()
        audience.listening += 1
        if not self._counted:
            self._counted = True
            audience.readers.add(self)
        self._watcher.listen(self._task)

    def _stop_reading(self) -> None:
        """Whoever has an event may be gone for long: only one that waits learns the end by it."""
        self._consumer = Consumer.AWAY
        self._scope = None
        self._task.gather_audience().listening -= 1
        if self._phase is Phase.CLOSED:
            self._transcript.ready.clear()  # what came in while it was being closed
        if self._counted:
            self._watcher.pause(self._task)
        else:
            self._watcher.join(self._task)

    def _leave(self) -> None:
        self.hang_up()
        if self._counted:
            self._counted = False
            self._task.gather_audience().readers.discard(self)
            if self._consumer is Consumer.AWAY:
                self._watcher.join(self._task)

    def hang_up(self) -> None:
        """Drop the connection; who reads finds out how the task is."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def start_over(self) -> None:
        """Drop all that was read: it was another task's."""
        self.hang_up()
        self._transcript.ready.clear()

    def hang_up_idle(self) -> None:
        """Drop the connection if a consumer waits for it, and nothing came since the last call."""
        if self._consumer is Consumer.RECEIVES and self._batches == self._batches_before:
            self.hang_up()
        self._batches_before = self._batches

    async def _read(self) -> None:
        """Read what comes next; may come back with nothing, if there is nothing yet."""
        if self._task.record.state is State.UNKNOWN:
            await self._task.until_found()
            self._must_look = False
        if self._must_look:
            self._must_look = False
            await self._look()
            return
        if self._nothing_to_come():
            self._finish()
            return
        if self._stream is None and current_time() < self._closed_until:
            await self._look()
            return
        try:
            if self._stream is None:
                await self._open()
                return
            events = await self._receive(self._stream)
        except REFUSALS as error:
            self._access.note_refusal(error)
            raise
        except SigmicGuardError as error:
            if isinstance(error, ProtocolError) and self._stream is not None:
                raise  # an event that is too large; it would come again
            self._closed_until = current_time() + believed(asked_pause(error))
            self._must_look = True
            return
        if self._task.record.remote_id != self._transcript.remote_id:
            return
        told = self._transcript.read(events)
        if told.anything_new:
            self._failures = 0
        if told.ask_get or not events:
            self._must_look = True

    async def _receive(self, stream: EventStream) -> Sequence[ServerSentEvent]:
        self._consumer = Consumer.RECEIVES
        try:
            return await stream.receive()
        finally:
            self._consumer = Consumer.WAITS
            self._batches += 1

    def _nothing_to_come(self) -> bool:
        """Tell whether the task is past saying anything; of an ended one the history is left."""
        state = self._task.state
        if self._task.record.remote_id is None:
            return True
        if state is State.RUNNING:
            return False
        return state in _ENDING or (self._transcript.opened and self._stream is None)

    async def _open(self) -> None:
        self._transcript.begin()
        remote_id = self._task.id
        with self._ground.observer.around("stream", self._task.record):
            stream = await self._ground.api.stream(
                remote_id, timeout=REQUEST_TIMEOUT, silence=SILENCE_TIMEOUT
            )
        if self._task.record.remote_id != remote_id:
            stream.close()
            return
        self._transcript.connected(remote_id)
        if self._phase is Phase.CLOSED:
            stream.close()
        else:
            self._stream = stream

    async def _look(self) -> None:
        """Find out by GET whether the task has ended; else connect again, after a while."""
        self.hang_up()
        task, generation = self._task, self._task.generation
        asked: float | None = None
        remote_id = task.record.remote_id
        if task.state is State.UNKNOWN:
            return
        if task.state is not State.RUNNING:
            self._finish()
            return
        assert remote_id is not None
        try:
            info = await self._looker.get(remote_id, timeout=REQUEST_TIMEOUT, tries=TRIES)
        except REFUSALS as error:
            self._access.note_refusal(error)
            raise
        except TaskNotFound:
            if task.record.remote_id == remote_id:
                self._ground.readings.miss(task)
        except SigmicGuardError as error:
            asked = asked_pause(error)
        else:
            self._ground.readings.observe(task, info, generation)
            if self._transcript.is_cleared():
                return
        if task.record.remote_id != remote_id:
            return
        if task.state is not State.RUNNING:
            self._finish()
            return
        self._failures += 1
        delay = self._backoff.delay(self._failures, random(), retry_after=asked)
        with move_on_after(self._ground.readings.recheck_in(task, delay)):
            await task.until(lambda task: task.state is not State.RUNNING or task.unsupervised)

    def _finish(self) -> None:
        self._phase = max(self._phase, Phase.OVER)
        self._leave()
        self._transcript.finish()


def _drop(stream: EventStream | None, task: Entry, watcher: Watcher) -> None:
    """Do what is left to do for an iterator that nobody has any more."""
    if stream is not None:
        stream.close()
    watcher.join(task)
