"""The crash-survival core as an adversary sees it: what slips between its checks and its acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from anyio import Lock, create_task_group, fail_after, sleep, sleep_forever
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from sigmic_guard import (
    DuplicateKey,
    LedgerError,
    ProtocolError,
    SigmicGuardError,
    State,
    TaskNotFound,
    ValidationError,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.observe import Logs, ObservedEvent, OrphanLeft
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.supervisor.face.draining import Drain
from sigmic_guard.supervisor.ground import timer
from sigmic_guard.testing.fake_faults import Gate
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import MortalClient, left_by_the_dead, reaped
from tests.supervisor.lab import UNAUTHORISED, Lab
from tests.supervisor.orphanage import Scribbled, core_of, left, row, write

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


def beside(lab: Lab) -> Lab:
    """Another process's lab, over the same remote system."""
    other = Lab()
    other.fake = lab.fake
    return other


# --- never a task that a live owner wants -------------------------------------------------------


@pytest.mark.parametrize("illegible", [False, True], ids=["", "beside an illegible row"])
async def test_a_shutdown_spares_what_was_adopted_since_it_was_taken_over(illegible: bool) -> None:
    """An orphan at which nobody could look yet is let go if it is somebody's by now."""
    lab, store = Lab(), MemoryStore()
    blind = MortalClient(lab.fake)
    gate = blind.hold("get")
    async with beside(lab).open(ledger=MemoryLedger(store)) as owner:
        await owner.reap()
        task_id = await left(lab, store)
        if illegible:
            await left(lab, store, intent_id="bad", namespace="other", remote_id="x")
        async with beside(lab).make(ledger=Scribbled(store), client=blind) as heir:
            with fail_after(10):
                await gate.entered.wait()
            task = await owner.adopt(task_id)
            await core_of(owner).outbox.flush()
            assert heir.snapshot()
        gate.open()
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)
        store.rows.pop("bad", None)
        assert [found.owner_id for found in store.rows.values()] == [core_of(owner).ground.owner_id]
    assert lab.deletes() == 1
    assert not lab.fake.live


@virtual
async def test_a_task_that_was_adopted_here_is_spared_before_the_ledger_knows() -> None:
    """A ledger that fails to write it down makes it no orphan: its own process knows better."""

    class Selective(MemoryLedger):
        fails = True

        async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
            if self.fails and any(write.record.orphaned_at is None for write in writes):
                raise LedgerError("the disk is full, for a moment")
            return await super().commit(writes)

    lab, store = Lab(), MemoryStore()
    ledger = Selective(store)
    async with lab.open(ledger=ledger) as supervisor:
        await sleep(1)
        task_id = await left(lab, store)
        task = await supervisor.adopt(task_id)
        with fail_after(20):
            await core_of(supervisor).reaper.reap()
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)
        assert reaped(lab) == {"released": 1}
        assert supervisor.tasks[task_id] is task
        ledger.fails = False


@virtual
async def test_an_orphan_that_is_not_found_is_spared_as_well_if_somebody_has_adopted_it() -> None:
    """What reads may lag behind what writes: a 404 tells nothing of whose the task is."""

    class Lagging(MortalClient):
        async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
            raise TaskNotFound("not yet", code="NOT_FOUND", status=404)

    lab, store = Lab(), MemoryStore()
    task_id = lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1")
    async with beside(lab).open(ledger=MemoryLedger(store)) as owner:
        task = await owner.adopt(task_id)
        await core_of(owner).outbox.flush()
        await left(lab, store, remote_id=None, state=State.CREATING)
        heir = beside(lab)
        async with heir.make(ledger=MemoryLedger(store), client=Lagging(lab.fake)):
            await sleep(100)
        assert (task.state, lab.deletes()) == (State.RUNNING, 0)
        assert reaped(heir) == {"released": 1}


@virtual
async def test_a_claim_spares_its_task_from_another_row_of_it() -> None:
    """Who asks for the key has the task, whatever a second dead owner's row of it says."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        gate = lab.fake.gate("get")
        await write(store, row(lab, "second", remote_id=task_id, owner_id="dead too"))
        found = core_of(supervisor).reaper
        await found.request()
        with fail_after(10):
            await gate.entered.wait()
        task = await supervisor.start("m", key="k", on_crash="reattach")
        gate.open()
        with fail_after(60):
            await supervisor.reap()
        assert (task.id, task.state, lab.deletes()) == (task_id, State.RUNNING, 0)
        assert supervisor.tasks[task_id] is task
        assert reaped(lab) == {"reattached": 1, "released": 1}


# --- no row that nobody sees to -----------------------------------------------------------------


@virtual
async def test_a_take_over_that_is_done_although_the_ledger_failed_is_seen_to() -> None:
    """A ledger may fail after it has written: a row that is ours by then is not left alone."""

    class FailsAfterwards(MemoryLedger):
        failures = 1

        async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
            refusals = await super().commit(writes)
            if self.failures:
                self.failures -= 1
                raise LedgerError("the disk failed")
            return refusals

    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    async with lab.open(ledger=FailsAfterwards(store)):
        with fail_after(100):
            await lab.fake.until(lambda: not lab.fake.live)
        await sleep(10)
        assert store.rows == {}
    assert reaped(lab) == {"cancelled": 1}


@virtual
async def test_a_take_over_that_is_done_late_is_seen_to() -> None:
    """A claim gave up on its commit, which is under way all the same while a round looks."""

    class Late(MemoryLedger):
        """Writes one after the other, as by a thread: who is cancelled leaves his call behind."""

        group: TaskGroup
        commits: Gate | None = None
        upkeeps: Gate | None = None

        def __init__(self, store: MemoryStore) -> None:
            super().__init__(store)
            self.busy = Lock()

        async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
            if self.commits is None or not writes[0].expected:
                return await super().commit(writes)
            await self.group.start(self._commit_late, writes)
            await sleep_forever()
            raise AssertionError

        async def _commit_late(
            self, writes: Sequence[Write], *, task_status: TaskStatus[None]
        ) -> None:
            async with self.busy:
                task_status.started()
                if self.commits is not None:
                    await self.commits.hold()
                await super().commit(writes)

        async def upkeep(self, now: float) -> None:
            async with self.busy:
                await super().upkeep(now)
            if self.upkeeps is not None:
                await self.upkeeps.hold()

    lab, store = Lab(), MemoryStore()
    ledger = Late(store)
    terms: dict[str, Any] = {"key": "k", "on_crash": "reattach", "reattach_within": 1e6}
    await left(lab, store, **terms)
    async with create_task_group() as ledger.group, lab.open(ledger=ledger) as supervisor:
        await supervisor.reap()
        ledger.commits, ledger.upkeeps = commits, upkeeps = Gate(), Gate()
        ledger.group.start_soon(core_of(supervisor).reaper.request)
        with fail_after(5):
            await upkeeps.entered.wait()
        with pytest.raises(DuplicateKey):
            await supervisor.start("m", **terms)
        assert commits.waiting == 1
        ledger.commits = ledger.upkeeps = None
        upkeeps.open()
        await sleep(1)
        commits.open()
        with fail_after(200):
            await lab.fake.until(lambda: not lab.fake.live)


@virtual
@pytest.mark.parametrize(
    "trouble",
    [
        ProtocolError("that is no JSON"),
        ValidationError("no such id", code="VALIDATION_ERROR", status=400),
    ],
    ids=["garbage", "400"],
)
async def test_an_orphan_of_which_the_api_never_tells_is_ended_all_the_same(
    trouble: SigmicGuardError,
) -> None:
    """An answer that makes no sense again and again is not to keep a task alive for ever."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    lab.fake.always("get", trouble)
    async with lab.open(ledger=MemoryLedger(store)):
        with fail_after(300):
            await lab.fake.until(lambda: not lab.fake.live)
        assert lab.fake.count("get") > 3
        lab.fake.always("get", None)


async def test_one_handle_on_a_memory_ledger_is_opened_once() -> None:
    """As with any other: two supervisors that share a handle would be dead for each other."""
    ledger = MemoryLedger()
    await ledger.open("one")
    with pytest.raises(LedgerError, match="open already"):
        await ledger.open("two")
    assert await ledger.owner_alive("one")
    await ledger.aclose()
    await ledger.open("two")
    assert not await ledger.owner_alive("one")
    await ledger.aclose()


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


async def test_a_body_s_own_error_hides_no_bug_however_long_the_exit_takes() -> None:
    """It is told in the context of the other, not only where the workers are still about to go."""

    class Slow(MemoryLedger):
        async def aclose(self) -> None:
            await sleep(0.05)
            await super().aclose()

    class Bug(Exception):
        pass

    lab = Lab()
    with pytest.raises(Bug) as caught:
        async with lab.make(ledger=Slow()) as supervisor:
            lab.fake.on("list", Bug("once"))
            await supervisor.start("m")
            try:
                await sleep_forever()
            finally:
                raise ZeroDivisionError
    assert isinstance(caught.value.__context__, ZeroDivisionError)


# --- many ---------------------------------------------------------------------------------------


async def test_telling_of_many_that_are_left_alone_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand rows of another credential are as many lines in the log, and not in one go."""
    lab, store = Lab(), MemoryStore()
    told, longest, now = 0, 0, 0

    def note(_: Logs, event: ObservedEvent) -> None:
        nonlocal told, longest, now
        if not isinstance(event, OrphanLeft):
            return
        told, now = told + 1, now + 1
        longest = max(longest, now)

    monkeypatch.setattr(Logs, "observe", note)
    monkeypatch.setattr(timer, "perf_counter", lambda: told * 1e-4)  # what a line takes
    others = {"credential_fingerprint": "other", "remote_id": "x"}
    await write(store, *(row(lab, f"intent-{number}", **others) for number in range(10_000)))

    async def take_turns() -> None:
        nonlocal now
        while True:
            await checkpoint()
            now = 0

    async with lab.open(ledger=MemoryLedger(store)) as supervisor, create_task_group() as group:
        group.start_soon(take_turns)
        with fail_after(60):
            report = await supervisor.reap()
        group.cancel_scope.cancel()
    assert (len(report.left), told) == (10_000, 10_000)
    assert longest <= 50  # 5 ms of them


async def test_a_refusal_that_passes_strands_no_orphan() -> None:
    """A DELETE that was refused for good is sent again by a later round: the key may be back."""
    lab, store = Lab(), MemoryStore()
    task_id = await left_by_the_dead(lab, store, key=None, on_crash="cancel")
    lab.fake.on("delete", UNAUTHORISED)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(600):
            await supervisor.reap()
            assert lab.fake.live == {task_id}
            await supervisor.reap()
            await lab.fake.until(lambda: not lab.fake.live)
