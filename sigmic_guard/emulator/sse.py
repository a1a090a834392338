"""What the event stream of a task says, in which order. Pure; `delivery` puts it on the wire."""

import math

import msgspec

from sigmic_guard.emulator import answers
from sigmic_guard.emulator.turn import ENDINGS, Step
from sigmic_guard.emulator.world import Task

HEARTBEAT = b":heartbeat\n\n"

_encode = msgspec.json.Encoder().encode


class Feed:
    """The events of one connection to a task's stream, from its history to the end of the turn.

    It tells that one turn to its end, also where the next has begun by then.
    """

    def __init__(self, task: Task, seen: Task, epoch: float = 0.0) -> None:
        """Say nothing yet; `seen` is the task as it is shown when the stream opens.

        `epoch` is where the clock of the task has its zero, in seconds since 1970.
        """
        self.task = task
        self._seen = seen
        self._epoch = epoch
        self._turn_number = seen.turn_number
        self._over = False
        self._position = 0

    def opening(self, now: float) -> list[Step]:
        """The history, and if the task runs, what it said in this turn so far. Call once, first."""
        seen = self._seen
        self._turn_number = seen.turn_number
        history = answers.history(seen, self._epoch)
        done = {"messageCount": len(history), "isStreaming": seen.live}
        events = [*(Step("history_message", message) for message in history)]
        events.append(Step("history_done", done))
        if seen.live:
            return events + _caught_up(self.fresh(now))
        self._over = True
        return events

    def fresh(self, now: float) -> list[Step]:
        """What was said since the last call."""
        if self._over:
            return []
        steps = self.task.steps(now, self._turn_number)[self._position :]
        self._position += len(steps)
        return list(steps)

    @property
    def over(self) -> bool:
        """Whether nothing more comes once `fresh` was read."""
        return self._over or self._overtaken or not self.task.live

    @property
    def next_at(self) -> float:
        """When the next event comes by itself, by the clock of the task; infinite if none will."""
        offsets = self.task.turn.offsets
        if self._overtaken or self._position >= len(offsets):
            return math.inf
        return self.task.turn_begun + offsets[self._position]

    @property
    def _overtaken(self) -> bool:
        """Whether a new turn has begun."""
        return self.task.turn_number != self._turn_number


def wire(step: Step, *, wrap: bool = False) -> bytes:
    """One event on the wire; `wrap` makes its payload `{"type": …, "data": …}`."""
    payload = {"type": step.event, "data": step.data} if wrap else step.data
    return event(step.event, _encode(payload))


def event(name: str, payload: bytes) -> bytes:
    """One event on the wire, whatever its payload."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), payload)


def _caught_up(steps: list[Step]) -> list[Step]:
    """Fewer steps that lead to the same: the last status only, and the text in one piece."""
    statuses = [step for step in steps if step.event == "status"]
    ends = [step for step in steps if step.event in ENDINGS]
    others = [step for step in steps if step.event not in {"status", "content", *ENDINGS}]
    text = "".join(str(step.data["text"]) for step in steps if step.event == "content")
    content = [Step("content", {"text": text, "isPartial": True})] if text else []
    return [*statuses[-1:], *others, *content, *ends]
