"""What a supervisor leaves unproven, and a later one of the same process sees to: counted once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anyio import fail_after, sleep

from sigmic_guard import Outcome, ServerError, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.face.draining import Drain
from sigmic_guard.testing import LOST
from tests.backends import TRIO_VIRTUAL
from tests.observe.sums import add_up
from tests.supervisor.deaths import reaped
from tests.supervisor.lab import UNAUTHORISED, UNAVAILABLE, Lab
from tests.supervisor.orphanage import beside, core_of

if TYPE_CHECKING:
    from sigmic_guard import Supervisor

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)


class Bug(Exception):
    """Nobody expects it."""


async def reap(lab: Lab, store: MemoryStore, *, seconds: float = 0.0, left: int = 0) -> None:
    """Have a later supervisor see to what is left; ``left`` remote tasks may run on."""
    async with lab.open(ledger=MemoryLedger(store), left=left) as supervisor:
        with fail_after(600):
            await supervisor.reap()
        await sleep(seconds)


async def leave_one(lab: Lab, store: MemoryStore, fault: Exception = UNAVAILABLE) -> None:
    """Leave a task that no DELETE could end."""
    lab.fake.always("delete", fault)
    async with lab.open(ledger=MemoryLedger(store), grace=0.5, left=1) as supervisor:
        await supervisor.start("m")
    assert lab.live == {"unconfirmed": 1}
    lab.fake.always("delete", None)


@pytest.mark.parametrize("fault", [UNAVAILABLE, UNAUTHORISED], ids=["503", "401"])
async def test_the_unconfirmed(fault: Exception) -> None:
    """The gauge goes down when the task is reaped, and the task was started once."""
    lab, store = Lab(), MemoryStore()
    await leave_one(lab, store, fault)
    await reap(lab, store)
    assert add_up(lab.registry) == (1, 0, 1, 0)
    assert lab.finished == {("cancelled", "shutdown"): 1}


async def test_one_after_the_other() -> None:
    """However many supervisors leave it behind, it is one task."""
    lab, store = Lab(), MemoryStore()
    await leave_one(lab, store)
    lab.fake.always("delete", UNAVAILABLE)
    for _ in range(3):
        async with lab.open(ledger=MemoryLedger(store), grace=0.5, left=1):
            await sleep(1)
        assert lab.live == {"unconfirmed": 1}
    lab.fake.always("delete", None)
    await reap(lab, store)
    assert add_up(lab.registry) == (1, 0, 1, 0)


async def test_the_unknown() -> None:
    """A create whose answer was lost, with a list that fails, is found by a later one."""
    lab, store = Lab(), MemoryStore()
    lab.fake.on("create", LOST)
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(ledger=MemoryLedger(store), grace=0.5, left=1, create_timeout=1) as early:
        with pytest.raises(Exception, match="lost"):
            await early.start("m")
    assert lab.live == {"unknown": 1}
    lab.fake.always("list", None)
    await reap(lab, store)
    assert add_up(lab.registry) == (1, 0, 1, 0)


async def leave_all(lab: Lab, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave three tasks in as many states, by a drain that has a bug."""

    async def mark(*_: Any) -> None:
        raise Bug

    with monkeypatch.context() as patch:
        patch.setattr(Drain, "_mark", mark)
        with pytest.raises(Bug):
            await _fill(lab, store)


async def _fill(lab: Lab, store: MemoryStore) -> None:
    async with lab.make(ledger=MemoryLedger(store), create_timeout=0.5) as supervisor:
        await supervisor.start("running", key="k", on_crash="reattach")
        await _cancelling(lab, supervisor)
        async with supervisor.task("completed") as task:
            lab.fake.complete(task.id)
            await task.wait()
            raise Bug


async def _cancelling(lab: Lab, supervisor: Supervisor) -> None:
    task = await supervisor.start("cancelling", cancel_wait=0)
    lab.fake.on("delete", ServerError("busy", code="BUSY", status=503, retry_after=60))
    await task.cancel()
    await lab.fake.until(lambda: lab.deletes() == 1 and not lab.fake.in_flight("delete"))


async def test_what_an_aborted_drain_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever state it was in, it is counted once, and ends in the books as in the world."""
    lab, store = Lab(), MemoryStore()
    await leave_all(lab, store, monkeypatch)
    assert lab.live == {"running": 1, "cancelling": 1}
    add_up(lab.registry)
    await reap(lab, store, seconds=400)
    assert lab.live == {}
    assert add_up(lab.registry) == (3, 0, 3, 0)


async def test_who_asks_for_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is found by its key goes on under the new record; the old one is let go."""
    lab, store = Lab(), MemoryStore()
    await leave_all(lab, store, monkeypatch)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("running", key="k", on_crash="reattach")
        assert task.state is State.RUNNING
        await supervisor.reap()
        assert lab.live == {"running": 1}
        add_up(lab.registry)
        lab.fake.complete(task.id)
        assert (await task.wait()).outcome is Outcome.COMPLETED
    assert lab.fake.count("create") == 3
    assert lab.live == {}
    assert lab.finished["detached", "none"] == 1


async def test_a_late_answer_changes_nothing() -> None:
    """When a supervisor is closed its tasks are somebody else's: what it hears is not counted."""
    lab, store = Lab(), MemoryStore()
    lab.fake.always("delete", UNAVAILABLE)
    async with lab.open(ledger=MemoryLedger(store), left=0) as early:
        task = await early.start("m")
        await early.shutdown(0.5)
        lab.fake.always("delete", None)
        lab.fake.reopen()
        await reap(lab, store)
        assert lab.live == {}
        task.request_cancel()
        await sleep(1)
        assert task.state is State.UNCONFIRMED
    assert add_up(lab.registry) == (1, 0, 1, 0)


async def test_a_bug_in_the_drain_makes_no_owner_that_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process goes on, the supervisor is gone: what it leaves is an orphan for the next one."""

    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    lab, store = Lab(), MemoryStore()
    supervisor = lab.make(ledger=MemoryLedger(store))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="a bug"):
        async with supervisor:
            await supervisor.start("m")
            await core_of(supervisor).outbox.flush()
            patch.setattr(Drain, "_want_ended", bug)
    assert (len(lab.fake.live), len(store.rows), store.owners) == (1, 1, set())
    heir = beside(lab)
    async with heir.open(ledger=MemoryLedger(store)) as another:
        with fail_after(20):
            await another.reap()
    assert reaped(heir) == {"cancelled": 1}
