"""What a task does, as it does it: :class:`TaskEvents`, over a stream that may break at any time.

The iterator is a plain object, read in its consumer's own task: no scope, task group or generator
is left behind when the consumer leaves. It learns the end from ``done``, from ``history_done`` with
``isStreaming: false``, or from GET, which it asks whenever the stream ends or breaks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from anyio import CancelScope, current_time, move_on_after

from sigmic_guard.errors import (
    ConfigurationError,
    ProtocolError,
    SigmicGuardError,
    TaskNotFound,
)
from sigmic_guard.lifecycle import Backoff, State
from sigmic_guard.lifecycle.backoff import believed
from sigmic_guard.supervisor.ground.lag import End
from sigmic_guard.supervisor.ground.pacing import REFUSALS, asked_pause
from sigmic_guard.supervisor.replay import Replay
from sigmic_guard.supervisor.work.identity import Identity
from sigmic_guard.supervisor.work.looking import TRIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.sigmic.api import EventStream
    from sigmic_guard.sigmic.sse import ServerSentEvent
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground
    from sigmic_guard.supervisor.work.access import Access
    from sigmic_guard.supervisor.work.looking import Looker
    from sigmic_guard.supervisor.work.watcher import Watcher

#: Three heartbeats. Source: the API page, "stream".
SILENCE_TIMEOUT: Final = 45.0
#: Seconds that opening a stream, or a GET, may take.
REQUEST_TIMEOUT: Final = 10.0

_ENDING: Final = frozenset({State.CANCELLING, State.UNCONFIRMED, State.DETACHED, State.HANDED_OVER})
#: Bad JSON, numbers out of range, lone surrogates, and what is nested thousands deep.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)
_decode: Final = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One event of a task.

    :ivar type: ``history_message``, ``history_done``, ``status``, ``thought``, ``content``,
        ``tool_call``, ``tool_result``, ``subagent_*``, ``error``, ``done``, or one that is not
        documented. Source: the API page, "stream".
    :ivar data: its payload, decoded and unwrapped; the bare text if it is no JSON.
    :ivar replayed: a reconnect repeats what this iterator has delivered before.
    """

    type: str
    data: Any
    replayed: bool = False

    @property
    def text(self) -> str:
        """The text that the agent adds with this event: empty unless it is new ``content``."""
        if self.type != "content" or self.replayed or not isinstance(self.data, dict):
            return ""
        text = self.data.get("text")
        return text if isinstance(text, str) else ""


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
        self._connected_before = False
        self._generation = task.generation
        self._error_seen = False
        self._replay = Replay()
        #: What the last stream was opened of.
        self._remote_id = task.record.remote_id
        self._identity = Identity(task, ground.roster.origins)
        self._ready: deque[TaskEvent] = deque()
        self._counted = False
        #: Whether a consumer is inside of __anext__, and whether the stream is what it waits for.
        self._reading = False
        self._receiving = False
        self._batches = 0  # that streams brought
        self._batches_before = -1  # when somebody asked last whether any came
        self._must_look = False
        #: Whether what was read last was all that there is, the answer included.
        self._complete = False
        self._over = False
        #: By close(), from whatever task.
        self._closed = False
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
        while self._closed or not self._ready:
            if self._over:
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
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Drop the connection at once; no further event comes. Again does nothing.

        The iteration of a consumer that waits in another task ends.
        """
        self._ground.check_here()
        self._close()

    def close(self) -> None:
        """Do what :meth:`aclose` does, as a plain call: safe wherever it is made."""
        self._closed = self._over = True
        self._ground.inbox.leave(self._close)

    def _close(self) -> None:
        self._closed = self._over = True
        self._ready.clear()
        self._leave()
        if self._scope is not None:
            self._scope.cancel()

    def __del__(self) -> None:
        # A consumer who breaks out of `async for` leaves nothing else behind.
        if self._counted:
            self._ground.inbox.leave(_drop, self._stream, self._task, self._watcher)

    # --- one stream for as long as somebody reads ---------------------------------------------

    def _begin_to_read(self) -> None:
        if self._reading:
            raise ConfigurationError(
                "another task waits for this iterator's next event: an iterator has one consumer, "
                "and task.events() makes another one"
            )
        self._reading = True
        audience = self._task.gather_audience()
        audience.listening += 1
        if not self._counted:
            self._counted = True
            audience.readers.add(self)
        self._watcher.listen(self._task)

    def _stop_reading(self) -> None:
        """Whoever has an event may be gone for long: only one that waits learns the end by it."""
        self._reading = False
        self._scope = None
        self._task.gather_audience().listening -= 1
        if self._closed:
            self._ready.clear()  # what came in while it was being closed
        if self._counted:
            self._watcher.pause(self._task)
        else:
            self._watcher.join(self._task)

    def _leave(self) -> None:
        self.hang_up()
        if self._counted:
            self._counted = False
            self._task.gather_audience().readers.discard(self)
            if not self._reading:
                self._watcher.join(self._task)

    def hang_up(self) -> None:
        """Drop the connection; who reads finds out how the task is."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def start_over(self) -> None:
        """Drop all that was read: it was another task's."""
        self.hang_up()
        self._ready.clear()

    def hang_up_idle(self) -> None:
        """Drop the connection if a consumer waits for it, and nothing came since the last call."""
        if self._receiving and self._batches == self._batches_before:
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
        if self._task.record.remote_id != self._remote_id:
            return
        for event in events:
            self._take(event)
        if not events:
            self._must_look = True

    async def _receive(self, stream: EventStream) -> Sequence[ServerSentEvent]:
        self._receiving = True
        try:
            return await stream.receive()
        finally:
            self._receiving = False
            self._batches += 1

    def _nothing_to_come(self) -> bool:
        """Tell whether the task is past saying anything; of an ended one the history is left."""
        state = self._task.state
        if self._task.record.remote_id is None:
            return True
        if state is State.RUNNING:
            return False
        return state in _ENDING or (self._connected_before and self._stream is None)

    async def _open(self) -> None:
        generation, self._generation = self._generation, self._task.generation
        self._complete = False
        self._identity.connect()
        remote_id = self._task.id
        with self._ground.observer.around("stream", self._task.record):
            stream = await self._ground.api.stream(
                remote_id, timeout=REQUEST_TIMEOUT, silence=SILENCE_TIMEOUT
            )
        if self._task.record.remote_id != remote_id:
            stream.close()
            return
        if remote_id != self._remote_id:
            self._remote_id, self._replay = remote_id, Replay()
            self._connected_before = self._error_seen = False
        if self._closed:
            stream.close()
        else:
            self._stream = stream
        if self._connected_before:
            self._replay.reconnected(new_turn=generation != self._generation)
        self._connected_before = True

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
                self._ground.roster.miss(task)
        except SigmicGuardError as error:
            asked = asked_pause(error)
        else:
            self._ground.roster.observe(task, info, generation)
            if self._identity.in_doubt and task.prompt is None:
                self._connected_before = False  # nothing of its stream was given
                return
        if task.record.remote_id != remote_id:
            return
        if task.state is not State.RUNNING:
            self._finish()
            return
        self._failures += 1
        delay = self._backoff.delay(self._failures, random(), retry_after=asked)
        with move_on_after(self._ground.roster.recheck_in(task, delay)):
            await task.until(lambda task: task.state is not State.RUNNING or task.unsupervised)

    def _finish(self) -> None:
        self._over = True
        self._leave()
        task = self._task
        if (
            self._complete
            or task.state is not State.COMPLETED
            or self._generation != task.generation
        ):
            return
        # It ended while no stream was open: GET has the text that none of them brought.
        if rest := self._replay.rest(task.answer):
            self._ready.append(TaskEvent("content", {"text": rest, "isPartial": False}))

    # --- what an event means --------------------------------------------------------------------

    def _take(self, event: ServerSentEvent) -> None:
        kind, data = event.event, _payload(event.data)
        match data:
            case {"type": str(inner), "data": wrapped} if kind in {inner, "message"}:
                kind, data = inner, wrapped
            case {"type": str(inner)} if kind == "message":
                kind = inner  # the stream has no `event:` lines
        for said in self._identity.admit(kind, data, event.data):
            self._believe(*said)
        if self._identity.in_doubt:
            self._must_look = True

    def _believe(self, kind: str, data: Any, raw: str) -> None:
        if kind == "done" and not self._done(data):
            return
        for part, replayed in self._replay.sort(kind, data, raw):
            self._ready.append(TaskEvent(kind, part, replayed))
            if not replayed and kind not in {"history_message", "history_done"}:
                self._failures = 0
        if kind == "error":
            self._error_seen = True
        elif kind == "history_done" and isinstance(data, dict) and data.get("isStreaming") is False:
            # It does not run, or not yet: only GET knows.
            self._must_look = True

    def _done(self, data: Any) -> bool:
        """Take ``done`` for the end, if nothing speaks against it; else GET tells.

        ``False`` if it may be the end of the turn before.
        """
        answer = data.get("finalResponse") if isinstance(data, dict) else None
        task = self._task
        plain = (
            isinstance(answer, str) and not self._error_seen and self._generation == task.generation
        )
        self._must_look = True
        if plain and task.state is State.RUNNING and not task.sending:
            self._complete = self._ground.roster.complete(task, End(final_response=answer))
            return self._complete
        self._complete = isinstance(answer, str)
        return True


def _drop(stream: EventStream | None, task: Entry, watcher: Watcher) -> None:
    """Do what is left to do for an iterator that nobody has any more."""
    if stream is not None:
        stream.close()
    watcher.join(task)


def _payload(data: str) -> Any:
    try:
        return _decode(data)
    except UNDECODABLE:
        return data
