"""One turn of a task on a time line: what a `Script` comes to.

A turn is a row of steps at offsets, in seconds, from its beginning. It is built once per script and
shared by all tasks that follow it, so a task that runs costs no timer and no coroutine: what it has
said, and what it has become, follows from the turn and the clock. What cannot be foreseen (an
approval, a push by hand) is not in the row; when it happens the future of the turn is replaced, its
past never.
"""

import bisect
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from sigmic_guard.emulator.script import Script

Status = Literal["pending", "running", "awaiting_approval", "completed", "failed", "cancelled"]
Data = Mapping[str, object]

ENDINGS = frozenset({"done", "error"})
"""The events that a turn can end with."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """An event of the stream, and the status that the task has from then on, if it is another."""

    event: str
    data: Data
    becomes: Status | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Steps and their offsets, ascending. Immutable, therefore shared."""

    steps: tuple[Step, ...]
    offsets: tuple[float, ...]

    def passed(self, begun: float, now: float) -> int:
        """How many steps lie behind at `now`.

        Compares `begun + offset`, which is how a step's due time is computed everywhere: a step
        whose due time was taken for `now` has passed, however the sum was rounded.
        """
        return bisect.bisect_right(self.offsets, now, key=begun.__add__)

    def next_change(self, index: int) -> int | None:
        """The first step at or after `index` that changes the status."""
        for number in range(index, len(self.steps)):
            if self.steps[number].becomes is not None:
                return number
        return None

    def rewritten(self, passed: int, future: Self) -> Self:
        """The first `passed` steps of this turn, then those of `future`."""
        return dataclasses.replace(
            self,
            steps=self.steps[:passed] + future.steps,
            offsets=self.offsets[:passed] + future.offsets,
        )


@functools.lru_cache(maxsize=1024)
def first_turn(script: Script) -> Turn:
    """What a new task does; with an approval, the part of the duration that comes before it."""
    calls = [f"call-{number}" for number in range(1, len(script.tool_calls) + 2)]
    before = [
        *((Step("thought", {"text": text}),) for text in script.thoughts),
        *(_subagent(name) for name in script.subagents),
        *(_tool(call, name) for call, name in zip(calls, script.tool_calls, strict=False)),
    ]
    opening = [
        (0.0, Step("status", {"status": "connecting"})),
        (script.pending, Step("status", {"status": "processing"}, becomes="running")),
    ]
    if script.approval is None:
        said = [*before, *_contents(script.chunks)]
        return _turn(
            opening,
            _spread(said, script.pending, script.duration),
            _ending(script, _answer(script), script.pending + script.duration, fail=script.fail),
        )
    before_asking = script.duration * script.approval_at
    asked = _call(calls[-1], script.approval, "awaiting_approval")
    return _turn(
        opening,
        _spread(before, script.pending, before_asking),
        [(script.pending + before_asking, Step("tool_call", asked, becomes="awaiting_approval"))],
    )


def decided(script: Script, asked: Data, *, approved: bool, offset: float) -> Turn:
    """The rest of a first turn after someone decided on the tool call that it had `asked` for."""
    outcome = "executing" if approved else "cancelled"
    call = {**asked, "status": outcome}
    result = _result(call, "ok" if approved else "not approved")
    rest = script.duration * (1 - script.approval_at)
    return _turn(
        [
            (offset, Step("tool_call", call, becomes="running")),
            (offset, Step("tool_result", result)),
        ],
        _spread(_contents(script.chunks), offset, rest),
        _ending(script, _answer(script), offset + rest, fail=script.fail),
    )


@functools.lru_cache(maxsize=1024)
def follow_up_turn(script: Script) -> Turn:
    """What a task does upon a follow-up message."""
    return _turn(
        [(0.0, Step("status", {"status": "processing"}, becomes="running"))],
        _spread(_contents(script.follow_up), 0.0, script.duration),
        _ending(script, "".join(script.follow_up), script.duration, fail=None),
    )


def asking(offset: float, call_id: str, tool: str) -> Turn:
    """What a turn comes to that has to ask for a tool now."""
    call = _call(call_id, tool, "awaiting_approval")
    return _turn([(offset, Step("tool_call", call, becomes="awaiting_approval"))])


def completing(offset: float, said: str, text: str | None) -> Turn:
    """The end of a turn completed by hand; `text`, if given, is said last and is the response."""
    last = [] if text is None else [(offset, Step("content", {"text": text, "isPartial": True}))]
    response = said if text is None else text
    return _turn(last, [(offset, Step("done", {"finalResponse": response}, becomes="completed"))])


def failing(offset: float, error: str) -> Turn:
    """The end of a turn that fails."""
    return _turn([(offset, Step("error", {"message": error}, becomes="failed"))])


def said(steps: Iterable[Step]) -> str:
    """What these steps say: the final response if there is one, else the text so far."""
    parts: list[str] = []
    for step in steps:
        if step.event == "content":
            parts.append(str(step.data["text"]))
        elif step.event == "done":
            return str(step.data["finalResponse"])
    return "".join(parts)


_Timed = tuple[float, Step]


def _turn(*parts: Iterable[_Timed]) -> Turn:
    timed = [entry for part in parts for entry in part]
    return Turn(tuple(step for _, step in timed), tuple(offset for offset, _ in timed))


def _spread(groups: Sequence[tuple[Step, ...]], begin: float, duration: float) -> list[_Timed]:
    gap = duration / (len(groups) + 1)
    return [(begin + gap * n, step) for n, group in enumerate(groups, 1) for step in group]


def _answer(script: Script) -> str:
    return "".join(script.chunks) if script.answer is None else script.answer


def _ending(script: Script, answer: str, at: float, *, fail: str | None) -> list[_Timed]:
    if script.hold:
        return []
    if fail is not None:
        return [(at, Step("error", {"message": fail}, becomes="failed"))]
    return [(at, Step("done", {"finalResponse": answer}, becomes="completed"))]


def _contents(chunks: Iterable[str]) -> list[tuple[Step, ...]]:
    return [(Step("content", {"text": text, "isPartial": True}),) for text in chunks]


def _call(call_id: str, tool: str, status: str) -> Data:
    return {"callId": call_id, "toolName": tool, "status": status, "args": {}}


def _result(call: Data, result: str) -> Data:
    return {"callId": call["callId"], "toolName": call["toolName"], "result": result}


def _tool(call_id: str, tool: str) -> tuple[Step, ...]:
    call = _call(call_id, tool, "executing")
    return (Step("tool_call", call), Step("tool_result", _result(call, "ok")))


def _subagent(name: str) -> tuple[Step, ...]:
    return (
        Step("subagent_start", {"name": name}),
        Step("subagent_thought", {"name": name, "text": "thinking"}),
        Step("subagent_tool", {"name": name, "toolName": "search"}),
        Step("subagent_end", {"name": name}),
    )
