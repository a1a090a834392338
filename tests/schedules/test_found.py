"""What the schedules found, each by itself."""

from __future__ import annotations

import pytest
from anyio import create_task_group, fail_after, wait_all_tasks_blocked

from sigmic_guard import SigmicGuardError, Supervisor
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab
from tests.supervisor.ledgers import HangingLedger

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def test_reap_while_it_leaves() -> None:
    """Whoever waits for a reaper is let go by a shutdown, also where the ledger hangs."""
    lab, ledger, ended = Lab(), HangingLedger(), list[str]()

    async def start(supervisor: Supervisor) -> None:
        with pytest.raises(SigmicGuardError):
            await supervisor.start("its intent is never written")
        ended.append("start")

    async def reap(supervisor: Supervisor) -> None:
        await supervisor.reap()
        ended.append("reap")

    with fail_after(20):
        async with create_task_group() as group, lab.open(ledger=ledger, grace=0.2) as supervisor:
            ledger.hang = True
            group.start_soon(start, supervisor)
            await wait_all_tasks_blocked()
            group.start_soon(reap, supervisor)
            await wait_all_tasks_blocked()
            assert not ended
    assert sorted(ended) == ["reap", "start"]
