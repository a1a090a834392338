"""What the event stream of a task says, in which order. Pure; `delivery` puts it on the wire."""

import math

import msgspec

from sigmic_guard.emulator import answers
from sigmic_guard.emulator.turn import Data, Step
from sigmic_guard.emulator.world import Task

HEARTBEAT = b":heartbeat\n\n"

_encode = msgspec.json.Encoder().encode


class Feed:
    """The events of one connection to a task's stream, from its history to the end of the turn."""

    def __init__(self, task: Task, *, wrap: bool = False) -> None:
        """Say nothing yet; `wrap` makes every payload `{"type": …, "data": …}`."""
        self.task = task
        self._wrap = wrap
        self._turn_number = task.turn_number
        self._position = 0

    def opening(self, now: float) -> list[bytes]:
        """The history, and if the task runs, what it said in this turn so far. Call once, first."""
        task = self.task
        events = [self._event("history_message", message) for message in answers.history(task)]
        done = {"messageCount": len(events), "isStreaming": task.live}
        events.append(self._event("history_done", done))
        if task.live:
            steps = task.steps(now)
            self._position = len(steps)
            events += [self._event(step.event, step.data) for step in _caught_up(steps)]
        else:
            self._position = len(task.turn.steps)
        return events

    def fresh(self, now: float) -> list[bytes]:
        """What was said since the last call."""
        if self._overtaken:
            return []
        passed = self.task.passed(now)
        steps = self.task.turn.steps[self._position : passed]
        self._position = passed
        return [self._event(step.event, step.data) for step in steps]

    @property
    def over(self) -> bool:
        """Whether nothing more comes once `fresh` was read."""
        return self._overtaken or not self.task.live

    @property
    def next_at(self) -> float:
        """When the next event comes by itself, in seconds since 1970; infinite if none will."""
        offsets = self.task.turn.offsets
        if self._position >= len(offsets):
            return math.inf
        return self.task.turn_begun + offsets[self._position]

    @property
    def _overtaken(self) -> bool:
        """Whether a new turn began before this connection had told all of its own."""
        return self.task.turn_number != self._turn_number

    def _event(self, name: str, data: Data) -> bytes:
        payload = {"type": name, "data": data} if self._wrap else data
        return event(name, _encode(payload))


def event(name: str, payload: bytes) -> bytes:
    """One event on the wire."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), payload)


def _caught_up(steps: tuple[Step, ...]) -> list[Step]:
    """Fewer steps that lead to the same: the last status only, and the text in one piece."""
    statuses = [step for step in steps if step.event == "status"]
    others = [step for step in steps if step.event not in {"status", "content"}]
    text = "".join(str(step.data["text"]) for step in steps if step.event == "content")
    content = [Step("content", {"text": text, "isPartial": True})] if text else []
    return [*statuses[-1:], *others, *content]
