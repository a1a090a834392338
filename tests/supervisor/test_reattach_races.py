"""Claims that race, are hit, or come to nothing: one task has one owner, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from anyio import (
    CancelScope,
    create_task_group,
    current_time,
    fail_after,
    sleep,
    wait_all_tasks_blocked,
)

from sigmic_guard import (
    CancelReason,
    ConnectionFailed,
    DuplicateKey,
    LedgerError,
    State,
    Supervisor,
    SupervisorShutdown,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.lifecycle import Verdict
from sigmic_guard.supervisor.recovery.claims import Claim, Claims
from sigmic_guard.testing.fake_faults import Gate
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process, left_by_the_dead, reaped
from tests.supervisor.lab import UNAVAILABLE, Lab
from tests.supervisor.orphanage import core_of, seconds

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

MINE: Any = {"key": "k", "on_crash": "reattach"}
Happening = Callable[[], Awaitable[None]]


class Midway(MemoryLedger):
    """Lets something happen just before, or just after, a row is taken over."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        before: Happening | None = None,
        after: Happening | None = None,
    ) -> None:
        super().__init__(store)
        self.before, self.after = before, after

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        rows = self.store.rows
        claim = any(
            write.expected and rows[write.record.intent_id].owner_id != write.record.owner_id
            for write in writes
            if write.record.intent_id in rows
        )
        if claim and self.before is not None:
            await self.before()
        refusals = await super().commit(writes)
        if claim and self.after is not None:
            await self.after()
        return refusals


class Careless(MemoryLedger):
    """Writes whatever it is given, and compares nothing."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        for record, expected in writes:
            stored = self.store.rows.get(record.intent_id)
            if expected and stored is not None:
                await super().commit([Write(record, stored.version)])
            else:
                return await super().commit(writes)
        return [None] * len(writes)


# --- two at once ----------------------------------------------------------------------------------


async def who_got_it(ledger: Callable[[MemoryStore], MemoryLedger], heirs: int) -> list[str]:
    """Let processes ask for a dead one's task at once; return what each of them got."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    got: list[str] = []
    async with AsyncExitStack() as stack:
        everybody = [
            await stack.enter_async_context(lab.make(ledger=ledger(store))) for _ in range(heirs)
        ]
        meeting = Gate()  # all have read the row before the first one writes
        for supervisor in everybody:
            assert supervisor._core is not None
            claims = supervisor._core.claims
            judge = claims._reaper.judge

            async def judge_together(orphan: Any, judge: Any = judge) -> Any:
                verdict = await judge(orphan)
                if meeting.waiting == heirs - 1:
                    meeting.open()
                await meeting.hold()
                return verdict

            claims._reaper.judge = judge_together  # type: ignore[method-assign]

        async def ask(supervisor: Supervisor) -> None:
            try:
                got.append((await supervisor.start("m", **MINE)).id)
            except DuplicateKey:
                got.append("duplicate")

        with fail_after(30):
            async with create_task_group() as group:
                for supervisor in everybody:
                    group.start_soon(ask, supervisor)
    assert set(got) <= {task_id, "duplicate"}
    assert lab.fake.count("create") == 1
    return sorted(got)


@pytest.mark.parametrize("heirs", [2, 5])
async def test_exactly_one_gets_it(heirs: int) -> None:
    """Of all processes that ask at once one gets the task, and the others are refused."""
    got = await who_got_it(MemoryLedger, heirs)
    assert got.count("duplicate") == heirs - 1


async def test_without_comparing_both_would() -> None:
    """Negative control: were rows not compared before they are written, two would have one task."""
    assert "duplicate" not in await who_got_it(Careless, 2)


async def test_a_claim_that_creates_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: were the key taken for free, there would be a second create."""

    async def find_holder(self: Claims, claim: Claim) -> bool:
        store = self._ledger.store  # type: ignore[attr-defined]
        store.keys.clear()
        return True

    monkeypatch.setattr(Claims, "find_holder", find_holder)
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        assert (await supervisor.start("m", **MINE)).id != task_id
    assert lab.fake.count("create") == 2


async def test_two_callers_of_one_process() -> None:
    """In one process the first who asks gets the task, and the second is refused."""
    lab, store = Lab(), MemoryStore()
    await left_by_the_dead(lab, store)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor, create_task_group() as group:
        group.start_soon(lambda: supervisor.start("m", **MINE))
        await wait_all_tasks_blocked()
        with pytest.raises(DuplicateKey):
            await supervisor.start("m", **MINE)
    assert lab.fake.count("create") == 1


async def test_it_is_reaped_at_the_same_moment() -> None:
    """Where another process's reaper is quicker the claim waits for the end, and creates."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    async with Process(lab, store) as other:

        async def be_slow() -> None:
            ledger.before, core = None, core_of(other.supervisor)
            orphan = (await core.reaper.request()).left[0][0]
            await core.reaper.take_over([(orphan, Verdict.REAP)])

        ledger = Midway(store, before=be_slow)
        async with lab.open(ledger=ledger) as supervisor:
            with fail_after(30):
                task = await supervisor.start("m", **MINE)
            assert task.id != task_id
            assert lab.fake.live == {task.id}


@virtual
@pytest.mark.parametrize("ends", [True, False])
async def test_another_process_is_ending_it(ends: bool) -> None:
    """Who asks for the key meanwhile waits for that; for a bounded time, if it has no end."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    lab.fake.on("delete", *[UNAVAILABLE] * (3 if ends else 1000))
    async with Process(lab, store, grace=0) as other:
        core = core_of(other.supervisor)
        orphan = (await core.reaper.request()).left[0][0]
        await core.reaper.take_over([(orphan, Verdict.REAP)])
        await lab.fake.until(lambda: lab.fake.count("delete"))
        await other.flush()
        async with lab.open(ledger=MemoryLedger(store), left=not ends) as supervisor:
            began = current_time()
            if ends:
                task = await supervisor.start("m", **MINE)
                assert task.id != task_id
            else:
                with pytest.raises(DuplicateKey, match="being ended"):
                    await supervisor.start("m", **MINE)
            assert current_time() - began < 60
        if not ends:
            lab.fake.complete(task_id)


# --- nobody wants it any more ---------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_withdrawn_by_a_scope(moment: str) -> None:
    """A caller who is cancelled while his claim is written leaves a task that is ended."""
    lab, store, gate = Lab(), MemoryStore(), Gate()
    task_id = await left_by_the_dead(lab, store)
    happening: Any = {moment: gate.hold}
    async with lab.open(ledger=Midway(store, **happening)) as supervisor:
        with fail_after(30):
            async with create_task_group() as group:
                scope = CancelScope()

                async def start() -> None:
                    with scope:
                        await supervisor.start("m", **MINE)

                group.start_soon(start)
                await gate.entered.wait()
                scope.cancel()
                await wait_all_tasks_blocked()
                gate.open()
            await lab.fake.until(lambda: not lab.fake.live)
            # The key is free at once, and stands for another task.
            assert (await supervisor.start("m", **MINE)).id != task_id
    assert lab.deletes(task_id) == 1
    assert lab.finished == {("cancelled", "orphan"): 1, ("cancelled", "scope"): 1} | {
        ("cancelled", "shutdown"): 1
    }
    assert not store.rows


@virtual
@pytest.mark.parametrize("in_doubt", [False, True])
async def test_withdrawn_it_costs_what_it_would_have(*, in_doubt: bool) -> None:
    """The time of a task whose claim came to nothing counts from its owner's death, as any does."""
    lab, store, gate = Lab(), MemoryStore(), Gate()
    await left_by_the_dead(lab, store)
    await sleep(100)

    async def hold() -> None:
        await gate.hold()
        if in_doubt:
            raise LedgerError("the answer was lost")

    async with lab.open(ledger=Midway(store, after=hold)) as supervisor:
        async with create_task_group() as group:
            scope = CancelScope()

            async def start() -> None:
                with scope:
                    await supervisor.start("m", **MINE)

            group.start_soon(start)
            await gate.entered.wait()
            scope.cancel()
            await wait_all_tasks_blocked()
            gate.open()
        await lab.fake.until(lambda: not lab.fake.live)
        await supervisor.reap()
    assert reaped(lab) == {"cancelled": 1}
    assert seconds(lab) > 99
    assert not store.rows


@pytest.mark.backends(ASYNCIO)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("how", ["start", "task"])
async def test_withdrawn_natively(moment: str, how: str) -> None:
    """The same by a native ``Task.cancel()``."""
    lab, store, gate = Lab(), MemoryStore(), Gate()
    task_id = await left_by_the_dead(lab, store)
    happening: Any = {moment: gate.hold}

    async def ask(supervisor: Supervisor) -> None:
        if how == "start":
            await supervisor.start("m", **MINE)
        async with supervisor.task("m", **MINE):
            raise AssertionError

    async with lab.open(ledger=Midway(store, **happening)) as supervisor:
        asking = asyncio.create_task(ask(supervisor))
        await gate.entered.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        gate.open()
        with fail_after(30):
            await lab.fake.until(lambda: not lab.fake.live)
    assert lab.deletes(task_id) == 1
    assert not store.rows


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_withdrawn_by_a_shutdown(moment: str) -> None:
    """A claim that a shutdown overtakes leaves the task, and its key, to the next process."""
    lab, store, gate = Lab(), MemoryStore(), Gate()
    task_id = await left_by_the_dead(lab, store)
    happening: Any = {moment: gate.hold}
    async with lab.make(ledger=Midway(store, **happening)) as supervisor:
        with fail_after(30):
            async with create_task_group() as group:

                async def start() -> None:
                    with pytest.raises(SupervisorShutdown):
                        await supervisor.start("m", **MINE)

                group.start_soon(start)
                await gate.entered.wait()
                report = await supervisor.shutdown()
    assert report.never_created == 1
    assert lab.fake.live == {task_id}
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert (await supervisor.start("m", **MINE)).id == task_id
    assert lab.fake.count("create") == 1


# --- what is hit, and what fails ------------------------------------------------------------------


@pytest.mark.backends(ASYNCIO)
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_commit_is_hit(moment: str) -> None:
    """A native cancellation of the worker in the claim's commit loses neither task nor key."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)

    async def be_hit() -> None:
        ledger.before = ledger.after = None
        worker = asyncio.current_task()
        assert worker is not None
        worker.cancel()
        await sleep(0)

    happening: Any = {moment: be_hit}
    ledger = Midway(store, **happening)
    async with lab.open(ledger=ledger) as supervisor:
        with pytest.raises(ConnectionFailed, match="interrupted") as caught:
            await supervisor.start("m", **MINE)
        assert not caught.value.sent
        with fail_after(10):
            task = await supervisor.start("m", **MINE)
        # Where it was written it is an orphan of ours, and is ended before the next is created.
        assert (task.id == task_id) == (moment == "before")
        assert lab.fake.live == {task.id}


@pytest.mark.parametrize("where", ["holder", "owner_alive", "last_seen", "commit"])
async def test_the_ledger_fails(where: str) -> None:
    """The caller is told of a ledger that fails in the middle; the key still leads to the task."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    ledger = Midway(store)
    async with lab.open(ledger=ledger) as supervisor:
        await supervisor.reap()

        async def fail(*_: object) -> None:
            raise LedgerError("the disk is on fire")

        if where == "commit":
            ledger.before = lambda: fail()
        else:
            setattr(ledger, where, fail)
        with fail_after(30), pytest.raises(LedgerError, match="on fire"):
            await supervisor.start("m", **MINE)
        assert lab.fake.live == {task_id}
        ledger.before = None
        vars(ledger).pop(where, None)
        assert (await supervisor.start("m", **MINE)).id == task_id
    assert lab.finished == {("failed", "none"): 1, ("cancelled", "shutdown"): 1}
    assert lab.fake.count("create") == 1


# --- the books ------------------------------------------------------------------------------------


async def test_the_books() -> None:
    """A task that is claimed is started once and finished once, and its orphan is told."""
    lab, store = Lab(), MemoryStore()
    await left_by_the_dead(lab, store)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        assert lab.registry.get_sample_value("sigmic_guard_orphans") == 1
        task = await supervisor.start("m", **MINE)
        assert lab.registry.get_sample_value("sigmic_guard_orphans") == 0
        assert lab.live == {"running": 1}
        assert not lab.finished
        assert reaped(lab) == {"reattached": 1}
        await task.cancel()
        assert (task.state, task.reason) == (State.CANCELLED, CancelReason.USER)
        await supervisor.reap()
        assert reaped(lab) == {"reattached": 1}
    assert lab.finished == {("cancelled", "user"): 1}
