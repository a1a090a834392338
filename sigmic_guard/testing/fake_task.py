"""What a :class:`~sigmic_guard.testing.FakeSigmic` believes of one task: the truth about it.

A task is a time line: steps that lie behind and steps to come, each at its instant of the anyio
clock. Nothing runs for it; whoever looks brings it up to date first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from sigmic_guard.sigmic.models import TERMINAL_STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.sigmic.models import CreateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How a turn of a task goes; see :meth:`~sigmic_guard.testing.FakeSigmic.script`."""

    duration: float | None
    answer: str
    chunks: tuple[str, ...] = ()
    fail: str | None = None
    approval: str | None = None


class Step(NamedTuple):
    """One event of a turn, and the status that the task has from then on, if it is another."""

    at: float
    event: str
    data: Mapping[str, Any]
    status: str | None = None


def opening(script: Script, now: float) -> list[Step]:
    """Return the steps of a turn, up to the question if it has to ask first."""
    begin = Step(now, "status", {"status": "processing"})
    if script.approval is None:
        return [begin, *working(script, now)]
    call = {"callId": "call-1", "toolName": script.approval, "args": {}}
    asking = {**call, "status": "awaiting_approval"}
    return [begin, Step(now, "tool_call", asking, "awaiting_approval")]


def working(script: Script, now: float) -> list[Step]:
    """Return the steps of the work itself: what it says, evenly spread, and how it ends."""
    # Of an end that is pushed by hand nobody knows the answer yet.
    chunks = script.chunks or (() if script.duration is None else (script.answer,))
    gap = 0.0 if script.duration is None else script.duration / (len(chunks) + 1)
    said = [
        Step(now + gap * number, "content", {"text": text, "isPartial": True})
        for number, text in enumerate(chunks, 1)
    ]
    if script.duration is None:
        return said
    end = now + script.duration
    if script.fail is not None:
        return [*said, Step(end, "error", {"message": script.fail}, "failed")]
    return [*said, Step(end, "done", {"finalResponse": script.answer}, "completed")]


class Signal:
    """Wakes whoever waits for the next change; nobody waiting costs nothing."""

    def __init__(self) -> None:
        self._events: set[anyio.Event] = set()

    async def wait(self, seconds: float) -> None:
        """Wait until :meth:`fire`, at most ``seconds``."""
        event = anyio.Event()
        self._events.add(event)
        try:
            with anyio.move_on_after(seconds):
                await event.wait()
        finally:
            self._events.discard(event)

    def fire(self) -> None:
        """Wake them all."""
        while self._events:
            self._events.pop().set()


class Turn:
    """What the agent does upon one message. An open stream follows one turn to its end."""

    def __init__(self, script: Script, steps: list[Step]) -> None:
        self.script = script
        self.behind: list[Step] = []
        self.to_come = deque(steps)
        self.over = False

    def said(self) -> str:
        """Return the text so far."""
        return "".join(step.data["text"] for step in self.behind if step.event == "content")

    def next_at(self) -> float:
        """Return when the next step comes; infinite if only a push can bring one."""
        return self.to_come[0].at if self.to_come else math.inf


class FakeTask:
    """A remote task as it really is, whatever the answers told about it. To be read, not written.

    :ivar id: its id.
    :ivar request: what it was created with; ``message`` and ``env`` are short for its fields.
    :ivar messages: the saved messages, as pairs of role and content.
    :ivar created_at: when, on the clock of ``anyio.current_time()``.
    :ivar current: the status when last looked at; ``status`` looks.
    :ivar approvals: the decisions that were taken on its tool calls, in order.
    """

    def __init__(
        self,
        task_id: str,
        request: CreateRequest,
        now: float,
        turn: Turn,
        settle: Callable[[], float],
    ) -> None:
        self.id = task_id
        self.request = request
        self.messages = [("user", request.message)]
        self.created_at = now
        self.approvals: list[str] = []
        self.turn = turn
        self.changed = Signal()
        self.activity_at = now
        self.asked: Mapping[str, Any] | None = None
        self._settle = settle
        self.current = "running"
        self._completed_at: float | None = None
        self._error: str | None = None
        self._answer: str | None = None

    def __repr__(self) -> str:
        return f"<FakeTask {self.id} {self.status}: {self.message!r}>"

    @property
    def message(self) -> str:
        """The message that created it."""
        return self.request.message

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that it was created with."""
        return self.request.env

    @property
    def status(self) -> str:
        """The remote status at this instant; outside of an event loop, when last looked at."""
        self._settle()
        return self.current

    @property
    def live(self) -> bool:
        """Whether it still costs money."""
        return self.status not in TERMINAL_STATUSES

    @property
    def completed_at(self) -> float | None:
        """When it ended, on the clock of ``anyio.current_time()``; ``None`` while it has not."""
        self._settle()
        return self._completed_at

    @property
    def error(self) -> str | None:
        """Why it failed, if it did."""
        self._settle()
        return self._error

    @property
    def content(self) -> str:
        """What it has said in its current turn; the final response, once there is one."""
        self._settle()
        return self.turn.said() if self._answer is None else self._answer

    def begin(self, turn: Turn, now: float) -> None:
        """Start another turn."""
        self.turn = turn
        self._completed_at = self._error = self._answer = None
        self.become("running", now)

    def take(self, step: Step) -> bool:
        """Let a step happen; return whether the status changed with it."""
        self.turn.behind.append(step)
        self.asked = step.data if step.status == "awaiting_approval" else None
        if step.status == "completed":
            self._answer = step.data["finalResponse"]
            self.messages.append(("assistant", self._answer or ""))
        elif step.status == "failed":
            self._error = step.data["message"]
        if step.status is None:
            self.changed.fire()
            return False
        self.become(step.status, step.at)
        return True

    def become(self, status: str, at: float) -> None:
        """Change the status."""
        self.current = status
        self.activity_at = at
        if status in TERMINAL_STATUSES:
            self._completed_at = at
            self.asked = None
            self.turn.to_come.clear()
            self.turn.over = True
        self.changed.fire()
