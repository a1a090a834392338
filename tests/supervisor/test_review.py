"""What a review found: interleavings that leaked a task, lost an alarm, or let a cancel stray."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from anyio import Event, create_task_group, current_time, fail_after, move_on_after, sleep
from anyio import wait_all_tasks_blocked as all_blocked
from msgspec.structs import replace

from sigmic_guard import ConnectionFailed, RateLimited, SigmicGuardError, State
from sigmic_guard.ledger import MemoryLedger
from sigmic_guard.sigmic import TaskPage
from sigmic_guard.supervisor.ground.timer import LITTER, Timer
from sigmic_guard.supervisor.ground.workers import MAX_FAILURES
from sigmic_guard.testing import HANG, LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab, too_many

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def test_the_deadline_strikes_a_finished_body_and_the_task_wins() -> None:
    """A block that waits for its task ends normally if the task completes before the DELETE."""
    lab = Lab()
    lab.fake.on("delete", lambda call: lab.fake.complete(call.task_id or "") and None)
    async with lab.open() as supervisor:
        async with supervisor.task("one", on_exit="wait", timeout=0.5) as task:
            pass
        await sleep(0)  # no cancellation is left over
        assert task.state == "completed"


@pytest.mark.parametrize("refused_first", [True, False])
async def test_one_of_two_follow_ups_is_refused(*, refused_first: bool) -> None:
    """A refused follow-up does not hide that another one runs: the block ends the task."""
    lab = Lab()
    first, second = Event(), Event()

    async def refuse(_: object) -> RateLimited:
        await first.wait()
        return too_many()

    async def accept(_: object) -> None:
        await second.wait()

    lab.fake.on("send", refuse, accept)
    async with lab.open() as supervisor, supervisor.task("one") as task:
        lab.fake.complete(task.id)
        await task.result()

        async def send_in_vain() -> None:
            with pytest.raises(RateLimited):
                await task.send("refused")

        async with create_task_group() as group:
            group.start_soon(send_in_vain)
            await lab.fake.until(lambda: lab.fake.count("send") == 1)
            group.start_soon(task.send, "accepted")
            await lab.fake.until(lambda: lab.fake.count("send") == 2)
            (first if refused_first else second).set()
            await lab.fake.until(lambda: lab.fake.in_flight("send") == 1)
            await all_blocked()
            first.set()
            second.set()
        assert task.state == "running"
    assert lab.deletes() == 1


async def test_seen_completed_while_a_follow_up_is_under_way() -> None:
    """A task that is seen completed while a message is on its way to it is not let go of."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("one")
        lab.fake.complete(task.id)
        gate = lab.fake.gate("send")
        async with create_task_group() as group:
            group.start_soon(task.send, "two")
            await gate.entered.wait()
            await task.refresh()
            assert task.state == "running"
            gate.open()
        assert len(lab.fake.live) == 1
        assert task.id in supervisor.tasks
    assert lab.deletes() == 1


async def test_a_refused_follow_up_does_not_hide_the_end() -> None:
    """A completion that was seen while a message was under way is learned once it is refused."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("one")
        gate = lab.fake.gate("send")
        lab.fake.on("send", too_many())
        async with create_task_group() as group:

            async def send_in_vain() -> None:
                with pytest.raises(RateLimited):
                    await task.send("two")

            group.start_soon(send_in_vain)
            await gate.entered.wait()
            lab.fake.complete(task.id, "done")
            await task.refresh()
            gate.open()
        assert (await task.wait()).final_response == "done"


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_an_old_handle_does_not_end_the_watching_of_a_new_one() -> None:
    """Reading the history through a finished handle leaves the adopted task watched."""
    lab = Lab()
    async with lab.open() as supervisor:
        old = await supervisor.start("one")
        lab.fake.complete(old.id)
        await old.wait()
        new = await supervisor.adopt(old.id)
        await new.send("two")
        async with old.events() as events:
            await anext(events)
        lab.fake.complete(new.id, "second")
        with move_on_after(60):
            await new.wait()
        assert new.state == "completed"


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_those_who_gave_up_waiting_for_a_place_are_forgotten() -> None:
    """A queue for places does not grow by those who were cancelled in it."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor:
        await supervisor.start("one")
        for _ in range(20):
            with move_on_after(1):
                await supervisor.start("two")
        assert supervisor._core is not None
        assert not supervisor._core.creator._waiting


async def test_no_create_after_a_shutdown_without_a_budget() -> None:
    """A drain that is out of time while it marks sends no POST, and counts who never was."""
    lab = Lab()
    async with lab.open(max_tasks=5) as supervisor, create_task_group() as group:

        async def start() -> None:
            with suppress(SigmicGuardError):
                await supervisor.start("one")

        for _ in range(1000):
            group.start_soon(start)
        await lab.fake.until(lambda: len(lab.fake.created) == 5)
        await all_blocked()
        report = await supervisor.shutdown(grace=0)
        assert not [row for row in report.unconfirmed if row.state is State.INTENT]
        assert report.never_created == 995
    assert len(lab.fake.created) == 5


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_clock_that_is_ahead_hides_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost create is found below a hundred others, however far ahead the host's clock is."""
    lab = Lab()
    lab.fake.on("create", LOST)
    with monkeypatch.context() as patch:
        ahead = time.time() + 7200
        patch.setattr("sigmic_guard.supervisor.ground.clock.time.time", lambda: ahead)
        supervisor = lab.make(create_timeout=1)
        await supervisor.__aenter__()
    try:
        gate = lab.fake.gate("list")
        async with create_task_group() as group:
            group.start_soon(supervisor.start, "one")
            await gate.entered.wait()
            others = [lab.fake.add() for _ in range(150)]
            gate.open()
        assert list(supervisor.tasks) == lab.fake.created[:1]
    finally:
        await supervisor.__aexit__(None, None, None)
    assert lab.fake.live == set(others)


@pytest.mark.backends(ASYNCIO)
async def test_a_caller_that_is_closed_ends_its_task() -> None:
    """A coroutine that is closed while it starts a task leaves none behind."""
    lab = Lab()
    async with lab.open() as supervisor:
        gate = lab.fake.gate("create", answer=True)
        caller = supervisor.start("one")
        caller.send(None)
        await gate.entered.wait()
        caller.close()
        gate.open()
        await lab.fake.until(lambda: not lab.fake.live)


@pytest.mark.backends(ASYNCIO)
async def test_a_timer_that_is_struck_while_it_clears_out_keeps_its_alarms() -> None:
    """A native cancellation in the middle of clearing out loses no alarm."""
    timer, fired = Timer(print), list[int]()
    count = 20 * LITTER
    for number in range(LITTER):
        timer.at(current_time() - 1, fired.append, number)
    for alarm in [timer.at(current_time() + 3600, fired.append, -1) for _ in range(count)]:
        timer.forget(alarm)
    worker = asyncio.create_task(timer.run())
    while timer._litter:
        await asyncio.sleep(0)
    worker.cancel()
    await asyncio.wait([worker])
    everything = Event()
    timer.after(0, everything.set)
    worker = asyncio.create_task(timer.run())
    await everything.wait()
    worker.cancel()
    await asyncio.wait([worker])
    assert sorted(fired) == list(range(LITTER))


@pytest.mark.backends(ASYNCIO)
async def test_a_drain_that_is_struck_after_many_bugs_comes_back() -> None:
    """When bugs have used up all replacements, a native cancellation still hangs no exit."""
    lab = Lab()
    lab.fake.always("delete", HANG)
    task_id, bugs = lab.fake.add(), 0

    class Broken(MemoryLedger):
        async def commit(self, writes: object) -> list[None]:
            nonlocal bugs
            bugs += 1
            raise RuntimeError("a bug")

    async def program() -> None:
        async with lab.make(ledger=Broken(), grace=1) as supervisor:
            await supervisor.adopt(task_id)
            await sleep(3600)

    running = asyncio.create_task(program())
    while bugs < MAX_FAILURES:
        await asyncio.sleep(0)
    await lab.fake.until(lambda: lab.fake.in_flight("delete"))
    for other in asyncio.all_tasks() - {asyncio.current_task()}:
        if "sigmic_guard" in other.get_name():
            other.cancel()
    done, _ = await asyncio.wait({running}, timeout=20)
    assert done
    assert isinstance(running.exception(), RuntimeError)


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_busy_list_proves_nothing() -> None:
    """A lost create that always moves past the reader of the list is not taken for absent."""
    lab = Lab()
    world = lab.fake._world
    others = [lab.fake.add() for _ in range(150)]
    calls = count()

    def touch(task_id: str) -> None:
        task = world.tasks[task_id]
        task.activity_at = world.settle()
        world._moved(task)

    def shift(_: object) -> None:
        """Keep it below the first page, and let it be on top when the second is read."""
        for task_id in others[:120] if next(calls) % 2 == 0 else lab.fake.created[-1:]:
            touch(task_id)

    lab.fake.on("create", LOST)
    async with lab.open(left=150, create_timeout=1) as supervisor, create_task_group() as group:

        async def caller() -> None:
            with pytest.raises(ConnectionFailed):
                await supervisor.start("wanted")

        lab.fake.always("list", shift)
        group.start_soon(caller)
        with fail_after(60):
            await lab.fake.until(lambda: lab.fake.count("list") > 150)
        assert [row.state for row in supervisor.snapshot()] == ["unknown"]
        lab.fake.always("list", None)
        await lab.fake.until(lambda: lab.deletes() == 1)


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_long_list_that_tells_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing says when tasks were active, two whole scans are all the proof there can be."""
    lab = Lab()
    for _ in range(150):
        lab.fake.add()
    told = lab.fake.list

    async def untimed(**options: Any) -> TaskPage:
        page = await told(**options)
        return replace(page, tasks=[replace(info, last_activity_at=None) for info in page.tasks])

    monkeypatch.setattr(lab.fake, "list", untimed)
    lab.fake.on("create", ConnectionFailed("reset", sent=True))
    async with lab.open(left=150, create_timeout=1) as supervisor:
        with fail_after(60), pytest.raises(ConnectionFailed):
            await supervisor.start("lost, and never created")
        with fail_after(60):
            while supervisor.snapshot():
                await sleep(1)
