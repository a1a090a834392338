"""What the streams of one task say: :class:`TaskEvent`, and :class:`Transcript`, which makes them.

Nothing is told before it is known to be about the task (:class:`Identity`), and what a reconnect
says again is marked as replayed (:class:`Replay`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from sigmic_guard.lifecycle import State
from sigmic_guard.supervisor.ground.lag import End
from sigmic_guard.supervisor.replay import Replay
from sigmic_guard.supervisor.work.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sigmic_guard.sigmic.sse import ServerSentEvent
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground

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


class Told(NamedTuple):
    """What came of some events."""

    #: Whether any was new.
    anything_new: bool
    #: Whether only GET knows by now how the task is.
    ask_get: bool


class Transcript:
    """Makes events of what the streams of one task say, one stream after the other.

    :ivar ready: what is to be delivered.
    :ivar remote_id: of which task the last stream was opened.
    :ivar opened: whether one was that may have said something.
    """

    def __init__(self, task: Entry, ground: Ground) -> None:
        self._task = task
        self._readings = ground.readings
        self.ready: deque[TaskEvent] = deque()
        self.remote_id = task.record.remote_id
        self.opened = False
        #: The task's, as the last stream was asked for, and the one before.
        self._generation = self._generation_before = task.generation
        self._identity = Identity(task, ground.roster.origins)
        self._replay = Replay()
        self._error_seen = False
        #: Whether what was read last was all that there is, the answer included.
        self._complete = False
        self._anything_new = self._ask_get = False

    def begin(self) -> None:
        """Expect another stream, which is about to be opened."""
        self._generation_before, self._generation = self._generation, self._task.generation
        self._complete = False
        self._identity.connect()

    def connected(self, remote_id: str) -> None:
        """Note that it was opened: it begins with the history."""
        if remote_id != self.remote_id:
            self.remote_id, self._replay = remote_id, Replay()
            self.opened = self._error_seen = False
        if self.opened:
            self._replay.reconnected(new_turn=self._generation_before != self._generation)
        self.opened = True

    def is_cleared(self) -> bool:
        """Tell whether GET has shown the stream to be the task's own: it is to be read anew."""
        if not self._identity.in_doubt or self._task.prompt is not None:
            return False
        self.opened = False  # nothing of its stream was given
        return True

    def read(self, events: Iterable[ServerSentEvent]) -> Told:
        """Make ready what the stream says next."""
        self._anything_new = self._ask_get = False
        for event in events:
            self._take(event)
        return Told(self._anything_new, self._ask_get)

    def finish(self) -> None:
        """Make ready what is left of the answer, now that no stream comes any more."""
        task = self._task
        if (
            self._complete
            or task.state is not State.COMPLETED
            or self._generation != task.generation
        ):
            return
        # It ended while no stream was open: GET has the text that none of them brought.
        if rest := self._replay.rest(task.answer):
            self.ready.append(TaskEvent("content", {"text": rest, "isPartial": False}))

    def _take(self, event: ServerSentEvent) -> None:
        kind, data = event.event, _payload(event.data)
        if type(data) is dict and isinstance(inner := data.get("type"), str):
            if "data" in data and kind in (inner, "message"):
                kind, data = inner, data["data"]
            elif kind == "message":
                kind = inner  # the stream has no `event:` lines
        for said in self._identity.admit(kind, data, event.data):
            self._believe(*said)
        if self._identity.in_doubt:
            self._ask_get = True

    def _believe(self, kind: str, data: Any, raw: str) -> None:
        if kind == "done" and not self._done(data):
            return
        for part, replayed in self._replay.sort(kind, data, raw):
            self.ready.append(TaskEvent(kind, part, replayed))
            if not replayed and kind not in {"history_message", "history_done"}:
                self._anything_new = True
        if kind == "error":
            self._error_seen = True
        elif kind == "history_done" and isinstance(data, dict) and data.get("isStreaming") is False:
            # It does not run, or not yet: only GET knows.
            self._ask_get = True

    def _done(self, data: Any) -> bool:
        """Take ``done`` for the end, if nothing speaks against it; else GET tells.

        ``False`` if it may be the end of the turn before.
        """
        answer = data.get("finalResponse") if isinstance(data, dict) else None
        task = self._task
        plain = (
            isinstance(answer, str) and not self._error_seen and self._generation == task.generation
        )
        self._ask_get = True
        if plain and task.state is State.RUNNING and not task.sending:
            self._complete = self._readings.complete(task, End(final_response=answer))
            return self._complete
        self._complete = isinstance(answer, str)
        return True


def _payload(data: str) -> Any:
    try:
        return _decode(data)
    except UNDECODABLE:
        return data
