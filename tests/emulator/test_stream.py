"""What the event stream says, and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sigmic_guard.emulator import Script

if TYPE_CHECKING:
    from tests.emulator.conftest import Api, Start

HOLD = Script(duration=0.0, hold=True)

#: Seconds in which a stream is open, on a loaded machine too.
SOON = 2.0


async def test_a_stream_tells_history_then_the_turn(start: Start) -> None:
    """History comes first, then what a task says as it says it, and `done` is last."""
    async with start(script=Script(pending=SOON, duration=0.02)) as api:
        events = await api.events(await api.create("question"))
    kinds = [kind for kind, _ in events]
    assert kinds[:2] == ["history_message", "history_done"]
    assert events[0][1]["role"] == "user"
    assert events[0][1]["content"] == "question"
    assert {"id", "createdAt"} <= events[0][1].keys()
    assert events[1][1] == {"messageCount": 1, "isStreaming": True}
    assert [data["status"] for kind, data in events if kind == "status"] == [
        "connecting",
        "processing",
    ]
    assert [data for kind, data in events if kind == "content"] == [
        {"text": text, "isPartial": True} for text in ("Hello", " ", "world")
    ]
    assert events[-1] == ("done", {"finalResponse": "Hello world"})


async def test_every_kind_of_event(start: Start) -> None:
    """Thoughts, subagents and tool calls come in order before the answer."""
    script = Script(
        pending=SOON, thoughts=("hm",), subagents=("scout",), tool_calls=("grep",), chunks=("x",)
    )
    async with start(script=script) as api:
        kinds = [kind for kind, _ in await api.events(await api.create())]
    assert kinds[-9:] == [
        "thought",
        "subagent_start",
        "subagent_thought",
        "subagent_tool",
        "subagent_end",
        "tool_call",
        "tool_result",
        "content",
        "done",
    ]


async def test_a_late_reader_catches_up(start: Start) -> None:
    """Who connects in the middle of a turn gets what was said of it in one piece, then the rest."""
    async with start(script=HOLD) as api:
        task_id = await api.create()
        async with api.stream(task_id) as stream:
            await stream.until("history_done")
            assert await stream.until("status") == {"status": "processing"}
            assert await stream.until("content") == {"text": "Hello world", "isPartial": True}
            api.emulator.complete(task_id, "42")
            assert await stream.until("content") == {"text": "42", "isPartial": True}
            assert await stream.until("done") == {"finalResponse": "42"}


async def test_the_stream_of_an_ended_task_is_its_history(api: Api) -> None:
    """The stream of a task that does not run ends after `history_done`."""
    task_id = await api.create()
    api.emulator.complete(task_id)
    events = await api.events(task_id)
    assert [kind for kind, _ in events] == ["history_message"] * 2 + ["history_done"]
    assert [data.get("role") for _, data in events[:2]] == ["user", "assistant"]
    assert events[1][1]["content"] == "Hello world"
    assert events[2][1] == {"messageCount": 2, "isStreaming": False}


@pytest.mark.parametrize("how", ["delete", "push", "reset"])
async def test_a_cancelled_stream_just_ends(api: Api, how: str) -> None:
    """When the task is cancelled by whomever, or forgotten, its streams end without a word."""
    task_id = await api.create()
    async with api.stream(task_id) as stream:
        await stream.until("content")
        match how:
            case "delete":
                await api.cancel(task_id)
            case "push":
                api.emulator.cancel(task_id)
            case _:
                api.emulator.reset()
        assert [event async for event in stream] == []


async def test_a_failed_task_ends_with_its_error(api: Api) -> None:
    """The stream of a task that fails ends with an `error` event."""
    task_id = await api.create()
    async with api.stream(task_id) as stream:
        await stream.until("content")
        api.emulator.fail(task_id, "out of memory")
        assert [event async for event in stream] == [("error", {"message": "out of memory"})]


async def test_approval_in_the_stream(start: Start) -> None:
    """A stream stands still at the tool call that needs a decision, and goes on after it."""
    async with start(script=Script(duration=0.01, approval="deploy")) as api:
        task_id = await api.create()
        async with api.stream(task_id) as stream:
            call = await stream.until("tool_call")
            assert call["status"] == "awaiting_approval"
            path = f"/api/v1/tasks/{task_id}/tools/{call['callId']}/approve"
            await api.call("POST", path, json={"outcome": "cancel"})
            assert (await stream.until("tool_call"))["status"] == "cancelled"
            assert (await stream.until("tool_result"))["result"] == "not approved"
            assert await stream.until("done") == {"finalResponse": "Hello world"}


async def test_follow_up_in_the_stream(start: Start) -> None:
    """The stream opened after a follow-up replays both turns' messages and then tells the reply."""
    async with start(script=Script(duration=SOON)) as api:
        task_id = await api.create()
        await api.events(task_id)
        path = f"/api/v1/tasks/{task_id}/messages"
        await api.call("POST", path, json={"message": "and?"})
        events = await api.events(task_id)
        roles = [data["role"] for kind, data in events if kind == "history_message"]
        assert roles == ["user", "assistant", "user"]
        assert events[-1] == ("done", {"finalResponse": "Done."})


async def test_heartbeats(start: Start) -> None:
    """A quiet stream says `:heartbeat` now and again."""
    async with (
        start(script=HOLD, heartbeat=0.01) as api,
        api.stream(await api.create()) as stream,
    ):
        await stream.until("content")
        assert [await anext(stream) for _ in range(3)] == [(":", "heartbeat")] * 3


async def test_wrapped_payloads(start: Start) -> None:
    """On request every payload is wrapped as type and data."""
    async with start(wrap_events=True) as api:
        events = await api.events(await api.create())
    assert all(data["type"] == kind and "data" in data for kind, data in events)


async def test_done_is_never_early(start: Start) -> None:
    """Who has read `done` finds the task completed."""
    async with start(script=Script(duration=0.001)) as api:
        for _ in range(20):
            task_id = await api.create()
            async with api.stream(task_id) as stream:
                async for kind, _data in stream:
                    if kind == "done":
                        break
            assert (await api.get(task_id))["status"] == "completed"


async def test_leaving_ends_open_streams_at_once(start: Start) -> None:
    """Closing the emulator ends streams that are open, and nobody has to wait for it."""
    async with start(script=HOLD) as api:
        streams = [api.stream(await api.create()) for _ in range(20)]
        for stream in streams:
            await stream.__aenter__()
            await stream.until("content")
        await api.emulator.__aexit__(None, None, None)
        for stream in streams:
            assert [event async for event in stream] == []
            await stream.__aexit__()
