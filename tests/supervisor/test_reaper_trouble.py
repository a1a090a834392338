"""When a reaper looks around, and what it does about whatever it cannot reach: another try."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from anyio import Lock, create_task_group, current_time, fail_after, sleep, sleep_forever
from anyio.abc import TaskGroup, TaskStatus

from sigmic_guard import ConnectionFailed, DuplicateKey, LedgerError, State
from sigmic_guard.ledger import CorruptRows, MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.supervisor.recovery import reaper
from sigmic_guard.testing.fake_faults import HANG, Gate
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import left_by_the_dead, reaped
from tests.supervisor.lab import UNAVAILABLE, Lab, too_many
from tests.supervisor.orphanage import (
    AGO,
    CALLS,
    FaultyLedger,
    Lines,
    Scribbled,
    core_of,
    left,
    orphans,
    row,
    write,
)

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

LONGEST = 1.5 * reaper.ROUND_SECONDS


# --- rounds -----------------------------------------------------------------------------------


@virtual
async def test_rounds_begin_at_once_and_come_again_and_again() -> None:
    """Nobody has to ask: what is left behind at any time is ended before the next round is over."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    async with lab.open(ledger=MemoryLedger(store)):
        with fail_after(5):
            await lab.fake.until(lambda: not lab.fake.live)
        for _ in range(5):
            await left_by_the_dead(lab, store, on_crash="cancel")
            with fail_after(LONGEST + 5):
                await lab.fake.until(lambda: not lab.fake.live)
            await sleep(7)
    assert reaped(lab) == {"cancelled": 6}


@virtual
async def test_rounds_are_jittered() -> None:
    """So that the processes of a machine do not all come in the same instant."""

    class Watched(MemoryLedger):
        async def owners(self, namespace: str | None = None) -> Any:
            times.append(current_time())
            return await super().owners(namespace)

    lab, times = Lab(), list[float]()
    async with lab.open(ledger=Watched()):
        await sleep(40 * reaper.ROUND_SECONDS)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] < 1
    assert len(gaps) > 20
    assert min(gaps) >= 0.5 * reaper.ROUND_SECONDS
    assert max(gaps) <= LONGEST
    assert len({round(gap, 3) for gap in gaps}) > 10


@virtual
async def test_a_row_that_waits_for_its_key_is_reaped_when_its_time_is_over() -> None:
    """``reattach_within`` is a bound, counted from when the owner's death was seen."""
    lab, store = Lab(), MemoryStore()
    terms: dict[str, Any] = {"key": "k", "on_crash": "reattach"}
    await left(lab, store, reattach_within=100, **terms)
    async with lab.open(ledger=MemoryLedger(store)):
        await sleep(95)
        assert (orphans(lab)[0], lab.fake.requests) == (1, [])
        await sleep(LONGEST + 10)
        assert orphans(lab) == (0, 0)
        assert store.rows == {}
    assert reaped(lab) == {"cancelled": 1}


@virtual
async def test_the_age_of_an_orphan_is_told_as_soon_as_it_is_taken_over() -> None:
    """Not only from the next round on: an API that is down begins to be seen at once."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    gate = lab.fake.gate("get")
    async with lab.open(ledger=MemoryLedger(store)):
        with fail_after(5):
            await gate.entered.wait()
        count, age = orphans(lab)
        assert count == 1
        assert age == pytest.approx(AGO, abs=3)
        gate.open()


# --- what is out of reach -----------------------------------------------------------------------


@virtual
@pytest.mark.parametrize(
    "trouble",
    [
        UNAVAILABLE,
        ConnectionFailed("reset", sent=True),
        ConnectionFailed("no route", sent=False),
        too_many(20),
        HANG,
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["get", "delete", "both"])
async def test_an_api_that_is_out_of_reach_leads_to_another_try(method: str, trouble: Any) -> None:
    """For as long as it takes; nothing is concluded meanwhile, and then all is ended."""
    lab, store = Lab(), MemoryStore()
    await write(store, *(row(lab, f"intent-{number}") for number in range(5)))
    methods = ["get", "delete"] if method == "both" else [method]
    for one in methods:
        lab.fake.always(one, trouble)
    async with lab.open(ledger=MemoryLedger(store)):
        await sleep(300)
        assert (len(lab.fake.live), orphans(lab)[0], len(store.rows)) == (5, 5, 5)
        assert reaped(lab) == {}
        assert all(lab.fake.count(one) < 5 * 300 for one in methods)
        for one in methods:
            lab.fake.always(one, None)
        with fail_after(40):
            await lab.fake.until(lambda: not lab.fake.live)
        await sleep(60)
        assert store.rows == {}
        assert orphans(lab) == (0, 0)
    assert reaped(lab) == {"cancelled": 5}


@virtual
async def test_an_api_that_says_when_to_come_back_is_obeyed() -> None:
    """``Retry-After`` holds for the look at an orphan as for its DELETE."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    lab.fake.on("get", too_many(20))
    lab.fake.on("delete", too_many(20))
    async with lab.open(ledger=MemoryLedger(store)):
        await sleep(19)
        assert (lab.fake.count("get"), lab.deletes()) == (1, 0)
        await sleep(20)
        assert (lab.fake.count("get"), lab.deletes()) == (2, 1)
        with fail_after(10):
            await lab.fake.until(lambda: not lab.fake.live)


@virtual
async def test_a_list_that_is_out_of_reach_leads_to_another_try() -> None:
    """An orphan without a name is not called absent because nobody could look for it."""
    lab, store = Lab(), MemoryStore()
    lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1")
    await left(lab, store, remote_id=None, state=State.CREATING)
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(ledger=MemoryLedger(store)):
        await sleep(300)
        assert (len(lab.fake.live), reaped(lab)) == (1, {})
        lab.fake.always("list", None)
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
    assert reaped(lab) == {"cancelled": 1}


@virtual
@pytest.mark.parametrize("method", [call for call in CALLS if call != "get"])
async def test_a_ledger_that_fails_leads_to_another_try(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever call it is: who asked is told, a running task goes on, and later all is ended."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    ledger = FaultyLedger(store)
    async with lab.open(ledger=ledger) as supervisor:
        mine = await supervisor.start("m")
        await core_of(supervisor).outbox.flush()
        others = [row(lab, f"intent-{number}") for number in range(3)]
        await write(store, *others)
        ledger.failing = {method}
        with pytest.raises(LedgerError, match="on fire"):
            await supervisor.reap()
        await sleep(200)
        assert ledger.failures >= 3
        assert len(lines.of("ledger.failed")) >= 3
        assert mine.state is State.RUNNING
        assert lab.deletes(mine) == 0
        if method != "absent":  # all is done by then
            assert not any(lab.fake.count("get", other.remote_id) for other in others)
            assert reaped(lab) == {}
        ledger.failing = ()
        with fail_after(LONGEST + 5):
            await lab.fake.until(lambda: lab.deletes() == 3)
        await sleep(5)
        assert reaped(lab) == {"cancelled": 3}
        assert mine.state is State.RUNNING


# --- what it costs the ledger -------------------------------------------------------------------


async def test_take_overs_are_counted_among_the_ledgers_transactions() -> None:
    """One transaction for all of them, timed like any other."""
    lab, store = Lab(), MemoryStore()
    await write(store, *(row(lab, f"intent-{number}") for number in range(50)))
    gate = lab.fake.gate("get")
    async with lab.open(ledger=MemoryLedger(store)):
        with fail_after(20):
            await gate.entered.wait()
        for name, expected in {"count": 1, "sum": 50}.items():
            found = lab.registry.get_sample_value(f"sigmic_guard_ledger_batch_size_{name}")
            assert found == expected
        gate.open()


# --- corrupt rows -----------------------------------------------------------------------------


async def test_a_corrupt_row_hinders_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """What a newer version wrote is left alone and named, once; its neighbours are reaped."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    for number in range(3):
        await left(lab, store, intent_id=f"good-{number}")
    await left(lab, store, intent_id="bad", remote_id="x")
    async with lab.open(ledger=Scribbled(store)) as supervisor:
        for _ in range(2):
            with fail_after(60):
                report = await supervisor.reap()
            assert list(report.corrupt) == ["bad"]
            assert not report.left
            assert not report.clean
        assert not lab.fake.live
        assert len(lines.of("ledger.failed")) == 1
        assert "sleeping" in caplog.text
    assert lab.deletes() == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"state": State.FAILED},
        {"state": State.DETACHED},
        {"state": State.CANCELLING, "remote_id": None},
    ],
    ids=["failed", "detached", "no id"],
)
async def test_a_row_that_contradicts_itself_is_left_alone(fields: dict[str, Any]) -> None:
    """A row that no step can have made takes nobody down, and is named."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store, intent_id="bad", **{"remote_id": "x", **fields})
    await left(lab, store, intent_id="good")
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
        assert [row.intent_id for row in report.reaped] == ["good"]
        assert list(report.corrupt) == ["bad"]
    assert lab.deletes() == 1
    assert store.rows["bad"].version == 1


async def test_a_key_that_a_contradictory_row_holds() -> None:
    """Nobody gets it, and whoever asks is told why."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store, intent_id="bad", key="k", state=State.FAILED, remote_id="x")
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60), pytest.raises(CorruptRows, match=r"'bad'.*failed, and not finished"):
            await supervisor.start("hello", key="k")
    assert lab.fake.count("create") == 0


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
