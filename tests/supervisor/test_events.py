"""``task.events()``: each text once, whatever happens to the stream; and how the end is learnt."""

from __future__ import annotations

import gc

import pytest
from anyio import create_task_group, current_time, fail_after, sleep, sleep_forever

from sigmic_guard import (
    AuthenticationError,
    Outcome,
    ProtocolError,
    State,
    TaskNotFound,
    TaskTimedOut,
)
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAUTHORISED, UNAVAILABLE, Lab
from tests.supervisor.streams import SNAPPED, WHOLE, read, scripted, text

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
also_asyncio = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


@also_asyncio
async def test_a_stream_from_its_start_to_its_end() -> None:
    """An undisturbed stream yields every event once, in order, and ends with the task."""
    lab = scripted(0.08)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        events = await read(task)
        assert task.state is State.COMPLETED
        assert (await task.result()).final_response == WHOLE
    assert text(events) == WHOLE
    kinds = [event.type for event in events]
    assert kinds[:2] == ["history_message", "history_done"]
    assert kinds[-1] == "done"
    assert not any(event.replayed for event in events)
    assert lab.fake.count("stream") == 1
    assert lab.fake.count("list") == 0, "a task whose stream is read needs no watching"


@pytest.mark.parametrize("boundary", range(12))
async def test_dropped_at_every_boundary(boundary: int) -> None:
    """Wherever the stream drops, the new texts together are the whole, once, and replays marked."""
    lab = scripted()
    lab.fake.on("receive", *[None] * boundary, SNAPPED)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        events = await read(task)
        assert task.state is State.COMPLETED
    assert text(events) == WHOLE
    fresh = [event for event in events if not event.replayed]
    kinds = [event.type for event in fresh]
    assert max(kinds.count(kind) for kind in ("history_done", "status", "done")) == 1
    messages = [event.data["id"] for event in fresh if event.type == "history_message"]
    assert len(messages) == len(set(messages)), "what was saved is new once"
    if any(event.replayed for event in events):
        assert lab.fake.count("stream") == 2


async def test_dropped_at_each_boundary_in_turn() -> None:
    """A stream that drops after each single batch still yields the whole text once."""
    lab = scripted(800)
    lab.fake.on("receive", *[None, SNAPPED] * 12)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        assert text(await read(task)) == WHOLE
    assert lab.fake.count("stream") > 5


@pytest.mark.parametrize("at", [0, 5, 15, 25, 35, 45, 55, 65, 75, 79.99])
async def test_dropped_from_the_other_side(at: float) -> None:
    """Dropped while the consumer waits, at any instant: the whole text, once."""
    lab = scripted()

    async def drop() -> None:
        await sleep(at)
        lab.fake.drop_streams()

    async with lab.open() as supervisor, create_task_group() as group:
        group.start_soon(drop)
        async with supervisor.task("m") as task:
            assert text(await read(task)) == WHOLE
            assert task.state is State.COMPLETED


async def test_dropped_and_away_for_long() -> None:
    """What is said while the stream cannot be opened is caught up with, once."""
    lab = scripted()
    async with lab.open() as supervisor, create_task_group() as group:

        async def disturb() -> None:
            await sleep(25)
            lab.fake.always("stream", UNAVAILABLE)
            lab.fake.drop_streams()
            await sleep(30)
            lab.fake.always("stream", None)

        group.start_soon(disturb)
        async with supervisor.task("m") as task:
            assert text(await read(task)) == WHOLE


async def test_silence() -> None:
    """A stream that stays silent for three heartbeats is opened anew."""
    lab = scripted()
    lab.fake.on("receive", None, HANG)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        assert text(await read(task)) == WHOLE
    first, second = [call.at for call in lab.fake.requests if call.method == "stream"]
    assert 45 <= second - first < 47


@also_asyncio
async def test_leaving_the_loop() -> None:
    """Who breaks out of the loop leaves no connection, and the list watches the task again."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        async for _ in task.events():
            break
        gc.collect()
        await lab.fake.until(lambda: lab.fake.open_streams == 0)
        assert task._entry.streams == 0
        lab.fake.complete(task.id, "42")
        assert (await task.result()).final_response == "42"
    assert lab.fake.count("list") >= 1


@also_asyncio
async def test_closing_twice() -> None:
    """aclose() drops the connection at once, again does nothing, and nothing more comes."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        async with task.events() as events:
            await anext(events)
            assert lab.fake.open_streams == 1
            await events.aclose()
            assert lab.fake.open_streams == 0
            await events.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        assert task.state is State.RUNNING


@also_asyncio
async def test_a_consumer_that_is_cancelled_goes_on() -> None:
    """An iterator whose consumer was cancelled can be read further, without a gap."""
    lab = scripted(0.4)
    pieces = []
    async with lab.open() as supervisor, supervisor.task("m") as task:
        events = task.events()
        while True:
            try:
                with fail_after(0.03):
                    pieces.append((await anext(events)).text)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    assert "".join(pieces) == WHOLE


@also_asyncio
@pytest.mark.parametrize("where", ["stream", "receive"])
async def test_refused_for_good(where: str) -> None:
    """401 on the stream is raised; the task stays supervised."""
    lab = Lab()
    lab.fake.on(where, UNAUTHORISED)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        with pytest.raises(AuthenticationError):
            await read(task)
        assert (task.state, task._entry.streams) == (State.RUNNING, 0)
        lab.fake.complete(task.id)
        assert (await task.result()).outcome is Outcome.COMPLETED


@also_asyncio
async def test_an_event_that_is_too_large() -> None:
    """An event of more than 8 MiB is a ProtocolError; the task stays supervised."""
    lab = Lab()
    lab.fake.on("receive", ProtocolError("one event is larger than 8 MiB"))
    async with lab.open() as supervisor, supervisor.task("m") as task:
        with pytest.raises(ProtocolError):
            await read(task)
        lab.fake.complete(task.id, "42")
        assert (await task.result()).final_response == "42"


async def test_not_found() -> None:
    """A task that neither stream nor GET finds is deleted, and its iteration ends."""
    lab = Lab()
    gone = TaskNotFound("no such task", code="NOT_FOUND", status=404)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        lab.fake.always("stream", gone)
        lab.fake.always("get", gone)
        await read(task)
        await task.wait()
    assert task.reason == "remote"
    assert lab.deletes() == 1


async def test_a_deadline_ends_the_iteration() -> None:
    """The deadline of a block ends the iteration in its body."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskTimedOut):
            async with supervisor.task("m", timeout=60) as task:
                await read(task)
                await sleep_forever()
        assert current_time() == pytest.approx(60, abs=0.1)
    assert not lab.fake.open_streams


@also_asyncio
async def test_cancelled_while_somebody_reads() -> None:
    """Cancelling a background task ends the iterations over it."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        task = await supervisor.start("m")
        group.start_soon(read, task)
        await lab.fake.until(lambda: lab.fake.open_streams == 1)
        await task.cancel()
    assert not lab.fake.open_streams


@also_asyncio
async def test_a_follow_up_while_reading() -> None:
    """After a follow-up a new iterator yields what comes of it."""
    lab = Lab()
    lab.fake.script("second", duration=0.05, chunks=("t", "wo"))
    async with lab.open() as supervisor, supervisor.task("m") as task:
        lab.fake.complete(task.id, "one")
        await task.result()
        await task.send("second")
        assert text(await read(task)) == "two"
        assert (await task.result()).final_response == "two"
