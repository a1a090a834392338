"""The tasks of dead owners are ended, and nobody else's."""

from __future__ import annotations

import pytest
from anyio import fail_after

from sigmic_guard import CancelReason, ReapResult, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Write
from sigmic_guard.testing.records import make_record
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def left_behind(lab: Lab, store: MemoryStore, **fields: object) -> str:
    """Write the row of a dead owner's task into the store; return the remote id."""
    task_id = lab.fake.add()
    record = make_record(
        remote_id=task_id,
        owner_id="dead",
        base_url=lab.fake.base_url,
        credential_fingerprint=lab.fake.credential_fingerprint,
        **({"state": State.RUNNING} | fields),
    )
    ledger = MemoryLedger(store)
    await ledger.open("writer")
    assert await ledger.commit([Write(record, 0)]) == [None]
    await ledger.aclose()
    return task_id


async def test_a_dead_owners_task_is_cancelled() -> None:
    """A task that runs without an owner is ended at start-up, and it is told."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_behind(lab, store)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
        [row] = report.reaped
        assert (row.id, row.result) == (task_id, ReapResult.CANCELLED)
        assert report.clean
        assert lab.fake.live == set()
        assert lab.finished == {("cancelled", CancelReason.ORPHAN): 1}
        assert store.rows == {}
