"""A reaper that is struck, or stopped, in the middle: it loses no row, and keeps no one waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_time,
    fail_after,
    move_on_after,
    sleep,
    wait_all_tasks_blocked,
)
from anyio.lowlevel import checkpoint

from sigmic_guard import (
    ConnectionFailed,
    LedgerError,
    ReapResult,
    SigmicGuardError,
    Supervisor,
    SupervisorShutdown,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.supervisor.face import draining
from sigmic_guard.supervisor.ground.entry import Entry
from sigmic_guard.supervisor.ground.timer import Slices
from sigmic_guard.supervisor.recovery import reaper
from sigmic_guard.supervisor.recovery.triage import Triage
from sigmic_guard.supervisor.work.caller_requests import MAX_REQUESTS
from sigmic_guard.testing.fake_faults import HANG, Gate
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.supervisor.deaths import reaped
from tests.supervisor.lab import Lab
from tests.supervisor.ledgers import HangingLedger
from tests.supervisor.orphanage import CALLS, StrikingLedger, core_of, left, orphans, row, write

virtual = pytest.mark.backends(TRIO_VIRTUAL)
native = pytest.mark.backends(ASYNCIO, UVLOOP)


# --- a worker that is struck --------------------------------------------------------------------


@native
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_reaper_that_is_struck_loses_no_row_and_counts_none_twice(late: bool) -> None:
    """A native cancellation in each call to the ledger, before or after it has its effect."""
    struck = []
    for at in range(40):
        lab, store = Lab(), MemoryStore()
        mine = [row(lab, f"intent-{number}", owner_id=f"dead-{number % 2}") for number in range(3)]
        theirs = row(lab, "theirs", credential_fingerprint="other", remote_id="x")
        await write(store, *mine, theirs)
        ledger = StrikingLedger(store, at=at, late=late)
        async with lab.open(ledger=ledger) as supervisor:
            with fail_after(20):
                report = await supervisor.reap()
            if ledger.struck is None:
                break
            assert len(report.left) == 1, (at, ledger.struck)
            assert {found.result for found in report.reaped} <= {ReapResult.CANCELLED}
            assert not lab.fake.live, (at, ledger.struck)
            with fail_after(20):
                await supervisor.reap()
            assert orphans(lab)[0] == 1, (at, ledger.struck)
        struck.append(ledger.struck)
        assert reaped(lab) == {"cancelled": 3}, (at, ledger.struck)
        assert [lab.deletes(one.remote_id) for one in mine] == [1, 1, 1]
        assert list(store.rows.values()) == [theirs]
    assert set(struck) >= set(CALLS) - {"get"}


@native
async def test_a_reaper_that_forgets_what_was_under_way_loses_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: without the rows in doubt a struck commit leaves tasks running."""
    monkeypatch.setattr(reaper.Reaper, "_clear_doubts", lambda *_: checkpoint())
    with pytest.raises(AssertionError, match="'commit'"):
        await test_a_reaper_that_is_struck_loses_no_row_and_counts_none_twice(late=True)


@native
async def test_whoever_looks_at_an_orphan_can_be_struck() -> None:
    """The GET is asked again by whoever comes next."""
    lab, store = Lab(), MemoryStore()

    async def strike(_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task.get_name() == "sigmic_guard triage"
        task.cancel()
        await checkpoint()

    lab.fake.on("get", *[strike] * 5)
    await write(store, *(row(lab, f"intent-{number}") for number in range(3)))
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(20):
            report = await supervisor.reap()
        assert [found.result for found in report.reaped] == [ReapResult.CANCELLED] * 3
    assert lab.fake.count("get") > 5


@native
async def test_a_doubt_that_the_ledger_does_not_resolve_at_once_stays_one() -> None:
    """The commit was struck and the ledger fails afterwards: the next rounds still ask."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)

    class Both(StrikingLedger):
        gets = 0

        async def _get(self, intent_id: str) -> Any:
            self.gets += 1
            if self.gets <= 3:
                raise LedgerError("the disk is on fire")
            return await MemoryLedger.get(self, intent_id)

        def __getattribute__(self, name: str) -> Any:
            return super().__getattribute__("_get" if name == "get" else name)

    ledger = Both(store, at=0, only="commit", late=True)
    async with lab.open(ledger=ledger) as supervisor:
        for _ in range(3):
            with fail_after(20), pytest.raises(LedgerError):
                await supervisor.reap()
        assert (ledger.struck, len(lab.fake.live)) == ("commit", 1)
        with fail_after(20):
            await supervisor.reap()
            await lab.fake.until(lambda: not lab.fake.live)
    assert reaped(lab) == {"cancelled": 1}


@native
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_who_claims_a_task_can_be_struck(late: bool) -> None:
    """The row is nobody's for a moment: it is not lost, but ended, or claimed by the next one."""
    lab, store = Lab(), MemoryStore()
    terms: dict[str, Any] = {"key": "k", "on_crash": "reattach"}
    task_id = await left(lab, store, **terms)
    ledger = StrikingLedger(store, at=0, late=late, only="commit", worker="claim")
    async with lab.open(ledger=ledger) as supervisor:
        await supervisor.reap()
        with fail_after(20), pytest.raises(ConnectionFailed, match="interrupted"):
            await supervisor.start("m", **terms)
        assert ledger.struck == "commit"
        with fail_after(20):
            await supervisor.reap()
            assert lab.fake.live == (set() if late else {task_id})
            task = await supervisor.start("m", **terms)
        assert (task.id == task_id) is not late
    assert reaped(lab) == ({"cancelled": 1} if late else {"reattached": 1})


# --- shutdown -----------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("method", ["get", "delete"])
async def test_a_shutdown_in_the_middle_keeps_its_budget_and_leaves_the_rest(method: str) -> None:
    """What could not be ended in time is named, stays in the ledger, and is the next one's."""
    lab, store = Lab(), MemoryStore()
    await write(store, *(row(lab, f"intent-{number}") for number in range(200)))
    lab.fake.always(method, HANG)
    async with lab.open(ledger=MemoryLedger(store), grace=2.0, left=200 * (method == "delete")) as (
        supervisor
    ):
        with fail_after(5):
            await lab.fake.until(lambda: lab.fake.in_flight(method))
            while len(core_of(supervisor).triage.tasks) < 200:
                await checkpoint()  # the round has to be over: what it has not begun is not named
        began = current_time()
        report = await supervisor.shutdown()
        assert current_time() - began <= 3
    # Without a GET there is no proof, though each DELETE was acknowledged; and DELETEs that hung
    # before the shutdown may take up all of its budget.
    assert (len(report.unconfirmed), len(store.rows)) == (200, 200)
    assert orphans(lab) == (0, 0)
    assert {found.reason for found in store.rows.values()} == {"orphan"}
    assert method == "delete" or all(lab.deletes(task_id) for task_id in lab.fake.created)
    lab.fake.always(method, None)
    heir = Lab()
    heir.fake = lab.fake
    async with heir.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            next_report = await supervisor.reap()
        assert len(next_report.reaped) == 200
    assert store.rows == {}


@virtual
async def test_a_shutdown_in_the_middle_of_taking_over_keeps_its_budget() -> None:
    """A ledger that hangs at the take-over delays nobody; the row's task is the next one's."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    ledger = HangingLedger()
    ledger.store = store
    ledger.hang = True
    async with lab.open(ledger=ledger, grace=2.0, left=1) as supervisor:
        with move_on_after(1):
            await supervisor.reap()
        began = current_time()
        await supervisor.shutdown()
        assert current_time() - began <= 3
    store.owners.clear()  # it is dead by now, whatever its ledger was able to say
    assert len(store.rows) == 1
    heir = Lab()
    heir.fake = lab.fake
    async with heir.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            assert len((await supervisor.reap()).reaped) == 1


@virtual
async def test_a_take_over_that_is_done_during_the_drain_is_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its row is left to the next one, as if we had died then; no other is taken any more."""
    monkeypatch.setattr(reaper, "MAX_ROWS", 1)
    gate = Gate()

    class Slow(MemoryLedger):
        async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
            await gate.hold()
            return await super().commit(writes)

    lab, store = Lab(), MemoryStore()
    await write(store, row(lab, "one"), row(lab, "two"))
    async with lab.open(ledger=Slow(store), grace=1.0, left=2) as supervisor:
        with fail_after(5):
            await gate.entered.wait()
        # The drain awaits something, so that the reaper can go on in the middle of it.
        monkeypatch.setattr(core_of(supervisor).outbox, "flush", lambda: sleep(0.2))
        async with create_task_group() as group:
            group.start_soon(supervisor.shutdown)
            await wait_all_tasks_blocked()
            gate.open()
    assert (lab.fake.requests, lab.live, reaped(lab)) == ([], {}, {})
    assert [found.version for found in store.rows.values()] == [2, 1]
    heir = Lab()
    heir.fake = lab.fake
    async with heir.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            assert len((await supervisor.reap()).reaped) == 2


@virtual
async def test_who_waits_for_the_reaper_is_told_of_the_shutdown() -> None:
    """Where the ledger never answers, and where the API does not."""
    for ledger, fault in ((HangingLedger(), None), (MemoryLedger(MemoryStore()), HANG)):
        lab = Lab()
        await left(lab, ledger.store)
        lab.fake.always("delete", fault)
        if isinstance(ledger, HangingLedger):
            ledger.hang = True
        told: list[object] = []

        async def wait(supervisor: Any, told: list[object] = told) -> None:
            try:
                told.append(await supervisor.reap())
            except SupervisorShutdown as error:
                told.append(error)

        async with create_task_group() as group:
            async with lab.open(ledger=ledger, grace=1.0, left=1) as supervisor:
                group.start_soon(wait, supervisor)
                await sleep(1)
                assert told == []
            with fail_after(5):
                while not told:
                    await checkpoint()
        with pytest.raises(SupervisorShutdown):
            await supervisor.reap()


@virtual
async def test_a_bug_in_the_drain_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for a round, or for an answer, is told that none comes, where all goes down."""
    lab, ledger, told = Lab(), HangingLedger(), list[BaseException]()

    async def fail(_: object) -> None:
        raise ZeroDivisionError

    async def wait(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except SigmicGuardError as error:
            told.append(error)

    monkeypatch.setattr(draining.Drain, "carry_out", fail)
    async with create_task_group() as group:
        with pytest.raises(ZeroDivisionError):
            async with lab.open(ledger=ledger, grace=1.0, left=2) as supervisor:
                task = await supervisor.start("m")
                await left(lab, ledger.store)
                ledger.hang = True
                lab.fake.always("get", HANG)
                group.start_soon(wait, supervisor.reap)
                for _ in range(2 * MAX_REQUESTS):
                    group.start_soon(wait, task.refresh)
                await sleep(1)
        with move_on_after(5):
            while len(told) <= 2 * MAX_REQUESTS:
                await sleep(0.1)
        group.cancel_scope.cancel()
    assert len(told) == 2 * MAX_REQUESTS + 1
    assert orphans(lab) == (0, 0)


@virtual
async def test_a_round_that_ends_after_the_close_counts_nothing() -> None:
    """The gauge of a supervisor that is gone stays at zero."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store, credential_fingerprint="other")

    class Slow(MemoryLedger):
        async def owners(self, namespace: str | None = None) -> Any:
            await sleep(0.9)  # beyond the reaper's close
            return await super().owners(namespace)

    async with lab.open(ledger=Slow(store), grace=1.0, left=1) as supervisor:
        await sleep(0.8)
        core_of(supervisor).reaper.close()
        await sleep(5)
        assert orphans(lab) == (0, 0)


@virtual
async def test_a_shutdown_between_taking_over_and_seeing_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is ours by now is ended by the shutdown, although nobody had begun with it."""
    lab, store, some = Lab(), MemoryStore(), Event()
    await write(store, *(row(lab, f"intent-{number}") for number in range(20)))
    joined = Triage.join

    def join(self: Triage, task: Entry) -> None:
        joined(self, task)
        if len(self.tasks) == 5:
            some.set()

    monkeypatch.setattr(Triage, "join", join)
    monkeypatch.setattr(Slices, "yield_if_due", lambda self: checkpoint())
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(20):
            await some.wait()
            assert len(core_of(supervisor).triage.tasks) < 20
            report = await supervisor.shutdown()
    assert (report.clean, report.cancelled, store.rows) == (True, 20, {})


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


@virtual
async def test_a_ledger_that_closes_under_a_round_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A round whose answer comes as the supervisor leaves may find the ledger closed."""
    reading, closed = Event(), Event()

    class Closing(MemoryLedger):
        async def absent(self, *args: Any) -> Any:
            reading.set()
            with CancelScope(shield=True):  # it goes on before it learns that it is dismissed
                await closed.wait()
            raise LedgerError("the ledger is not open")

        async def aclose(self) -> None:
            closed.set()
            await super().aclose()

    async with Lab().open(ledger=Closing(MemoryStore())):
        await reading.wait()
    assert closed.is_set()
    assert "ledger.failed" not in caplog.text
