"""Where somebody else may want a task its row says that it is to end before the DELETE goes out.

If its process died with the DELETE on its way, and a row that says nothing of it, somebody could
ask for the key and get a task that this DELETE ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from anyio import current_time, fail_after, sleep, wait_all_tasks_blocked

from sigmic_guard import CancelReason, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.supervisor.work import canceller
from sigmic_guard.testing.fake_faults import Gate
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab
from tests.supervisor.ledgers import HangingLedger
from tests.supervisor.orphanage import core_of, row, write

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

KEPT: dict[str, Any] = {"key": "k", "on_crash": "reattach"}


class Gated(MemoryLedger):
    """Holds what says that a task is to end."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.gate = Gate()

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        if any(write.record.reason is not None for write in writes):
            await self.gate.hold()
        return await super().commit(writes)


async def cancel_while_the_ledger_is_slow(**options: Any) -> bool:
    """Cancel a task; tell whether its DELETE waited for the row."""
    lab, ledger = Lab(), Gated(MemoryStore())
    async with lab.open(ledger=ledger) as supervisor:
        task = await supervisor.start("m", **options)
        await core_of(supervisor).outbox.flush()
        task.request_cancel()
        with fail_after(10):
            await ledger.gate.entered.wait()
        await wait_all_tasks_blocked()
        waited = not lab.deletes()
        assert {found.reason for found in ledger.store.rows.values()} == {None}
        ledger.gate.open()
        with fail_after(10):
            await task.wait()
        assert lab.deletes() == 1
    return waited


async def test_a_task_that_is_kept_for_its_key() -> None:
    """Whoever asks for the key of a dead owner's task reads that it is to end."""
    assert await cancel_while_the_ledger_is_slow(**KEPT)


@pytest.mark.parametrize("options", [{}, {"key": "k"}, {"on_crash": "reattach"}])
async def test_a_task_that_nobody_else_can_want(options: dict[str, Any]) -> None:
    """Its DELETE waits for no disk."""
    assert not await cancel_while_the_ledger_is_slow(**options)


async def test_a_dead_owners_task() -> None:
    """Its row says that it is to end, and for whom, before the DELETE goes out."""
    lab, ledger = Lab(), Gated(MemoryStore())
    await write(ledger.store, row(lab))
    async with lab.open(ledger=ledger) as supervisor:
        with fail_after(10):
            await ledger.gate.entered.wait()
        await wait_all_tasks_blocked()
        assert not lab.deletes()
        ledger.gate.open()
        with fail_after(10):
            await supervisor.reap()
        assert lab.deletes() == 1


async def test_who_sends_it_at_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the rule both DELETEs are under way before their rows."""
    monkeypatch.setattr(canceller, "may_be_wanted", lambda _: False)
    assert not await cancel_while_the_ledger_is_slow(**KEPT)
    with pytest.raises(AssertionError, match="deletes"):
        await test_a_dead_owners_task()


@virtual
async def test_a_ledger_that_hangs_holds_up_nobody_elses() -> None:
    """However many wait for their rows, a task that nobody else can want is ended at once."""
    lab, ledger = Lab(), HangingLedger()
    async with lab.make(ledger=ledger, max_cancels=4) as supervisor:
        kept = [
            await supervisor.start("m", key=f"k{number}", on_crash="reattach")
            for number in range(100)
        ]
        ordinary = await supervisor.start("m")
        await core_of(supervisor).outbox.flush()
        ledger.hang = True
        for task in (*kept, ordinary):
            task.request_cancel()
        with fail_after(1):
            await ordinary.wait()
        assert lab.deletes() == 1
        ledger.hang = False


@virtual
@pytest.mark.parametrize("grace", [None, 4.0], ids=["cancelled", "in a shutdown"])
async def test_a_ledger_that_hangs_does_not_stop_it_for_long(grace: float | None) -> None:
    """The promise comes first: after as long as a request may take, or a part of the budget."""
    lab, ledger = Lab(), HangingLedger()
    async with lab.make(ledger=ledger) as supervisor:
        task = await supervisor.start("m", **KEPT)
        await core_of(supervisor).outbox.flush()
        ledger.hang, began = True, current_time()
        if grace is None:
            task.request_cancel()
            await lab.fake.until(lambda: not lab.fake.live)
            assert current_time() - began <= canceller.REQUEST_TIMEOUT
            ledger.hang = False
            await sleep(0)
        else:
            report = await supervisor.shutdown(grace)
            assert report.cancelled == 1
            assert current_time() - began <= grace + 1
    assert task.state is State.CANCELLED
    assert task.reason is (CancelReason.USER if grace is None else CancelReason.SHUTDOWN)
