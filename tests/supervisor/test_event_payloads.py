"""Events with strange payloads: delivered as they are, and never the end of the iteration."""

from __future__ import annotations

from typing import Any

import pytest

from sigmic_guard import ConnectionFailed, State
from sigmic_guard.sigmic import ServerSentEvent
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import Lab
from tests.supervisor.streams import read, text

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

DEEP = "[" * 100_000 + "]" * 100_000
#: Payloads that are no JSON, or none that is decoded.
UNDECODABLE = {
    "nested": DEEP,
    "nested in a field": f'{{"text": {DEEP}}}',
    "malformed": '{"text": ',
    "surrogate": '"\ud800"',
    "escaped surrogate": r'"\ud800"',
    "NaN": "NaN",
    "infinite": "1e999",
    "huge": "1" * 5_000,
    "empty": "",
}


class Told:
    """A stream that tells this, and then breaks."""

    def __init__(self, *events: ServerSentEvent) -> None:
        self._batches = [list(events)]

    async def receive(self) -> list[ServerSentEvent]:
        if self._batches:
            return self._batches.pop()
        raise ConnectionFailed("closed", sent=True)

    def close(self) -> None:
        pass


def telling(lab: Lab, monkeypatch: pytest.MonkeyPatch, *events: ServerSentEvent) -> None:
    async def stream(task_id: str, *, timeout: float, silence: float) -> Told:
        return Told(*events)

    monkeypatch.setattr(lab.fake, "stream", stream)


@pytest.mark.parametrize("kind", ["message", "content", "thought", "tool_call", "done", "error"])
@pytest.mark.parametrize("payload", UNDECODABLE.values(), ids=UNDECODABLE)
async def test_what_cannot_be_decoded(
    kind: str, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payload that cannot be decoded is delivered as text, and ends neither reading nor run()."""
    lab = Lab(duration=5, answer="42")
    telling(lab, monkeypatch, ServerSentEvent(kind, payload))
    async with lab.open() as supervisor:
        assert (await supervisor.run("m")).final_response == "42"
        events = await read(await supervisor.start("m"))
        assert (events[0].type, events[0].data) == (kind, payload)
        assert text(events) == "42"
        assert [event.replayed for event in events[1:-1]] == [True] * (len(events) - 2)
    assert lab.deletes() == 0


@pytest.mark.parametrize(
    "kind, payload, expected",
    [
        ("message", '{"type": 5, "data": {}}', ("message", {"type": 5, "data": {}})),
        ("message", '{"type": "x", "data": null}', ("x", None)),
        ("thought", "null", ("thought", None)),
        ("content", '{"text": 5}', ("content", {"text": 5})),
        ("content", '{"text": null}', ("content", {"text": None})),
        ("content", "[]", ("content", [])),
        ("done", "{}", ("done", {})),
        ("done", '{"finalResponse": {"a": 1}}', ("done", {"finalResponse": {"a": 1}})),
        ("history_done", '{"isStreaming": "no"}', ("history_done", {"isStreaming": "no"})),
        ("history_message", '{"id": [[]]}', ("history_message", {"id": [[]]})),
    ],
)
async def test_what_is_strange(
    kind: str, payload: str, expected: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event with fields of other kinds is delivered, and only GET tells the end."""
    lab = Lab(duration=5, answer="42")
    telling(lab, monkeypatch, ServerSentEvent(kind, payload))
    async with lab.open() as supervisor, supervisor.task("m") as task:
        events = await read(task)
        assert (events[0].type, events[0].data) == expected
        assert text(events) == "42"
        assert task.state is State.COMPLETED


async def test_done_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after `done`, another one included, is delivered, and changes no answer."""
    lab = Lab()
    told = [
        ServerSentEvent("content", '{"text": "42"}'),
        ServerSentEvent("done", '{"finalResponse": "42"}'),
        ServerSentEvent("thought", '{"text": "well"}'),
        ServerSentEvent("history_message", '{"id": "m-1"}'),
        ServerSentEvent("done", '{"finalResponse": "43"}'),
    ]
    telling(lab, monkeypatch, *told)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        lab.fake.complete(task.id, "42")
        assert [event.type for event in await read(task)] == [event.event for event in told]
        assert (await task.result()).final_response == "42"
