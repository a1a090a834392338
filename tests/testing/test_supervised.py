"""A supervisor that may be left in another task than it was entered in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import prometheus_client
import pytest

from sigmic_guard import ConfigurationError, LedgerError, Supervisor, SupervisorShutdown
from sigmic_guard.ledger import MemoryLedger
from sigmic_guard.testing import FakeSigmic, supervised
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL)


async def test_it_is_open_inside_and_closed_after() -> None:
    """What is left running is ended."""
    fake = FakeSigmic()
    async with supervised(client=fake) as supervisor:
        await supervisor.start("x")
        assert len(fake.live) == 1
    assert not fake.live
    assert "closed" in repr(supervisor)
    assert (await supervisor.shutdown()).clean


async def test_the_options_are_the_supervisors() -> None:
    """They go before the defaults."""
    registry, ledger = prometheus_client.CollectorRegistry(), MemoryLedger()
    async with supervised(client=FakeSigmic(), registry=registry, ledger=ledger) as supervisor:
        await supervisor.start("x")
        assert registry.get_sample_value("sigmic_guard_tasks_started_total") == 1
        assert ledger.store.owners
    with pytest.raises(ConfigurationError, match="grace"):
        async with supervised(client=FakeSigmic(), grace=-1):
            pass


async def test_the_bodys_error_goes_on() -> None:
    """And the tasks are ended."""
    fake = FakeSigmic()
    with pytest.raises(ZeroDivisionError):
        async with supervised(client=fake) as supervisor:
            await supervisor.start("x")
            _ = 1 / 0
    assert not fake.live


async def test_what_cannot_be_entered_raises(tmp_path: Path) -> None:
    """The ledger's own error, out of the block's beginning."""
    with pytest.raises(LedgerError):
        async with supervised(client=FakeSigmic(), ledger=tmp_path):
            pytest.fail("it was entered")


async def test_a_cancelled_caller_leaves_nothing_running() -> None:
    """The scope is cancelled in the body; the shutdown is waited for all the same."""
    fake = FakeSigmic()
    with anyio.CancelScope() as scope:
        async with supervised(client=fake) as supervisor:
            await supervisor.start("x")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not fake.live
    assert "closed" in repr(supervisor)


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_a_native_cancel_waits_for_the_shutdown() -> None:
    """The caller's task is cancelled while it drains, and ends when the tasks have."""
    fake = FakeSigmic()
    gate = fake.gate("delete")

    async def caller() -> None:
        async with supervised(client=fake) as supervisor:
            await supervisor.start("x")

    task = asyncio.create_task(caller())
    await gate.entered.wait()
    task.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not fake.live


async def test_a_cancel_while_it_opens() -> None:
    """A ledger that hangs is given up, and the body does not begin."""

    class Hanging(MemoryLedger):
        async def open(self, owner_id: str) -> None:
            scope.cancel()
            await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with supervised(client=FakeSigmic(), ledger=Hanging()):
            pytest.fail("it was entered")
    assert scope.cancelled_caught


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_a_bug_that_takes_it_down_comes_out_at_the_end() -> None:
    """The body is not cancelled, and its tasks have ended by then."""
    fake = FakeSigmic()
    with pytest.raises(ZeroDivisionError):
        async with supervised(client=fake) as supervisor:
            await supervisor.start("x")
            supervisor._session._crashed("a worker", ZeroDivisionError())
            await fake.until(lambda: not fake.live)
            await supervisor.shutdown()


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_it_is_left_in_another_task() -> None:
    """As a fixture of pytest-asyncio is. So may a plain supervisor, once the other task is gone."""
    for make in supervised, Supervisor:
        fake = FakeSigmic()
        registry = prometheus_client.CollectorRegistry()
        manager = make(client=fake, ledger="memory:", registry=registry)
        supervisor = await asyncio.create_task(manager.__aenter__())
        await supervisor.start("x")
        await asyncio.create_task(manager.__aexit__(None, None, None))
        assert not fake.live


async def test_a_shutdown_from_inside_is_no_error() -> None:
    """The body goes on; a block of it ends as ever."""
    async with supervised(client=FakeSigmic()) as supervisor:
        with pytest.raises(SupervisorShutdown):
            async with supervisor.task("x"):
                supervisor.request_shutdown()
                await anyio.sleep_forever()
        assert (await supervisor.shutdown()).clean
