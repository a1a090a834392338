"""A shutdown takes what it is allowed and no more; what it cannot prove it names."""

from __future__ import annotations

import re
from contextlib import suppress
from time import perf_counter, process_time
from typing import Any

import pytest
from anyio import create_task_group, current_time, sleep, sleep_forever, wait_all_tasks_blocked

from sigmic_guard import (
    ConfigurationError,
    ShutdownReport,
    SigmicGuardError,
    State,
    Supervisor,
    SupervisorShutdown,
)
from sigmic_guard.testing import HANG, LIE, Reaction
from sigmic_guard.testing.fake_faults import Call
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.supervisor.lab import UNAVAILABLE, Lab
from tests.supervisor.ledgers import HangingLedger

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

MANY = 1000


async def start_many(supervisor: Supervisor, number: int) -> set[str]:
    async with create_task_group() as group:
        for _ in range(number):
            group.start_soon(supervisor.start, "m")
    return set(supervisor.tasks)


def named(caplog: pytest.LogCaptureFixture) -> set[str]:
    """The ids that the log calls unconfirmed."""
    lines = [str(record.msg) for record in caplog.records]
    found = [re.search(r"task_id\W+([0-9a-f-]{36})", line) for line in lines]
    unconfirmed = zip(found, lines, strict=True)
    return {match[1] for match, line in unconfirmed if match and "task.unconfirmed" in line}


def ids(report: ShutdownReport) -> set[str]:
    return {row.id or "" for row in report.unconfirmed}


async def test_a_thousand_deletes_that_are_never_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a DELETE that hangs, 1,000 tasks and grace=2 the exit takes less than 3 s, all named."""
    lab = Lab()
    async with lab.open(left=MANY, grace=2) as supervisor:
        tasks = await start_many(supervisor, MANY)
        lab.fake.always("delete", HANG)
        began = current_time()
        report = await supervisor.shutdown()
    assert current_time() - began < 3
    assert ids(report) == named(caplog) == tasks
    assert {row.state for row in report.unconfirmed} == {State.UNCONFIRMED}
    assert len({call.task_id for call in lab.fake.requests if call.method == "delete"}) == MANY
    assert lab.fake.peak("delete") == 64
    assert lab.live == {"unconfirmed": MANY}
    assert lab.cancellations == {"unconfirmed": MANY}


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_a_thousand_in_real_time(caplog: pytest.LogCaptureFixture) -> None:
    """The same in real time, and the CPU stays near idle while waiting."""
    lab = Lab()
    async with lab.open(left=MANY, grace=2) as supervisor:
        tasks = await start_many(supervisor, MANY)
        lab.fake.always("delete", HANG)
        began, busy = perf_counter(), process_time()
        report = await supervisor.shutdown()
        busy = process_time() - busy
    assert perf_counter() - began < 3
    assert busy < 1, "of two seconds; a loop that spins takes all of them"
    assert ids(report) == named(caplog) == tasks


async def test_a_thousand_blocks_that_end_at_once() -> None:
    """A shutdown ends the bodies of 1,000 blocks within the budget, also if DELETE hangs."""
    lab = Lab()
    lab.fake.always("delete", HANG)
    async with lab.open(left=MANY, grace=2) as supervisor, create_task_group() as group:

        async def use() -> None:
            with pytest.raises(SupervisorShutdown):
                async with supervisor.task("m"):
                    await sleep_forever()

        for _ in range(MANY):
            group.start_soon(use)
        await lab.fake.until(lambda: len(lab.fake.live) == MANY)
        await sleep(0.1)
        began = current_time()
        supervisor.request_shutdown()
        await supervisor.shutdown()
    assert current_time() - began < 3


@pytest.mark.parametrize("reaction", [HANG, 4.0, LIE], ids=["hang", "slow", "lie"])
@pytest.mark.parametrize("grace", [0, 0.5, 8, 30])
async def test_never_longer_than_grace_and_a_second(reaction: Reaction, grace: float) -> None:
    """Whatever DELETE does, the exit takes at most the grace and a second."""
    lab = Lab()
    async with lab.open(left=len(lab.fake.live), grace=grace) as supervisor:
        for _ in range(10):
            await supervisor.start("m", confirm="terminal")
        lab.fake.always("delete", reaction)
        began = current_time()
        report = await supervisor.shutdown()
        for task_id in lab.fake.created:
            lab.fake.cancel(task_id)
    assert current_time() - began <= grace + 1
    assert report.seconds <= grace + 0.1
    assert report.cancelled + len(report.unconfirmed) == 10


async def test_attempts_come_closer_together_towards_the_end() -> None:
    """A server that is back in the last seconds of a drain is still asked several times."""
    lab = Lab()
    async with lab.open(left=1, grace=20) as supervisor:
        await supervisor.start("m")
        times: list[float] = []

        def refuse(_: Call) -> Reaction:
            times.append(current_time())
            return UNAVAILABLE

        lab.fake.always("delete", refuse)
        began = current_time()
        await supervisor.shutdown()
    last = [at - began for at in times if at - began > 20 / 2]
    assert len(last) >= 5
    assert len(times) <= 20


async def test_a_delete_that_hangs_makes_room() -> None:
    """One that is under way as the shutdown begins is cut short, and sent again after the others'.

    It may take five seconds, which are more than there are.
    """
    lab = Lab()
    async with lab.open(grace=3, max_cancels=1) as supervisor:
        tasks = [await supervisor.start("m") for _ in range(4)]
        lab.fake.always("delete", HANG)
        tasks[0].request_cancel()
        await wait_all_tasks_blocked()
        assert lab.fake.count("delete") == 1
        lab.fake.always("delete", None)
        report = await supervisor.shutdown()
    assert report.clean
    asked = [call.task_id for call in lab.fake.requests if call.method == "delete"]
    assert asked == [task.id for task in (*tasks, tasks[0])]


async def test_no_grace_at_all(caplog: pytest.LogCaptureFixture) -> None:
    """With grace=0 nothing is waited for, and every task is named."""
    lab = Lab(latency=1)
    async with lab.open(left=10, grace=0) as supervisor:
        tasks = await start_many(supervisor, 10)
        began = current_time()
        report = await supervisor.shutdown()
    assert current_time() - began <= 1
    assert ids(report) == named(caplog) == tasks


async def test_no_grace_and_a_server_that_answers() -> None:
    """With shutdown(grace=0) the DELETEs that are answered at once may still get through."""
    lab = Lab()
    async with lab.open(left=3) as supervisor:
        for _ in range(3):
            await supervisor.start("m")
        lab.fake.always("delete", HANG)
        report = await supervisor.shutdown(grace=0)
        assert report.grace == 0
        assert len(report.unconfirmed) == 3


async def test_everything_hangs() -> None:
    """When all requests and the ledger hang the exit takes at most the grace and a second."""
    ledger = HangingLedger()
    lab = Lab()
    async with lab.open(left=3, grace=2, ledger=ledger) as supervisor, create_task_group() as group:
        for _ in range(3):
            await supervisor.start("m")

        async def use() -> None:
            with pytest.raises(SupervisorShutdown):
                await supervisor.start("m")

        for method in ("create", "get", "list", "delete", "stream", "send"):
            lab.fake.always(method, HANG)
        group.start_soon(use)
        await lab.fake.until(lambda: lab.fake.in_flight("create") == 1)
        ledger.hang = True
        began = current_time()
        report = await supervisor.shutdown()
        assert current_time() - began <= 3
    assert current_time() - began <= 3
    assert len(report.unconfirmed) == 4
    assert sum(row.id is None for row in report.unconfirmed) == 1
    assert lab.deletes() >= 3, "a ledger that hangs does not stop a DELETE"


async def test_closing_hangs_too() -> None:
    """A ledger whose aclose() hangs is left behind within the second."""
    ledger = HangingLedger()
    lab = Lab()
    async with lab.open(grace=2, ledger=ledger) as supervisor:
        await supervisor.start("m")
        ledger.hang_on_close = True
        began = current_time()
    assert current_time() - began <= 1


async def test_creates_in_flight() -> None:
    """Creates under way at a shutdown are waited for, and what they made is deleted."""
    lab = Lab()
    async with lab.open() as supervisor, create_task_group() as group:
        gate = lab.fake.gate("create", answer=True)

        async def use() -> None:
            with pytest.raises(SupervisorShutdown):
                await supervisor.start("m")

        for _ in range(100):
            group.start_soon(use)
        await lab.fake.until(lambda: len(lab.fake.live) == 64)
        group.start_soon(supervisor.shutdown)
        await sleep(3)
        gate.open()
    assert lab.fake.count("create") == 64, "those that waited for a worker were withdrawn"
    assert lab.deletes() == 64
    assert lab.finished == {("cancelled", "shutdown"): 100}


async def test_a_create_that_outlasts_the_budget() -> None:
    """A create that is not answered in time is named, by its intent, for it may exist."""
    lab = Lab()
    async with lab.open(left=1, grace=2) as supervisor, create_task_group() as group:
        lab.fake.gate("create", answer=True)

        async def use() -> None:
            with pytest.raises(SupervisorShutdown):
                await supervisor.start("m")

        group.start_soon(use)
        await lab.fake.until(lambda: len(lab.fake.live) == 1)
        report = await supervisor.shutdown()
    (row,) = report.unconfirmed
    assert (row.id, row.reason) == (None, "shutdown")
    assert row.intent_id == next(iter(lab.fake.tasks.values())).env["SIGMIC_GUARD_INTENT"]


async def test_shut_down_twice() -> None:
    """A second shutdown() waits for the first and gets the same report."""
    lab = Lab()
    reports = []
    async with lab.open() as supervisor, create_task_group() as group:

        async def shut() -> None:
            reports.append(await supervisor.shutdown())

        gate = lab.fake.gate("delete")
        await supervisor.start("m")
        group.start_soon(shut)
        await gate.entered.wait()
        group.start_soon(shut)
        await wait_all_tasks_blocked()
        gate.open()
    reports.append(await supervisor.shutdown())
    assert reports[0] is reports[1] is reports[2]
    assert (reports[0].cancelled, reports[0].clean) == (1, True)
    assert lab.deletes() == 1


async def test_a_shorter_grace_counts() -> None:
    """shutdown() again with a shorter grace cuts the first one short; a longer one does not."""
    lab = Lab()
    lab.fake.always("delete", HANG)
    async with lab.open(left=1) as supervisor, create_task_group() as group:
        await supervisor.start("m")
        group.start_soon(supervisor.shutdown, 60)
        await sleep(5)
        group.start_soon(supervisor.shutdown, 100)
        await sleep(5)
        report = await supervisor.shutdown(1)
    assert 11 <= report.seconds < 11.5
    assert 11 <= report.grace < 11.5


async def test_the_block_s_end_is_the_shutdown() -> None:
    """Leaving the supervisor's block drains within its grace."""
    lab = Lab()
    lab.fake.always("delete", HANG)
    async with lab.open(left=1, grace=3) as supervisor:
        await supervisor.start("m")
        began = current_time()
    assert 3 <= current_time() - began <= 4
    assert lab.fake.count("delete") >= 1
    with pytest.raises(SupervisorShutdown):
        await supervisor.start("m")


async def test_grace_that_makes_no_sense() -> None:
    """A grace that is no number of seconds is refused, and nothing is shut down."""
    lab = Lab()
    senseless: list[Any] = [-1, float("nan"), float("inf"), "8", True]
    async with lab.open() as supervisor:
        for grace in senseless:
            with pytest.raises(ConfigurationError):
                await supervisor.shutdown(grace)
        assert (await supervisor.start("m")).state is State.RUNNING


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
        await wait_all_tasks_blocked()
        report = await supervisor.shutdown(grace=0)
        assert not [row for row in report.unconfirmed if row.state is State.INTENT]
        assert report.never_created == 995
    assert len(lab.fake.created) == 5
