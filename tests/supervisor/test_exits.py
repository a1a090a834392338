"""Blocks that are cancelled together go on together, and a few do not wait for each other."""

from __future__ import annotations

import asyncio

import pytest
from anyio import Event, create_task_group, current_time, sleep_forever, wait_all_tasks_blocked

from sigmic_guard import Supervisor
from sigmic_guard.supervisor.face import exits
from sigmic_guard.supervisor.face.exits import FEW, SECONDS_EACH, Exits
from sigmic_guard.supervisor.ground.lifetime import Lifetime
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.supervisor.lab import Lab


async def cancel_all(supervisor: Supervisor, number: int, *, cancel_wait: float = 5) -> list[float]:
    """Cancel so many blocks at once, and return after how many seconds each was left."""
    left: list[float] = []
    cancelled_at = 0.0

    async def block() -> None:
        try:
            async with supervisor.task("m", cancel_wait=cancel_wait):
                await sleep_forever()
        finally:
            left.append(current_time() - cancelled_at)

    async with create_task_group() as group:
        for _ in range(number):
            group.start_soon(block)
        while len(supervisor.tasks) < number:
            await wait_all_tasks_blocked()
        cancelled_at = current_time()
        group.cancel_scope.cancel()
    return left


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_many_go_on_together() -> None:
    """The first goes on at once, and the others all at once: a parent looks through them twice."""
    lab, number = Lab(), 10 * FEW
    async with lab.open(max_tasks=number) as supervisor:
        left = await cancel_all(supervisor, number)
    assert sorted(set(left)) == pytest.approx([0, number * SECONDS_EACH])
    assert left.count(left[0]) == 1
    assert lab.deletes() == number


@pytest.mark.backends(TRIO_VIRTUAL)
@pytest.mark.parametrize("number", [1, FEW])
async def test_a_few_do_not_wait_for_each_other(number: int) -> None:
    """Few blocks go on as soon as their DELETEs are answered."""
    lab = Lab()
    async with lab.open() as supervisor:
        left = await cancel_all(supervisor, number)
    assert left == [0.0] * number


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_no_longer_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that goes on with others waits no longer than its ``cancel_wait``."""
    monkeypatch.setattr(exits, "SECONDS_EACH", 60.0)
    lab, number = Lab(), 2 * FEW
    async with lab.open(max_tasks=number) as supervisor:
        left = await cancel_all(supervisor, number, cancel_wait=3)
    assert sorted(set(left)) == pytest.approx([0, 3])


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_all_are_ended() -> None:
    """However they go on, each task was ended, once."""
    lab, number = Lab(), 10 * FEW
    async with lab.open(max_tasks=number) as supervisor:
        assert len(await cancel_all(supervisor, number)) == number
    assert lab.deletes() == number


@pytest.mark.backends(ASYNCIO)
async def test_one_that_is_struck_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the one that keeps the time is ended by a native cancellation, the others go on."""
    monkeypatch.setattr(exits, "SECONDS_EACH", 3600.0)
    doors, all_settled = Exits(Lifetime()), Event()

    class Task:
        async def until_settled(self) -> None:
            await all_settled.wait()

    waits = [
        asyncio.create_task(doors.until_settled([Task()], 7200))  # type: ignore[list-item]
        for _ in range(FEW + 3)
    ]
    await wait_all_tasks_blocked()
    all_settled.set()
    await waits[0]
    await wait_all_tasks_blocked()
    assert not any(wait.done() for wait in waits[1:])
    waits[1].cancel()
    _, pending = await asyncio.wait(waits[1:], timeout=30)
    assert not pending
    assert [wait.cancelled() for wait in waits] == [wait is waits[1] for wait in waits]
