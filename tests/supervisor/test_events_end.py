"""How whoever reads a task's events, or waits for its result, learns its end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from anyio import Event, create_task_group, current_time, sleep

from sigmic_guard import AuthenticationError, ConnectionFailed, ProtocolError, State
from sigmic_guard.sigmic import ServerSentEvent
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAUTHORISED, UNAVAILABLE, Lab
from tests.supervisor.streams import SNAPPED, WHOLE, read, scripted, text

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
also_asyncio = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def test_the_end_by_get() -> None:
    """A stream that just ends is explained by GET: here the task was cancelled."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.fake.always("list", HANG)
        async with create_task_group() as group:

            async def cancel() -> None:
                await sleep(10)
                lab.fake.cancel(task.id)

            group.start_soon(cancel)
            await read(task)
        assert (task.outcome, task.reason) == ("cancelled", "remote")
    assert lab.deletes() == 0


@also_asyncio
async def test_the_end_by_the_history() -> None:
    """A task that had completed before the stream opened is learnt from history_done and GET."""
    lab = Lab()
    async with lab.open() as supervisor, supervisor.task("m") as task:
        lab.fake.complete(task.id, "42")
        events = await read(task)
        assert [event.type for event in events] == [
            "history_message",
            "history_message",
            "history_done",
            "content",
        ]
        assert text(events) == "42"  # who prints live text has it all the same
        assert task.state is State.COMPLETED
        assert (await task.result()).final_response == "42"


@also_asyncio
async def test_a_failure() -> None:
    """A task that fails ends its stream, after the error event."""
    lab = Lab()
    lab.fake.script("m", duration=1.0, fail="no luck")
    async with lab.open() as supervisor, supervisor.task("m") as task:
        events = await read(task)
        assert events[-1].type == "error"
        assert (task.outcome, task._entry.failure) == ("failed", "no luck")


async def test_a_finished_task() -> None:
    """Iterating over a finished task yields its history, and ends."""
    lab = scripted()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await task.wait()
        events = await read(task)
        assert "history_message" in {event.type for event in events}
        assert await read(task) == events


@also_asyncio
async def test_two_iterators() -> None:
    """Two iterators of one task yield the same, independently of each other."""
    lab = scripted(0.08)
    texts = []
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task, create_task_group() as group:

            async def consume() -> None:
                texts.append(text(await read(task)))

            group.start_soon(consume)
            group.start_soon(consume)
        assert texts == [WHOLE, WHOLE]
    assert lab.fake.count("stream") == 2
    assert not lab.fake.open_streams


@pytest.mark.parametrize("fault", [UNAVAILABLE, HANG, SNAPPED], ids=["503", "hang", "reset"])
@pytest.mark.parametrize("how", ["run", "task", "start"])
async def test_the_result_without_a_stream(how: str, fault: Exception) -> None:
    """result() finds out by GET or the list where the stream fails for ever."""
    lab = Lab(duration=100, answer="42")
    lab.fake.always("stream", fault)
    async with lab.open() as supervisor:
        match how:
            case "run":
                result = await supervisor.run("m")
            case "task":
                async with supervisor.task("m") as task:
                    result = await task.result()
            case _:
                result = await (await supervisor.start("m")).result()
        assert result.final_response == "42"
        assert current_time() < 130


async def test_the_result_of_a_task_that_says_too_much() -> None:
    """result() does not fail because an event is too large: it waits for the task's end."""
    lab = Lab(duration=100, answer="42")
    lab.fake.always("receive", ProtocolError("one event is larger than 8 MiB"))
    async with lab.open() as supervisor:
        assert (await supervisor.run("m")).final_response == "42"
    assert lab.deletes() == 0


async def test_the_result_where_the_credential_fails() -> None:
    """run() raises where the stream says 401, rather than wait for what nobody will be told."""
    lab = Lab()
    lab.fake.always("stream", UNAUTHORISED)
    async with lab.open() as supervisor:
        with pytest.raises(AuthenticationError):
            await supervisor.run("m")
    assert lab.finished == {("cancelled", "error"): 1}


class Beating:
    """A stream that beats for ever and tells nothing."""

    def __init__(self) -> None:
        self._closed = Event()

    async def receive(self) -> Sequence[ServerSentEvent]:
        await self._closed.wait()
        raise ConnectionFailed("closed", sent=True)

    def close(self) -> None:
        self._closed.set()


@pytest.mark.parametrize("how", ["run", "events"])
async def test_a_stream_that_only_beats(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is never silent, and never tells the end, does not hide it for ever."""
    lab = Lab(duration=10, answer="42")

    async def stream(task_id: str, *, timeout: float, silence: float) -> Beating:
        return Beating()

    monkeypatch.setattr(lab.fake, "stream", stream)
    async with lab.open() as supervisor:
        if how == "run":
            assert (await supervisor.run("m")).final_response == "42"
        else:
            task = await supervisor.start("m")
            assert text(await read(task)) == "42"
        assert current_time() < 90
