"""``on_shutdown="reattach"``: an orderly deploy hands a keyed task over to the next process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after, sleep
from anyio.lowlevel import checkpoint

from sigmic_guard import (
    CancelReason,
    DuplicateKey,
    Outcome,
    SigmicGuardError,
    State,
    Supervisor,
    SupervisorShutdown,
    TaskPolicy,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, SqliteLedger, Write
from sigmic_guard.testing import LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.observe.sums import add_up
from tests.supervisor.deaths import Process, reaped
from tests.supervisor.lab import UNAVAILABLE, Lab
from tests.supervisor.orphanage import core_of, orphans, seconds

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

MINE: Any = {"key": "k", "on_shutdown": "reattach"}


async def deployed(lab: Lab, store: MemoryStore, **options: Any) -> str:
    """Have a process create a task and leave in good order; return the task's id."""
    terms: dict[str, Any] = MINE | options
    async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("m", **terms)
    assert task.outcome is Outcome.DETACHED
    return task.id or ""


def row_of(store: MemoryStore) -> tuple[State, str | None, float | None]:
    [row] = store.rows.values()
    return row.state, row.key, row.finished_at


# --- the process that leaves ----------------------------------------------------------------------


async def test_for_the_one_that_leaves_it_is_over() -> None:
    """It is counted as detached, no DELETE goes out, and in the ledger the key stays taken."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
        await supervisor.start("m", **MINE)
        report = await supervisor.shutdown()
        assert (report.detached, report.clean, report.unwritten) == (1, True, 0)
        assert not supervisor.tasks
        assert add_up(lab.registry) == (1, 0, 1, 0)
    assert row_of(store) == (State.HANDED_OVER, "k", None)
    assert lab.finished == {("detached", "none"): 1}
    assert lab.deletes() == 0


@pytest.mark.parametrize("how", ["task", "run", "result", "events"])
async def test_whoever_waits_learns_of_the_shutdown(how: str) -> None:
    """A block's body, ``run``, ``result`` and readers of events get ``SupervisorShutdown``."""
    lab, store = Lab(), MemoryStore()

    async def ask() -> None:
        with pytest.raises(SupervisorShutdown, match="handed_over"):
            match how:
                case "task":
                    async with supervisor.task("m", **MINE):
                        await sleep(3600)
                case "run":
                    await supervisor.run("m", **MINE)
                case "result":
                    await (await supervisor.start("m", **MINE)).result()
                case _:
                    async with supervisor.task("m", **MINE) as task:
                        async for _ in task.events():
                            pass
                        await task.result()

    async with (
        lab.open(left=1, ledger=MemoryLedger(store)) as supervisor,
        create_task_group() as group,
    ):
        group.start_soon(ask)
        while not lab.fake.count("create") or supervisor.snapshot()[0].state != "running":
            await sleep(0.01)
        supervisor.request_shutdown()
    assert row_of(store)[0] is State.HANDED_OVER
    assert lab.deletes() == 0


async def test_without_a_key_it_is_cancelled() -> None:
    """Nobody could ask for it."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("m", on_shutdown="reattach")
    assert (task.outcome, task.reason) == (Outcome.CANCELLED, CancelReason.SHUTDOWN)
    assert not store.rows


async def test_a_task_that_is_to_end_is_not_handed_over() -> None:
    """A decision to cancel is never taken back."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("m", **MINE)
        task.request_cancel()
    assert task.reason is CancelReason.USER
    assert not store.keys


async def test_a_completed_task_is_over() -> None:
    """What had completed is closed, and its key is free."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with pytest.raises(SupervisorShutdown):
            async with supervisor.task("m", **MINE) as task:
                lab.fake.complete(task.id)
                await task.result()
                supervisor.request_shutdown()
                await sleep(3600)
    assert task.outcome is Outcome.COMPLETED
    assert not store.keys


async def test_its_place_is_free() -> None:
    """A task that waits for a place is withdrawn at the shutdown, like any other."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(left=1, ledger=MemoryLedger(store), max_tasks=1) as supervisor:
        await supervisor.start("m", **MINE)
        async with create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(SupervisorShutdown):
                    await supervisor.run("second", key="other", on_shutdown="reattach")

            group.start_soon(wait)
            while len(supervisor.snapshot()) < 2:
                await checkpoint()
            supervisor.request_shutdown()
    assert lab.fake.count("create") == 1
    assert [key for _, key in store.keys] == ["k"]


class _SlowLedger(MemoryLedger):
    """Fails once it is told to, as a disk that is full."""

    fails = False

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        if self.fails:
            await sleep(3600)
        return await super().commit(writes)


@virtual
async def test_a_hand_over_that_is_not_written_is_told() -> None:
    """A row that still says ``running`` would be cancelled as a dead owner's."""
    lab, store = Lab(), MemoryStore()
    ledger = _SlowLedger(store)
    async with lab.open(left=1, ledger=ledger, grace=2) as supervisor:
        await supervisor.start("m", **MINE)
        ledger.fails = True
        report = await supervisor.shutdown()
    assert (report.detached, report.unwritten) == (1, 1)


@virtual
async def test_a_shutdown_in_a_hurry_writes_it() -> None:
    """With no budget at all the row says that it was handed over."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(left=1, ledger=MemoryLedger(store), grace=0) as supervisor:
        await supervisor.start("m", **MINE)
    assert row_of(store)[0] is State.HANDED_OVER


# --- the process that comes next ------------------------------------------------------------------


@pytest.mark.parametrize("on_crash", ["cancel", "reattach", "abandon"])
async def test_the_next_that_asks_has_it(on_crash: Any) -> None:
    """It has the same id and the result, and one create was sent; ``on_crash`` plays no part."""
    lab, store = Lab(), MemoryStore()
    task_id = await deployed(lab, store, on_crash=on_crash)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        task = await supervisor.start("m", **MINE)
        assert (task.id, task.state) == (task_id, State.RUNNING)
        add_up(lab.registry)
        lab.fake.complete(task_id, "42")
        assert (await task.result()).final_response == "42"
    assert lab.fake.count("create") == 1
    assert lab.finished == {("detached", "none"): 1, ("completed", "none"): 1}
    assert reaped(lab) == {"reattached": 1}
    assert lab.deletes() == 0
    assert not store.rows


async def test_it_completed_between_the_two() -> None:
    """Its result waits for whoever asks."""
    lab, store = Lab(), MemoryStore()
    task_id = await deployed(lab, store)
    lab.fake.complete(task_id, "42")
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        result = await supervisor.run("m", **MINE)
    assert (result.id, result.final_response) == (task_id, "42")
    assert lab.fake.count("create") == 1


async def test_through_any_number_of_deploys() -> None:
    """It stays one task."""
    lab, store = Lab(), MemoryStore()
    assert len({await deployed(lab, store) for _ in range(4)}) == 1
    assert add_up(lab.registry) == (4, 0, 4, 0)
    assert lab.fake.count("create") == 1


async def test_while_the_first_still_drains() -> None:
    """The owner has let go: who asks before it has left has the task at once."""
    lab, store = Lab(), MemoryStore()
    gate = lab.fake.gate("delete")
    async with lab.open(left=0, ledger=MemoryLedger(store), grace=60) as first:
        task = await first.start("m", **MINE)
        await first.start("keeps it busy")
        async with create_task_group() as group:
            group.start_soon(first.shutdown)
            while task.state is not State.HANDED_OVER:
                await checkpoint()
            async with lab.open(ledger=MemoryLedger(store)) as second:
                with fail_after(10):
                    heir = await second.start("m", **MINE)
                assert heir.id == task.id
                gate.open()
                lab.fake.complete(heir.id or "", "42")
                assert (await heir.wait()).outcome is Outcome.COMPLETED
                await first.shutdown()
    assert lab.deletes(heir) == 0
    assert lab.fake.count("create") == 2


@pytest.mark.backends(ASYNCIO)
async def test_while_the_first_still_drains_over_a_file(tmp_path: Path) -> None:
    """So it is where both share a SQLite file."""
    lab, path = Lab(), tmp_path / "ledger.db"
    gate = lab.fake.gate("delete")
    async with lab.open(ledger=SqliteLedger(path)) as first:
        task = await first.start("m", **MINE)
        await first.start("keeps it busy")
        async with create_task_group() as group:
            group.start_soon(first.shutdown)
            await lab.fake.until(lambda: lab.fake.in_flight("delete") > 0)  # the rows say so by now
            async with lab.open(left=2, ledger=SqliteLedger(path)) as second:
                with fail_after(10):
                    heir = await second.start("m", **MINE)
                assert heir.id == task.id
            async with lab.open(left=1, ledger=SqliteLedger(path)) as third:
                heir = await third.start("m", **MINE)
                lab.fake.complete(heir.id or "", "42")
                assert (await heir.result()).final_response == "42"
            gate.open()
    assert (heir.id, lab.deletes(heir)) == (task.id, 0)
    assert lab.fake.count("create") == 2


async def test_a_live_owners_key_is_taken_as_ever() -> None:
    """Before the deploy a second process gets ``DuplicateKey``."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(ledger=MemoryLedger(store)) as first:
        task = await first.start("m", **MINE)
        async with lab.make(ledger=MemoryLedger(store)) as second:
            with pytest.raises(DuplicateKey):
                await second.start("m", **MINE)
        await task.cancel()


@virtual
async def test_nobody_asks() -> None:
    """After ``reattach_within`` seconds it is ended, and counted again by the one that does it."""
    lab, store = Lab(), MemoryStore()
    await deployed(lab, store, reattach_within=60)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        [left] = (await supervisor.reap()).left
        assert (left.why, left.state) == ("wait", State.HANDED_OVER)
        await sleep(50)
        assert lab.deletes() == 0
        await sleep(30)
        assert lab.deletes() == 1
    assert lab.finished == {("detached", "none"): 1, ("cancelled", "orphan"): 1}
    assert add_up(lab.registry) == (2, 0, 2, 0)


@virtual
@pytest.mark.parametrize("claimed", [False, True])
async def test_what_a_deploy_costs(claimed: bool) -> None:
    """It is no orphan while its key can be asked for; from then on it is, and its time counts."""
    lab, store = Lab(), MemoryStore()
    await deployed(lab, store, reattach_within=60)
    await sleep(20)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        [left] = (await supervisor.reap()).left
        assert left.why == "wait"
        assert left.age == pytest.approx(20, abs=2)
        assert orphans(lab) == (0, 0)
        if claimed:
            await sleep(30)
            await (await supervisor.start("m", **MINE)).cancel()
            assert orphans(lab) == (0, 0)
        else:
            gate = lab.fake.gate("delete")
            await gate.entered.wait()
            await sleep(10)
            core_of(supervisor).triage.tally.count()
            assert orphans(lab) == pytest.approx((1, 10), abs=3)
            gate.open()
            [reaped] = (await supervisor.reap()).reaped
            assert reaped.age == pytest.approx(10, abs=4)
    assert seconds(lab) == pytest.approx(0 if claimed else 10, abs=0.1 if claimed else 4)


async def test_another_row_of_the_same_task() -> None:
    """What somebody adopted and handed over is not ended because its maker had died."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead:
        task_id = (await dead.supervisor.start("m")).id or ""
        await dead.flush()
        async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
            await supervisor.adopt(task_id, **MINE)
        await dead.die()
    async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
        report = await supervisor.reap()
        assert [row.result for row in report.reaped] == ["released"]
        assert [row.why for row in report.left] == ["wait"]
    assert lab.deletes() == 0
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("m", **MINE)
        assert task.id == task_id
        await task.cancel()


@virtual
async def test_a_deadline_holds() -> None:
    """What nobody asks for has no longer than the time-out that it was given."""
    lab, store = Lab(), MemoryStore()
    await deployed(lab, store, timeout=20)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        await sleep(40)
        assert lab.deletes() == 1


@virtual
async def test_the_next_process_dies() -> None:
    """A crash is judged by the terms of the one that crashed."""
    lab, store = Lab(), MemoryStore()
    task_id = await deployed(lab, store)
    async with Process(lab, store) as dead:
        assert (await dead.supervisor.start("m", **MINE)).id == task_id
        await dead.die()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        [row] = (await supervisor.reap()).reaped
        assert (row.id, row.result) == (task_id, "cancelled")


# --- the create was under way ---------------------------------------------------------------------


async def test_a_create_under_way() -> None:
    """It is handed over as soon as its id is known."""
    lab, store = Lab(), MemoryStore()
    gate = lab.fake.gate("create", answer=True)
    async with (
        lab.open(left=1, ledger=MemoryLedger(store)) as supervisor,
        create_task_group() as group,
    ):

        async def ask() -> None:
            with pytest.raises(SupervisorShutdown):
                async with supervisor.task("m", **MINE):
                    raise AssertionError

        group.start_soon(ask)
        await gate.entered.wait()
        supervisor.request_shutdown()
        await sleep(0.01)
        gate.open()
    assert row_of(store)[0] is State.HANDED_OVER
    assert lab.finished == {("detached", "none"): 1}


async def lose_one(lab: Lab, store: MemoryStore, **terms: Any) -> None:
    """Have a process leave while the answer of its create is lost, and the list cannot be read."""
    lab.fake.on("create", LOST)
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(left=1, ledger=MemoryLedger(store), grace=2) as supervisor:
        async with create_task_group() as group:

            async def ask() -> None:
                with pytest.raises(SupervisorShutdown):
                    await supervisor.run("m", **terms)

            group.start_soon(ask)
            while not any(row.state == "unknown" for row in supervisor.snapshot()):
                await sleep(0.01)
            report = await supervisor.shutdown()
        assert [row.state for row in report.unconfirmed] == [State.UNKNOWN]
    lab.fake.always("list", None)
    assert lab.deletes() == 0


@virtual
async def test_a_lost_create_is_left_for_its_key() -> None:
    """Whoever asks for the key has the task that the list shows, and sends no create."""
    lab, store = Lab(), MemoryStore()
    await lose_one(lab, store, **MINE)
    [task_id] = lab.fake.live
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        task = await supervisor.start("m", **MINE)
        assert task.id == task_id
        await task.cancel()
    assert lab.fake.count("create") == 1


@virtual
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_lost_create_that_is_detached_runs_on(key: str | None) -> None:
    """The next process finds it, lets it go, and the key is free."""
    lab, store = Lab(), MemoryStore()
    await lose_one(lab, store, key=key, on_shutdown="detach")
    async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
        with fail_after(600):
            [row] = (await supervisor.reap()).reaped
        assert row.result == "released"
    assert lab.deletes() == 0
    assert not store.keys


@virtual
async def test_a_process_that_dies_over_its_drain_has_left_word() -> None:
    """What was decided of a create under way is in its row before the drain goes on."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store, policy=TaskPolicy(on_shutdown="reattach"), grace=20) as dead:
        gate = dead.client.hold("create", answer=True)

        async def ask() -> None:
            with pytest.raises(SigmicGuardError):
                await dead.supervisor.run("m", key="k")

        async with create_task_group() as group:
            group.start_soon(ask)
            await gate.entered.wait()
            dead.supervisor.request_shutdown()
            await sleep(1)
            await dead.die()
    [row] = store.rows.values()
    assert (row.state, row.policy.on_crash) == (State.CREATING, "reattach")
    [task_id] = lab.fake.live
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.start("m", **MINE)
        assert task.id == task_id
        await task.cancel()


@virtual
async def test_a_claim_that_comes_too_late_is_handed_back() -> None:
    """A process that is told to leave while it takes the key leaves the task as it was."""
    lab, store = Lab(), MemoryStore()
    task_id = await deployed(lab, store)
    ledger = _SlowClaims(store)
    async with lab.open(left=1, ledger=ledger) as supervisor:

        async def ask(supervisor: Supervisor) -> None:
            with pytest.raises(SupervisorShutdown):
                await supervisor.run("m", **MINE)

        async with create_task_group() as group:
            group.start_soon(ask, supervisor)
            while not ledger.claims:
                await sleep(0.01)
            supervisor.request_shutdown()
    assert row_of(store)[0] is State.HANDED_OVER
    assert list(lab.fake.live) == [task_id]
    assert lab.deletes() == 0


class _SlowClaims(MemoryLedger):
    """Takes a while to say that a row is somebody else's by now."""

    claims = 0

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        refusals = await super().commit(writes)
        if any(write.record.state is State.RUNNING for write in writes):
            self.claims += 1
            await sleep(0.5)
        return refusals
