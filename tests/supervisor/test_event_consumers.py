"""Consumers of events who are away, slow, gone, or two: nobody waits for them, nothing is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from anyio import Event, create_task_group, current_time, fail_after, sleep, wait_all_tasks_blocked

from sigmic_guard import (
    ConfigurationError,
    ConnectionFailed,
    Outcome,
    RemoteTask,
    State,
    TaskCancelled,
    TaskEvent,
)
from sigmic_guard.sigmic import ServerSentEvent
from sigmic_guard.supervisor.work.events import TaskEvents
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab
from tests.supervisor.streams import CHUNKS, SNAPPED, WHOLE, read, scripted, text

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
also_asyncio = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)

#: How the end of a task is waited for, each with the policy of who began it.
WAYS: dict[str, Callable[[RemoteTask], Awaitable[Any]]] = {
    "result": lambda task: task.result(),
    "wait": lambda task: task.wait(),
}


async def rest(events: TaskEvents) -> list[TaskEvent]:
    return [event async for event in events]


class TestPaused:
    @pytest.mark.parametrize("how", WAYS)
    @pytest.mark.parametrize("held", [True, False], ids=["task", "start"])
    @pytest.mark.parametrize("after", [1, 3, 5])
    async def test_nobody_waits_for_it(self, how: str, held: bool, after: int) -> None:
        """An iterator that is held and not read delays no end, and has every event afterwards."""
        lab = scripted(20)
        async with lab.open() as supervisor:

            async def pause(task: RemoteTask) -> None:
                events = task.events()
                first = [await anext(events) for _ in range(after)]
                await WAYS[how](task)
                assert current_time() < 22
                assert task.state is State.COMPLETED
                assert text(first + await rest(events)) == WHOLE
                assert text(await read(task)) == WHOLE

            if held:
                async with supervisor.task("m") as task:
                    await pause(task)
            else:
                await pause(await supervisor.start("m"))
        assert not lab.fake.open_streams

    async def test_while_somebody_waits_already(self) -> None:
        """A consumer that goes away while another task waits for the result delays nothing."""
        lab = scripted(20)
        told: list[float] = []
        async with lab.open() as supervisor, supervisor.task("m") as task:
            events = task.events()

            async def wait() -> None:
                await task.result()
                told.append(current_time())

            async with create_task_group() as group:
                group.start_soon(wait)
                async for event in events:
                    if event.text:
                        break
            assert told[0] < 22
            assert text([event, *await rest(events)]) == WHOLE

    async def test_another_reads_meanwhile(self) -> None:
        """Beside a paused iterator another one yields everything, and at once."""
        lab = scripted(20)
        async with lab.open() as supervisor, supervisor.task("m") as task:
            paused = task.events()
            await anext(paused)
            assert text(await read(task)) == WHOLE
            assert current_time() < 21
            assert text(await rest(paused)) == WHOLE

    async def test_one_that_comes_back_often_is_no_load(self) -> None:
        """A consumer that is back within half a second each time has its task not watched."""
        lab = scripted(20)
        async with lab.open() as supervisor, supervisor.task("m") as task:
            async for _ in task.events():
                await sleep(0.3)
        assert lab.fake.count("list") == 0

    async def test_the_end_by_another(self) -> None:
        """A task that is cancelled elsewhere while the iterator rests is known to be, soon."""
        lab = scripted(200)
        async with lab.open() as supervisor:
            task = await supervisor.start("m")
            events = task.events()
            await anext(events)
            await sleep(10)
            lab.fake.cancel(task.id)
            with fail_after(2.5), pytest.raises(TaskCancelled):
                await task.result()
            await rest(events)

    async def test_dropped_meanwhile(self) -> None:
        """An iterator whose stream broke while it rested connects again, and lacks nothing."""
        lab = scripted(60)
        async with lab.open() as supervisor, supervisor.task("m") as task:
            events = task.events()
            first = [await anext(events) for _ in range(4)]
            await sleep(20)
            lab.fake.drop_streams()
            assert text(first + await rest(events)) == WHOLE

    async def test_over_a_follow_up(self) -> None:
        """An iterator that rested while the task was asked again goes on with the new answer."""
        lab = scripted(20)
        lab.fake.script("again", duration=20, chunks=CHUNKS)
        async with lab.open() as supervisor, supervisor.task("m") as task:
            events = task.events()
            first = [await anext(events) for _ in range(4)]
            await task.result()
            await task.send("again")
            said = text(first + await rest(events))
            assert (await task.result()).final_response == WHOLE
        assert said == WHOLE + WHOLE

    @also_asyncio
    async def test_a_stream_is_read_while_one_rests(self) -> None:
        """result() opens a stream of its own unless somebody waits for an event."""
        lab = Lab()
        async with lab.open() as supervisor, supervisor.task("m") as task:
            events = task.events()
            await anext(events)
            async with create_task_group() as group:
                group.start_soon(task.result)
                await lab.fake.until(lambda: lab.fake.open_streams == 2)
                lab.fake.complete(task.id, "42")
            await events.aclose()
        assert lab.fake.count("list") == 0


class TestSlow:
    @pytest.mark.parametrize("pace", [0.4, 3, 30, 70])
    @pytest.mark.parametrize("held", [True, False], ids=["task", "start"])
    async def test_a_backlog_is_not_silence(self, pace: float, held: bool) -> None:
        """However slow the consumer, it gets every event of a task that has long completed."""
        lab = scripted(10)
        async with lab.open() as supervisor:

            async def consume(task: RemoteTask) -> list[TaskEvent]:
                events = []
                async for event in task.events():
                    events.append(event)
                    await sleep(pace)
                return events

            if held:
                async with supervisor.task("m") as task:
                    events = await consume(task)
            else:
                events = await consume(await supervisor.start("m"))
        kinds = [event.type for event in events]
        assert kinds[:3] == ["history_message", "history_done", "status"]
        assert [event.text for event in events if event.type == "content"] == list(CHUNKS)
        assert kinds[-1] == "done"

    async def test_a_cancelled_task_has_nothing_more_to_say(self) -> None:
        """What a task that is being cancelled has left to say is dropped."""
        lab = scripted(10)
        async with lab.open() as supervisor:
            task = await supervisor.start("m")
            events = task.events()
            await anext(events)
            await sleep(5)
            await task.cancel()
            assert "done" not in [event.type for event in await rest(events)]
        assert lab.deletes() == 1


class Trickle:
    """A stream that beats, and says something as long as it is due at certain instants."""

    def __init__(self, *due: float) -> None:
        self._due = list(due)
        self._closed = Event()
        self.closed_at: float | None = None

    async def receive(self) -> list[ServerSentEvent]:
        while self._due:
            await sleep(max(0.0, self._due[0] - current_time()))
            at = self._due.pop(0)
            return [ServerSentEvent("thought", f'{{"at": {at}}}')]
        await self._closed.wait()
        raise ConnectionFailed("closed", sent=True)

    def close(self) -> None:
        if self.closed_at is None:
            self.closed_at = current_time()
        self._closed.set()


async def test_a_stream_that_still_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream is read on after GET told the end, for as long as it goes on telling."""
    lab = Lab(duration=10, answer="42")
    stream = Trickle(1, 60, 63, 67, 71, 75, 79)

    async def opened(task_id: str, *, timeout: float, silence: float) -> Trickle:
        return stream

    monkeypatch.setattr(lab.fake, "stream", opened)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        events = await read(task)
    assert [event.data["at"] for event in events[:-1]] == [1, 60, 63, 67, 71, 75, 79]
    assert events[-1].text == "42"
    assert stream.closed_at is not None
    assert 84 <= stream.closed_at <= 90


class TestClosing:
    @also_asyncio
    @pytest.mark.parametrize("plain", [True, False], ids=["close", "aclose"])
    async def test_by_another_task(self, plain: bool) -> None:
        """Closing ends the iteration of who waits in another task: cleanly, and with no request."""
        lab = Lab()
        got: list[str] = []
        async with lab.open() as supervisor:
            task = await supervisor.start("m")
            events = task.events()

            async def consume() -> None:
                got.extend([event.type async for event in events])

            async with create_task_group() as group:
                group.start_soon(consume)
                await lab.fake.until(lambda: lab.fake.open_streams == 1)
                await wait_all_tasks_blocked()
                if plain:
                    events.close()
                else:
                    await events.aclose()
                await lab.fake.until(lambda: lab.fake.open_streams == 0)
            assert got == ["history_message", "history_done", "status"]
            assert (task.state, lab.fake.count("get")) == (State.RUNNING, 0)
            lab.fake.complete(task.id)
            assert (await task.result()).outcome is Outcome.COMPLETED

    @pytest.mark.parametrize("where", ["stream", "get", "pause"])
    async def test_before_there_is_a_stream(self, where: str) -> None:
        """Closing ends the iteration at once also where it opens a stream, looks, or waits."""
        lab = Lab()
        async with lab.open() as supervisor:
            task = await supervisor.start("m")
            events = task.events()
            lab.fake.always("stream", HANG if where == "stream" else SNAPPED)
            lab.fake.always("get", HANG if where == "get" else None)
            ended: list[float] = []

            async def consume() -> None:
                assert [event async for event in events] == []
                ended.append(current_time())

            async with create_task_group() as group:
                group.start_soon(consume)
                await sleep(300.5 if where == "pause" else 5)
                events.close()
                closed = current_time()
            assert ended == [closed]
            lab.fake.always("stream", None)
            lab.fake.always("get", None)
            assert (lab.fake.open_streams, task._entry.listening) == (0, 0)

    @also_asyncio
    async def test_two_consumers(self) -> None:
        """A second consumer is told so, and takes nothing from the first."""
        lab = scripted(0.2)
        async with lab.open() as supervisor, supervisor.task("m") as task:
            events, got = task.events(), []

            async def consume() -> None:
                got.extend([event async for event in events])

            async with create_task_group() as group:
                group.start_soon(consume)
                await lab.fake.until(lambda: task._entry.listening == 1)
                with pytest.raises(ConfigurationError, match=r"task\.events\(\)"):
                    await anext(events)
            assert text(got) == WHOLE

    @also_asyncio
    async def test_one_after_the_other(self) -> None:
        """An iterator may be handed on: who takes it over goes on where the other stopped."""
        lab = scripted(0.2)
        got: list[TaskEvent] = []
        async with lab.open() as supervisor, supervisor.task("m") as task:
            events = task.events()

            async def take() -> None:
                got.append(await anext(events))

            for _ in range(5):
                async with create_task_group() as group:
                    group.start_soon(take)
            got.extend(await rest(events))
        assert text(got) == WHOLE
