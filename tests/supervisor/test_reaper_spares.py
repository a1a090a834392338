"""What a reaper leaves alone: the tasks of the living, and those that it has no right to."""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import pytest
from anyio import create_task_group, fail_after, sleep
from anyio.lowlevel import checkpoint

from sigmic_guard import CancelReason, ReapResult, State
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.lifecycle.states import ENDED, NAMELESS
from sigmic_guard.observe import Logs, ObservedEvent, OrphanLeft
from sigmic_guard.supervisor.ground import timer
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.deaths import reaped
from tests.supervisor.lab import Lab
from tests.supervisor.orphanage import (
    AGO,
    Lines,
    core_of,
    orphans,
    result_of,
    row,
    write,
)

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


@virtual
async def test_what_a_live_owner_has_is_never_touched() -> None:
    """Whatever its state, reason and policy say, round after round: no request, no write."""
    lab, store = Lab(), MemoryStore()
    owner = MemoryLedger(store)
    await owner.open("alive")
    rows = [
        row(
            lab,
            f"intent-{number}",
            owner_id="alive",
            state=state,
            on_crash=on_crash,
            reason=reason,
            key=f"key {number}",
            deadline_at=1.0,
            **({"remote_id": None} if state in NAMELESS else {}),
        )
        for number, (state, on_crash, reason) in enumerate(
            product(
                [state for state in State if state not in ENDED or state is State.COMPLETED],
                ["cancel", "reattach", "abandon"],
                [None, CancelReason.USER],
            )
        )
    ]
    await write(store, *rows)
    async with lab.open(ledger=MemoryLedger(store), left=len(lab.fake.live)) as supervisor:
        await sleep(200)
        report = await supervisor.reap()
        assert (report.reaped, report.left) == ([], [])
        assert orphans(lab) == (0, 0)
    assert list(store.rows.values()) == rows
    assert lab.fake.requests == []
    await owner.aclose()


@virtual
async def test_the_same_rows_are_all_seen_to_once_their_owner_is_dead() -> None:
    """Negative control: nothing but the owner's life kept the reaper away."""
    lab, store = Lab(), MemoryStore()
    rows = [row(lab, f"intent-{number}", owner_id="alive") for number in range(8)]
    await write(store, *rows)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        report = await supervisor.reap()
        assert len(report.reaped) == 8
    assert store.rows == {}


@virtual
@pytest.mark.parametrize(
    "other", [{"credential_fingerprint": "other"}, {"base_url": "https://other.test"}]
)
@pytest.mark.parametrize("state", [State.RUNNING, State.UNKNOWN, State.CANCELLING])
async def test_what_was_made_elsewhere_is_left_and_reported_once(
    other: dict[str, str], state: State, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a request for it, nor a write; its age grows where an operator sees it."""
    lab, store, lines = Lab(), MemoryStore(), Lines(caplog)
    fields: dict[str, Any] = {"state": state, **other}
    if state is State.UNKNOWN:
        fields["remote_id"] = None
    if state is State.CANCELLING:
        fields["reason"] = CancelReason.USER
    record = row(lab, **fields)
    await write(store, record)
    live = len(lab.fake.live)
    async with lab.open(ledger=MemoryLedger(store), left=live) as supervisor:
        first = await supervisor.reap()
        await sleep(300)
        last = await supervisor.reap()
        count, age = orphans(lab)
        assert count == 1
        assert age == pytest.approx(AGO + 300, abs=3)
    [why] = {found.why for found in (*first.left, *last.left)}
    assert why == ("other_system" if "base_url" in other else "other_credential")
    assert [found.age for found in last.left] == [pytest.approx(AGO + 300, abs=3)]
    [line] = lines.of("orphan.left")
    assert line["why"] == why
    assert lab.fake.requests == []
    assert list(store.rows.values()) == [record]
    assert reaped(lab) == {}
    assert orphans(lab) == (0, 0)  # a supervisor that closed knows of none


async def test_a_task_that_a_live_owner_adopted_is_let_go_by_the_dead_one() -> None:
    """Two rows of one task: the dead owner's is released, the live owner's task runs on."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(ledger=MemoryLedger(store)) as owner:
        task = await owner.adopt(lab.fake.add())
        await core_of(owner).outbox.flush()
        await write(store, row(lab, remote_id=task.id))
        other = Lab()
        other.fake = lab.fake
        async with other.open(ledger=MemoryLedger(store), left=1) as supervisor:
            assert await result_of(supervisor) is ReapResult.RELEASED
        assert task.state is State.RUNNING
        assert lab.deletes() == 0
        assert [found.owner_id for found in store.rows.values()] == [core_of(owner).ground.owner_id]


async def test_a_task_that_this_supervisor_adopted_is_let_go_by_the_dead_one() -> None:
    """The same where the live owner is the reaper: its own handle stays the task's."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        task = await supervisor.adopt(lab.fake.add())
        await core_of(supervisor).outbox.flush()
        await write(store, row(lab, remote_id=task.id))
        assert await result_of(supervisor) is ReapResult.RELEASED
        assert supervisor.tasks[task.id] is task
        assert task.state is State.RUNNING
        assert lab.deletes() == 0


@pytest.mark.parametrize(
    "owner",
    [
        {"owner_id": "dead too"},
        {"state": State.CANCELLING, "reason": CancelReason.USER, "cancel_requested_at": 1.0},
        {"credential_fingerprint": "other"},
        {"base_url": "https://other.test"},
    ],
    ids=["dead", "to end it", "other credential", "other system"],
)
async def test_another_row_of_the_task_saves_it_only_where_somebody_wants_it(
    owner: dict[str, Any],
) -> None:
    """Not one of another dead owner, nor of one who is ending it, nor of another system's task."""
    lab, store = Lab(), MemoryStore()
    living = MemoryLedger(store)
    await living.open("alive")
    task_id = lab.fake.add()
    other = row(lab, "other", **{"remote_id": task_id, "owner_id": "alive"} | owner)
    await write(store, row(lab, remote_id=task_id), other)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
        assert ReapResult.CANCELLED in {found.result for found in report.reaped}
        assert lab.fake.tasks[task_id].status == "cancelled"
    assert store.rows == ({} if other.owner_id == "dead too" else {"other": other})
    await living.aclose()


async def test_what_is_of_another_namespace_is_left_alone() -> None:
    """It is not even counted: whoever lives there sees to it."""
    lab, store = Lab(), MemoryStore()
    record = row(lab, namespace="another")
    await write(store, record)
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        report = await supervisor.reap()
        assert (report.reaped, report.left, orphans(lab)) == ([], [], (0, 0))
    assert (list(store.rows.values()), lab.fake.requests) == ([record], [])


@virtual
async def test_a_task_that_appears_after_its_absence_was_proven_is_ended() -> None:
    """By its mark, if that was not long ago; one of another credential's is not looked for."""
    lab, store = Lab(), MemoryStore()
    end: dict[str, Any] = {"state": State.NEVER_CREATED, "remote_id": None, "lost_at": 1.0}
    ends: dict[str, dict[str, Any]] = {
        "mine": {"finished_at": time.time()},
        "other": {"finished_at": time.time(), "credential_fingerprint": "other"},
        "late": {"finished_at": time.time() - 3 * 3600},  # no two clocks differ by that much
    }
    await write(store, *(row(lab, intent_id, **end, **more) for intent_id, more in ends.items()))
    stray, *others = [lab.fake.add("m", SIGMIC_GUARD_INTENT=it) for it in ends]
    async with lab.open(ledger=MemoryLedger(store), left=2):
        with fail_after(10):
            await lab.fake.until(lambda: stray not in lab.fake.live)
        await sleep(100)
        assert lab.fake.live == set(others)
        assert orphans(lab) == (0, 0)
    assert reaped(lab) == {"cancelled": 1}


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
