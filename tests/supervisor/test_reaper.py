"""The tasks of dead owners are ended, and nobody else's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after, move_on_after, sleep

from sigmic_guard import (
    CancelReason,
    ProtocolError,
    ReapResult,
    SigmicGuardError,
    State,
    ValidationError,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.lifecycle.states import NAMELESS, TO_BE_ENDED
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import Process, left_by_the_dead, reaped
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, Lab
from tests.supervisor.orphanage import AGO, Lines, left, orphans, result_of, row, seconds, write

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


# --- what comes of an orphan: its metric, its line, its seconds -----------------------------------


async def test_a_dead_owners_task_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """A task that runs without an owner is ended at start-up, and it is told."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    task_id = await left(lab, store)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
        [found] = report.reaped
        assert (found.id, found.result) == (task_id, ReapResult.CANCELLED)
        assert report.clean
        assert lab.fake.live == set()
        assert lab.finished == {("cancelled", CancelReason.ORPHAN): 1}
        assert store.rows == {}
        assert orphans(lab) == (0, 0)
    assert reaped(lab) == {"cancelled": 1}
    assert seconds(lab) == pytest.approx(AGO, abs=3)
    assert (lab.deletes(), lab.cancellations) == (1, {"confirmed": 1})
    [line] = lines.of("orphan.reaped")
    assert (line["task_id"], line["result"], line["reason"]) == (task_id, "cancelled", "orphan")
    assert float(line["seconds"]) == pytest.approx(AGO, abs=3)
    assert [line["task_id"] for line in lines.of("task.taken_over")] == [task_id]


@virtual
@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
async def test_an_orphan_that_had_ended_cost_until_then(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its seconds are those up to its end, not those until somebody looked; nothing is sent."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    record = row(lab, created_at=time.time())
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await sleep(20)
        getattr(lab.fake, end)(record.remote_id)
        await sleep(1000)
        await write(store, record)
        assert await result_of(supervisor) is ReapResult.ALREADY_FINISHED
    assert reaped(lab) == {"already_finished": 1}
    assert seconds(lab) == pytest.approx(20, abs=3)
    assert lab.deletes() == 0
    [line] = lines.of("orphan.reaped")
    assert (line["result"], line["task_id"]) == ("already_finished", record.remote_id)


async def test_an_orphan_that_nobody_knows_is_not_found(caplog: pytest.LogCaptureFixture) -> None:
    """404 to the GET is no proof by itself: the DELETE's is what counts."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    long_ago = time.time() - 2 * 3600
    await left(lab, store, remote_id="00000000-0000-4000-8000-00000000dead", created_at=long_ago)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.NOT_FOUND
    assert reaped(lab) == {"not_found": 1}
    assert (lab.deletes(), lab.cancellations) == (1, {"not_found": 1})
    assert [line["result"] for line in lines.of("orphan.reaped")] == ["not_found"]


@virtual
@pytest.mark.parametrize("state", sorted(NAMELESS))
async def test_an_orphan_that_does_not_exist_was_never_created(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    """Two whole lists without its mark, past the create's time-out; it cost nothing."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    await left(lab, store, remote_id=None, state=state)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.NEVER_CREATED
    assert reaped(lab) == {"never_created": 1}
    assert seconds(lab) == 0
    assert lab.fake.count("list") >= 2
    assert (lab.deletes(), lab.fake.count("create")) == (0, 0)
    assert [line["result"] for line in lines.of("orphan.reaped")] == ["never_created"]


@pytest.mark.parametrize("state", sorted(NAMELESS))
async def test_an_orphan_without_a_name_is_found_by_its_mark(state: State) -> None:
    """The POST had gone out, and the list gives the mark back."""
    lab, store = Lab(), MemoryStore()
    task_id = lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1")
    others = {lab.fake.add("m"), lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-2")}
    await left(lab, store, remote_id=None, state=state)
    async with lab.open(ledger=MemoryLedger(store), left=2) as supervisor:
        assert await result_of(supervisor) is ReapResult.CANCELLED
    assert lab.fake.tasks[task_id].status == "cancelled"
    assert lab.fake.live == others


async def test_an_abandoned_orphan_runs_on(caplog: pytest.LogCaptureFixture) -> None:
    """It is let go, and said to be."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    await left(lab, store, on_crash="abandon")
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        assert await result_of(supervisor) is ReapResult.RELEASED
        assert store.rows == {}
    assert (reaped(lab), lab.deletes()) == ({"released": 1}, 0)
    assert lab.finished == {("detached", "none"): 1}
    assert [line["result"] for line in lines.of("orphan.reaped")] == ["released"]


async def test_an_orphan_whose_key_is_asked_for_is_reattached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It counts as one until then, and the sum still holds when an intent becomes that task."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    task_id = await left(lab, store, key="k", on_crash="reattach")
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
            assert [found.why for found in report.left] == ["wait"]
            assert orphans(lab)[0] == 1
            task = await supervisor.start("m", key="k", on_crash="reattach")
        assert task.id == task_id
        await supervisor.reap()
        assert orphans(lab) == (0, 0)
    assert reaped(lab) == {"reattached": 1}
    assert seconds(lab) == pytest.approx(AGO, abs=3)
    [line] = lines.of("orphan.reaped")
    assert (line["result"], line["task_id"]) == ("reattached", task_id)
    assert len(lines.of("task.taken_over")) == 1
    assert lines.of("orphan.left") == []


# --- what had completed, and may have been asked again --------------------------------------------


@pytest.mark.parametrize("terms", [{}, {"key": "k"}, {"reason": CancelReason.SCOPE}])
async def test_a_follow_up_that_was_not_written_down_is_ended(terms: dict[str, Any]) -> None:
    """The row says completed, and its owner died with a follow-up under way: the task runs."""
    lab, store = Lab(), MemoryStore()
    asked_at = 1.0 if "reason" in terms else None
    await left(lab, store, state=State.COMPLETED, cancel_requested_at=asked_at, **terms)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.CANCELLED
        assert store.rows == {}
    assert lab.finished == {("cancelled", terms.get("reason", CancelReason.ORPHAN)): 1}


async def test_a_completed_orphan_is_looked_at_and_left_as_it_is() -> None:
    """Where no follow-up went out it costs one GET."""
    lab, store = Lab(), MemoryStore()
    task_id = await left(lab, store, state=State.COMPLETED)
    lab.fake.complete(task_id)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.ALREADY_FINISHED
        assert store.rows == {}
    assert (lab.fake.count("get"), lab.deletes()) == (1, 0)
    assert lab.finished == {("completed", "none"): 1}


async def test_an_owner_that_dies_in_a_follow_up_leaves_nothing_running() -> None:
    """From end to end: the message had its effect, the row did not say so."""
    lab, store = Lab(), MemoryStore()
    async with Process(lab, store) as dead, create_task_group() as group:

        async def ask_again() -> None:
            with suppress(SigmicGuardError):
                await task.send("again")

        async with dead.supervisor.task("m") as task:
            lab.fake.complete(task.id)
            with fail_after(60):
                await task.result()
            await dead.flush()
            dead.ledger.die()  # what comes now is never written
            gate = dead.client.hold("send", answer=True)
            group.start_soon(ask_again)
            await gate.entered.wait()
            assert lab.fake.live == {task.id}
            await dead.die(flush=False)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.CANCELLED


async def test_a_completed_orphan_is_delivered_to_who_asks_for_its_key() -> None:
    """The result that its owner could not deliver any more is not lost."""
    lab, store = Lab(), MemoryStore()
    terms: dict[str, Any] = {"key": "k", "on_crash": "reattach"}
    task_id = await left(lab, store, state=State.COMPLETED, **terms)
    lab.fake.complete(task_id, "42")
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            result = await supervisor.run("m", **terms)
    assert (result.id, result.final_response) == (task_id, "42")
    assert (lab.fake.count("create"), lab.deletes()) == (0, 0)
    assert reaped(lab) == {"reattached": 1}


async def test_a_completed_orphan_that_may_run_on_does() -> None:
    """``abandon`` holds for its follow-up as well."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store, state=State.COMPLETED, on_crash="abandon")
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        assert await result_of(supervisor) is ReapResult.RELEASED


# --- what was to be ended already -----------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(TO_BE_ENDED))
@pytest.mark.parametrize("reason", [CancelReason.USER, CancelReason.DEADLINE])
@pytest.mark.parametrize("on_crash", ["cancel", "reattach", "abandon"])
async def test_a_decision_to_cancel_outlives_its_owner(
    state: State, reason: CancelReason, on_crash: str
) -> None:
    """For its first cause, whatever should become of the task after a crash; asked for anew."""
    lab, store = Lab(), MemoryStore()
    more: dict[str, Any] = {"reason": reason, "cancel_requested_at": 1.0, "attempts": 3}
    await left(lab, store, state=state, key="k", on_crash=on_crash, **more)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.CANCELLED
        assert store.rows == {}
    outcome = "timed_out" if reason is CancelReason.DEADLINE else "cancelled"
    assert lab.finished == {(outcome, reason): 1}


async def test_a_remembered_cancel_outlives_its_owner() -> None:
    """It takes effect when the list has told the task's name."""
    lab, store = Lab(), MemoryStore()
    lab.fake.add("m", SIGMIC_GUARD_INTENT="intent-1")
    more: dict[str, Any] = {"reason": CancelReason.USER, "cancel_requested_at": 1.0}
    await left(lab, store, remote_id=None, state=State.CREATING, on_crash="abandon", **more)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.CANCELLED
    assert lab.finished == {("cancelled", CancelReason.USER): 1}


async def test_who_may_not_cancel_says_so_and_the_next_one_asks_again() -> None:
    """UNCONFIRMED after 403; the row stays an orphan, and a supervisor that may is obeyed."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    lab.fake.always("delete", FORBIDDEN)
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
        assert [found.why for found in report.left] == ["unconfirmed"]
        assert orphans(lab)[0] == 1
    assert reaped(lab) == {}
    [stored] = store.rows.values()
    assert (stored.state, stored.reason) == (State.UNCONFIRMED, CancelReason.ORPHAN)
    lab.fake.always("delete", None)
    heir = Lab()
    heir.fake = lab.fake
    async with heir.open(ledger=MemoryLedger(store)) as supervisor:
        assert await result_of(supervisor) is ReapResult.CANCELLED
    assert store.rows == {}


class Meeting(MemoryLedger):
    """A ledger in which two take-overs begin together, and are told of their success together."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.places = [Event() for _ in range(2)]
        self.arrived: Counter[int] = Counter()

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        if not any(record.orphaned_at is not None and expected == 1 for record, expected in writes):
            return await super().commit(writes)
        await self._meet(0)
        answer = await super().commit(writes)
        await self._meet(1)
        return answer

    async def _meet(self, place: int) -> None:
        self.arrived[place] += 1
        if self.arrived[place] == 2:
            self.places[place].set()
        with move_on_after(5):
            await self.places[place].wait()


async def test_a_round_and_a_claim_that_take_the_same_row() -> None:
    """Both are told that the row is as they wrote it; it is one task all the same, ended once."""
    lab, store = Lab(), MemoryStore()
    ledger = Meeting(store)
    async with lab.open(ledger=ledger) as supervisor:
        await supervisor.reap()  # no round comes by itself for a while
        task_id = await left(lab, store, key="k")
        with fail_after(30):
            async with create_task_group() as group:
                group.start_soon(supervisor.reap)
                task = await supervisor.start("again", key="k")
                await task.cancel()
    assert ledger.arrived == {0: 2, 1: 2}
    assert lab.fake.live == set()
    assert (lab.fake.count("get", task_id), lab.deletes(task_id)) == (
        2,
        1,
    )  # one look each, before and after
    assert reaped(lab) == {"cancelled": 1}


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
