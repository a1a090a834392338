"""Plain calls are whole: they do all that they say, wherever they are made."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from anyio import Event, create_task_group, fail_after, sleep_forever
from anyio.lowlevel import checkpoint

from sigmic_guard import CancelReason, State, SupervisorShutdown, TaskCancelled
from sigmic_guard.observe import Observers, TaskChanged
from sigmic_guard.supervisor.ground.inbox import Inbox
from tests.backends import ASYNCIO, TRIO, UVLOOP
from tests.supervisor.lab import Lab
from tests.supervisor.places import PLACES, coroutine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard import RemoteTask, TaskEvent
    from sigmic_guard.observe import ObservedEvent

    Place = Callable[[Callable[[], object]], None]

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO)
everywhere = pytest.mark.parametrize("place", PLACES)
#: Real seconds, for what takes milliseconds.
LONG = 20


@everywhere
async def test_cancelling_a_background_task(place: Place) -> None:
    """request_cancel() ends the task, and says why, from wherever it is called."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        place(task.request_cancel)
        with fail_after(LONG):
            result = await task.wait()
        assert (result.outcome, result.reason) == ("cancelled", CancelReason.USER)
        assert lab.deletes(task) == 1


@everywhere
async def test_cancelling_a_block(place: Place) -> None:
    """request_cancel() cancels the body of the task's block too."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskCancelled) as caught, fail_after(LONG):
            async with supervisor.task("m") as task:
                place(task.request_cancel)
                await sleep_forever()
        assert caught.value.reason is CancelReason.USER
        assert lab.deletes(task) == 1


@everywhere
async def test_then_awaiting_it(place: Place) -> None:
    """A cancel() that follows finds the task as request_cancel() left it."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        place(task.request_cancel)
        with fail_after(LONG):
            assert (await task.cancel()).result == "acknowledged"
        assert lab.deletes(task) == 1


@everywhere
async def test_shutting_down(place: Place) -> None:
    """request_shutdown() ends every task, from wherever it is called."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        with pytest.raises(SupervisorShutdown), fail_after(LONG):
            async with supervisor.task("m"):
                place(supervisor.request_shutdown)
                await sleep_forever()
        assert (await task.wait()).reason is CancelReason.SHUTDOWN


@everywhere
async def test_closing_an_iterator(place: Place) -> None:
    """close() of an events() iterator drops its connection, and the list watches the task again."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        events = task.events()
        await anext(events)
        place(events.close)
        with fail_after(LONG):
            await lab.fake.until(lambda: lab.fake.open_streams == 0)
            lab.fake.complete(task.id, "42")
            assert (await task.wait()).final_response == "42"
        with pytest.raises(StopAsyncIteration):
            await anext(events)


class Holder:
    """Keeps an iterator in a cycle, as loggers and exceptions do."""

    def __init__(self, events: Any) -> None:
        self.events = events
        self.itself = self


@pytest.mark.parametrize("place", PLACES)
async def test_an_iterator_that_is_collected(place: Place) -> None:
    """An iterator that the collector finds, wherever, does no harm to its task."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await _peek(task)
        gc.disable()
        try:
            place(gc.collect)
        finally:
            gc.enable()
        with fail_after(LONG):
            await lab.fake.until(lambda: lab.fake.open_streams == 0)
            lab.fake.complete(task.id, "42")
            assert (await task.wait()).final_response == "42"


async def _peek(task: RemoteTask) -> TaskEvent:
    holder = Holder(task.events())
    return await anext(holder.events)


async def test_a_shutdown_that_is_asked_for_while_entering() -> None:
    """request_shutdown() counts from the moment on in which the supervisor is being entered."""
    lab = Lab()

    class Slow:
        """A ledger that takes its time to open."""

        def __init__(self) -> None:
            from sigmic_guard.ledger import MemoryLedger

            self._ledger = MemoryLedger()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._ledger, name)

        async def open(self, owner_id: str) -> None:
            supervisor.request_shutdown()
            await self._ledger.open(owner_id)

    supervisor = lab.make(ledger=Slow())
    async with supervisor:
        with pytest.raises(SupervisorShutdown):
            await supervisor.start("m")
    assert lab.fake.count("create") == 0


async def test_the_first_call_counts() -> None:
    """What a plain call asked for comes before what is decided after it, without a checkpoint."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(TaskCancelled):
            async with supervisor.task("m") as task:
                task.request_cancel()
        assert task.reason is CancelReason.USER
        async with supervisor.task("m") as task:
            pass
        task.request_cancel()
        await checkpoint()
        assert task.reason is CancelReason.SCOPE


async def test_calls_after_the_end() -> None:
    """Plain calls after the supervisor's end do nothing, and raise nothing."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        events = task.events()
    for place in PLACES:
        place(task.request_cancel)
        place(supervisor.request_shutdown)
        place(events.close)
    await checkpoint()
    assert lab.deletes(task) == 1
    assert task.state is State.CANCELLED


async def test_a_call_in_the_middle_of_a_step() -> None:
    """A signal handler that interrupts a change asks for another without harm to the first."""
    lab = Lab()
    async with lab.open() as supervisor:
        tasks = [await supervisor.start("m") for _ in range(2)]
        core = tasks[0]._core
        interrupting = [tasks[1].request_cancel, tasks[0].request_cancel]

        def interrupted(event: ObservedEvent) -> None:
            core.ground.observer.observe(event)
            if interrupting and isinstance(event, TaskChanged):
                interrupting.pop()()

        core.roster._observer = Observers([SimpleNamespace(observe=interrupted)])
        await tasks[0].cancel()
        with fail_after(LONG):
            assert [(await task.wait()).reason for task in tasks] == ["user", "user"]
        assert lab.deletes() == 2


# --- the inbox itself -----------------------------------------------------------------------------


async def test_notes_are_carried_out_in_their_order() -> None:
    """Notes are carried out in the order they were left in, also one that is left by another."""
    inbox, done = Inbox(), Event()
    carried_out: list[object] = []
    inbox.leave(carried_out.append, 1)
    inbox.leave(inbox.leave, carried_out.append, 3)
    inbox.leave(carried_out.append, 2)
    inbox.leave(inbox.leave, done.set)
    async with create_task_group() as group:
        group.start_soon(inbox.deliver)
        with fail_after(LONG):
            await done.wait()
        group.cancel_scope.cancel()
    assert carried_out == [1, 2, 3]
    inbox.close()


async def test_a_full_doorbell() -> None:
    """More notes than the doorbell has room for are carried out all the same."""
    inbox, carried_out = Inbox(), list[int]()
    for number in range(5000):
        inbox.leave(carried_out.append, number)
    inbox.flush()
    assert carried_out == list(range(5000))
    inbox.close()


async def test_a_direct_call_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: carried out on the spot, the call breaks in at least one of the places."""
    lab, broken = Lab(), list[str]()
    async with lab.open() as supervisor:
        for place in PLACES:
            task = await supervisor.start("m")

            def call(task: RemoteTask = task, place: Place = place) -> None:
                try:
                    task._core.roster.cancel(task._entry, CancelReason.USER)
                    task._core.ground.timer.after(0, lambda: None)
                except BaseException:
                    broken.append(place.__name__)

            place(call)
            await checkpoint()
            await task.cancel()
    assert broken
    assert coroutine.__name__ not in broken


async def test_an_inbox_that_nobody_closed_is_collected_quietly(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Its sockets are closed with it, also where it is part of a cycle."""
    inbox = Inbox()
    inbox.leave(inbox.flush)
    ends = inbox._reader, inbox._writer
    del inbox
    gc.collect()
    assert [end.fileno() for end in ends] == [-1, -1]
    del ends
    gc.collect()
    assert not recwarn.list
