"""Workers come when needed and go when told to, a native cancellation notwithstanding."""

from __future__ import annotations

import asyncio
import gc

import pytest
from anyio import Event, create_task_group, current_time, fail_after, sleep, sleep_forever

from sigmic_guard.ledger import MemoryLedger
from sigmic_guard.supervisor.ground.timer import MIN_FORGOTTEN, Timer
from sigmic_guard.supervisor.ground.workers import MAX_FAILURES, Workers
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def test_stopped_before_the_first_step() -> None:
    """A worker that was started just before the stop never begins, and nobody waits for it."""
    begun = []

    async def loop() -> None:
        begun.append(True)
        await sleep_forever()

    async with create_task_group() as group:
        workers = Workers(group, lambda name, error: None)
        workers.start("late", loop)
        workers.stop()
        with fail_after(5):
            await workers.gone()
    assert not begun


async def test_an_alarm_is_one_object_to_the_collector() -> None:
    """There may be 100,000 alarms, and the collector stops the loop while it goes through them."""
    timer, count = Timer(print), 10_000
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(count):
        timer.at(current_time() + 3600, print, timer)
    gc.collect()
    assert len(gc.get_objects()) - before < 1.1 * count


@pytest.mark.backends(ASYNCIO)
async def test_a_timer_that_is_struck_while_it_clears_out_keeps_its_alarms() -> None:
    """A native cancellation in the middle of clearing out loses no alarm."""
    timer, fired = Timer(print), list[int]()
    count = 20 * MIN_FORGOTTEN
    for number in range(MIN_FORGOTTEN):
        timer.at(current_time() - 1, fired.append, number)
    for alarm in [timer.at(current_time() + 3600, fired.append, -1) for _ in range(count)]:
        timer.forget(alarm)
    worker = asyncio.create_task(timer.ring())
    while timer._litter:
        await asyncio.sleep(0)
    worker.cancel()
    await asyncio.wait([worker])
    everything = Event()
    timer.after(0, everything.set)
    worker = asyncio.create_task(timer.ring())
    await everything.wait()
    worker.cancel()
    await asyncio.wait([worker])
    assert sorted(fired) == list(range(MIN_FORGOTTEN))


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
