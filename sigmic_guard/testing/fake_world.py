"""The truth behind a :class:`~sigmic_guard.testing.FakeSigmic`: its tasks, brought up to date."""

from __future__ import annotations

import heapq
import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from sigmic_guard.sigmic.models import TERMINAL_STATUSES
from sigmic_guard.testing.fake_task import FakeTask, Script, Signal, Step, Turn, opening, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.sigmic.models import CreateRequest


class FakeWorld:
    """All tasks, their order by activity, and the one heap of what comes next."""

    def __init__(self, default: Script) -> None:
        self.default = default
        self.scripts: dict[str, Script] = {}
        self.tasks: dict[str, FakeTask] = {}
        #: Oldest activity first: a task that becomes active is taken out and put back at the end.
        self.by_activity: dict[str, FakeTask] = {}
        self.live: dict[str, FakeTask] = {}
        self.changed = Signal()
        #: Called with a task whose status changed, or that was active.
        self.on_move: Callable[[FakeTask], None] | None = None
        self.now = 0.0
        #: Where that clock has its zero. Taken once, at the first look at it, lest the API's times
        #: wander against the world's.
        self.epoch: datetime | None = None
        self._due: list[tuple[float, int, FakeTask, Turn]] = []
        self._serial = itertools.count(1)

    def settle(self) -> float:
        """Let happen what was due by now, in its order, and return now.

        Outside of an event loop there is no clock: everything is as it was when last looked at.
        """
        try:
            self.now = anyio.current_time()
        except anyio.NoEventLoopError:
            return self.now
        if self.epoch is None:
            self.epoch = datetime.now(UTC) - timedelta(seconds=self.now)
        while self._due and self._due[0][0] <= self.now:
            at, _, task, turn = heapq.heappop(self._due)
            # An entry is stale if the turn is over, or was planned anew with a later step.
            if task.turn is turn and turn.next_at() <= at:
                if task.take(turn.to_come.popleft()):
                    self._moved(task)
                self._plan(task)
        return self.now

    def next_due(self) -> float:
        """Return when something may happen by itself; infinite if nothing will."""
        return self._due[0][0] if self._due else math.inf

    def create(self, request: CreateRequest) -> FakeTask:
        """Make a task; it runs at once."""
        now = self.settle()
        task_id = f"00000000-0000-4000-8000-{len(self.tasks) + 1:012x}"
        script = self.script_of(request.message)
        turn = Turn(script, opening(script, now))
        task = self.tasks[task_id] = FakeTask(task_id, request, now, turn, self.settle)
        self._moved(task)
        self._plan(task)
        self.settle()
        return task

    def script_of(self, message: str) -> Script:
        """Return how the turn upon this message goes."""
        return self.scripts.get(message, self.default)

    def complete(self, task: FakeTask, text: str | None) -> bool:
        """Complete a task by hand; ``False`` if it had ended already, which changes nothing."""
        script = task.turn.script
        answer = script.answer if text is None else text
        now = self.settle()
        steps = [Step(now, "done", {"finalResponse": answer}, "completed")]
        if text is not None or not script.chunks:
            steps.insert(0, Step(now, "content", {"text": answer, "isPartial": True}))
        return self._end(task, steps)

    def fail(self, task: FakeTask, error: str) -> bool:
        """Fail a task by hand; ``False`` if it had ended already, which changes nothing."""
        return self._end(task, [Step(self.settle(), "error", {"message": error}, "failed")])

    def cancel(self, task: FakeTask) -> bool:
        """Cancel a task; ``False`` if it had ended already, which changes nothing."""
        now = self.settle()
        if not task.live:
            return False
        # What the stream says then is unspecified: it just ends.
        task.become("cancelled", now)
        self._moved(task)
        return True

    def _end(self, task: FakeTask, steps: list[Step]) -> bool:
        if not task.live:
            return False
        for step in steps:
            task.take(step)
        self._moved(task)
        return True

    def say(self, task: FakeTask, message: str) -> None:
        """Save a message; a task that had ended begins another turn with it."""
        now = self.settle()
        task.messages.append(("user", message))
        task.activity_at = now
        if not task.live:
            script = self.script_of(message)
            task.begin(Turn(script, opening(script, now)), now)
            self._plan(task)
        self._moved(task)
        self.settle()

    def ask(self, task: FakeTask, tool: str) -> None:
        """Let a task stand still until somebody decides on a tool call."""
        now = self.settle()
        call = {"callId": f"call-{len(task.approvals) + 1}", "toolName": tool, "args": {}}
        task.turn.to_come.clear()
        task.take(
            Step(now, "tool_call", {**call, "status": "awaiting_approval"}, "awaiting_approval")
        )
        self._moved(task)

    def decide(self, task: FakeTask, outcome: str) -> None:
        """Let a task that awaits approval go on."""
        now = self.settle()
        call = dict(task.asked or {})
        task.approvals.append(outcome)
        denied = outcome == "cancel"
        call["status"] = "cancelled" if denied else "executing"
        result = {**call, "result": "not approved" if denied else "ok"}
        task.turn.to_come.extend(
            [
                Step(now, "tool_call", call, "running"),
                Step(now, "tool_result", result),
                *working(task.turn.script, now),
            ]
        )
        self._plan(task)
        self.settle()

    def _plan(self, task: FakeTask) -> None:
        if task.turn.to_come:
            entry = task.turn.to_come[0].at, next(self._serial), task, task.turn
            heapq.heappush(self._due, entry)

    def _moved(self, task: FakeTask) -> None:
        """Note that a task's status changed, or that it was active."""
        self.by_activity.pop(task.id, None)
        self.by_activity[task.id] = task
        if task.current in TERMINAL_STATUSES:
            self.live.pop(task.id, None)
        else:
            self.live[task.id] = task
        if self.on_move is not None:
            self.on_move(task)
        self.changed.fire()
