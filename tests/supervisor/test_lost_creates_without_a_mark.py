"""Lost creates that could carry no mark: candidates are reported, and touched only where asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, current_time, fail_after, sleep

from sigmic_guard import ConnectionFailed, LedgerError, State, Supervisor
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.lifecycle import Record, TaskPolicy
from sigmic_guard.lifecycle.policy import OnLost
from sigmic_guard.supervisor.ground.marking import MARKER, digest
from sigmic_guard.supervisor.recovery.candidates import Candidates
from sigmic_guard.testing import LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import UNAVAILABLE
from tests.supervisor.losses import (
    GONE,
    LossLab,
    Reports,
    change,
    clock_off_by,
    leave_behind,
    reports,
    without_times,
)
from tests.supervisor.orphanage import core_of, seconds

__all__ = ["reports"]

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

ERROR = ("cancelled", "error")


async def lose(supervisor: Supervisor, message: str = "m", *, on_lost: OnLost = "report") -> None:
    """Start a task whose create is lost and carries no mark; its caller learns it at once."""
    began = current_time()
    with pytest.raises(ConnectionFailed) as caught:
        await supervisor.start(message, on_lost=on_lost)
    assert caught.value.sent
    assert current_time() == began


async def settle(supervisor: Supervisor) -> None:
    """Wait until everything that can be told of lost creates has been told."""
    await sleep(60)


@pytest.mark.backends(ASYNCIO)
async def test_a_create_with_files(tmp_path: Path, reports: Reports) -> None:
    """A create with files carries no mark: its candidate is reported, and not touched."""
    lab = LossLab()
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b")
    lab.fake.on("create", LOST)
    async with lab.open(left=1, create_timeout=0.2) as supervisor:
        with fail_after(20):
            with pytest.raises(ConnectionFailed):
                await supervisor.start("m", files=[path])
            [row] = supervisor.snapshot()
            await reports.heard.wait()
        assert reports.all == [(row.intent_id, lab.fake.created)]
    assert lab.deletes() == 0


async def test_it_is_reported_once(reports: Reports) -> None:
    """A candidate is reported once, and then nobody looks any more."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    async with lab.open(left=1, marker=False) as supervisor:
        await lose(supervisor)
        await settle(supervisor)
        scans = lab.lists()
        await sleep(3600)
        assert lab.lists() == scans
        assert reports.ids == [set(lab.fake.created)]
    assert lab.deletes() == 0


async def test_without_markers(reports: Reports) -> None:
    """With marker=False it is the same."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    async with lab.open(left=1, marker=False) as supervisor:
        await lose(supervisor)
        await settle(supervisor)
        report = await supervisor.shutdown()
        assert [row.state for row in report.unconfirmed] == [State.UNKNOWN]
    assert reports.ids == [set(lab.fake.created)]
    assert lab.deletes() == 0


@pytest.mark.parametrize("on_lost", ["report", "cancel"])
async def test_absent(on_lost: OnLost, reports: Reports) -> None:
    """Where no task fits, two complete scans prove that nothing was created."""
    lab = LossLab()
    lab.fake.on("create", GONE)
    lab.fake.add("another")
    async with lab.open(left=1, marker=False) as supervisor:
        await lose(supervisor, on_lost=on_lost)
        await settle(supervisor)
        assert not supervisor.snapshot()
    assert reports.all == []
    assert lab.finished == {ERROR: 1}


async def test_candidates_are_cancelled_where_asked(reports: Reports) -> None:
    """With on_lost="cancel" every candidate is ended, and reported as well."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    async with lab.open(marker=False) as supervisor:
        await lose(supervisor, on_lost="cancel")
        lab.fake.add("  m\n")  # a server may strip
        await settle(supervisor)
        assert not supervisor.snapshot()
        assert not lab.fake.live
    assert reports.ids == [set(lab.fake.created)]
    assert lab.finished == {ERROR: 1, ("cancelled", "orphan"): 1}


async def test_a_second_candidate_is_an_orphan_in_its_record(reports: Reports) -> None:
    """Its row says what its entry does, although the absence of the first was never proven."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    lab.fake.add("m")
    lab.fake.always("get", UNAVAILABLE)
    async with lab.open(marker=False) as supervisor:
        await lose(supervisor, on_lost="cancel")
        await settle(supervisor)
        [stray] = core_of(supervisor).triage.tasks
        assert stray.record.orphan
        lab.fake.always("get", None)
        await settle(supervisor)
    assert not lab.fake.live
    assert seconds(lab) < 120  # since it was found


async def test_what_is_no_candidate(reports: Reports) -> None:
    """Never touched: what a row knows, what has a mark, another message or another time."""
    lab, store = LossLab(), MemoryStore()
    early = lab.fake.add("m")
    await sleep(300)
    known = lab.fake.add("m")
    await leave_behind(
        lab, store, "theirs", remote_id=known, state=State.RUNNING, namespace="another"
    )
    lab.fake.on("create", None, LOST)
    async with lab.open(left=7, marker=False, ledger=MemoryLedger(store)) as supervisor:
        mine = await supervisor.start("m", on_shutdown="detach")
        await lose(supervisor, on_lost="cancel")
        lost = lab.fake.created[-1]
        left = {
            early,
            known,
            mine.id,
            lab.fake.add("m", **{MARKER: "somebody's"}),
            lab.fake.add("m", **{MARKER: ""}),
            lab.fake.add("M"),
        }
        lab.fake.always("list", GONE)
        await sleep(120)
        left.add(lab.fake.add("m"))
        lab.fake.always("list", None)
        await settle(supervisor)
        assert lab.fake.live == left
        assert reports.ids == [{lost}]
    assert lab.deletes() == 1


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
async def test_the_clock_of_who_sent_it_was_wrong(reports: Reports, wrong: float) -> None:
    """By an hour: what may be its task is reported, and neither ended nor called never created."""
    lab, store = LossLab(), MemoryStore()
    task_id = lab.fake.add("m")
    sent = time.time() + wrong
    terms: Any = {"state": State.CREATING, "message_digest": digest("m"), "posted_at": sent}
    lost = TaskPolicy(on_lost="cancel")
    await leave_behind(lab, store, "lost", created_at=sent, policy=lost, **terms)
    async with lab.open(left=1, ledger=MemoryLedger(store), create_timeout=1) as supervisor:
        await settle(supervisor)
    assert reports.ids == [{task_id}]
    assert lab.fake.live == {task_id}
    assert store.rows["lost"].state is State.UNKNOWN


async def test_two_of_the_same_message(reports: Reports) -> None:
    """Two lost creates with one message: both tasks are ended, and both rows come to an end."""
    lab = LossLab()
    lab.fake.on("create", LOST, LOST)
    async with lab.open(marker=False) as supervisor:
        await lose(supervisor, on_lost="cancel")
        await lose(supervisor, on_lost="cancel")
        await settle(supervisor)
        assert not supervisor.snapshot()
        assert not lab.fake.live
    assert lab.deletes() == 2


async def test_two_of_the_same_message_are_reported(reports: Reports) -> None:
    """Two lost creates with one message: each reports both tasks, once."""
    lab = LossLab()
    lab.fake.on("create", LOST, LOST)
    async with lab.open(left=2, marker=False) as supervisor:
        await lose(supervisor)
        await lose(supervisor)
        await settle(supervisor)
        assert reports.ids == [set(lab.fake.created)] * 2
        assert len({intent for intent, _ in reports.all}) == 2


async def test_it_ended_by_itself(reports: Reports) -> None:
    """A task that has ended is no candidate: it costs nothing."""
    lab = LossLab(duration=20)
    lab.fake.on("create", LOST)
    async with lab.open(marker=False) as supervisor:
        await lose(supervisor, on_lost="cancel")
        await settle(supervisor)
        assert not supervisor.snapshot()
    assert reports.all == []
    assert lab.deletes() == 0


async def test_no_times_are_told(reports: Reports) -> None:
    """Where the list tells no times the message alone makes a candidate."""
    lab = LossLab()
    lab.fake.bend_rows(without_times)
    lab.fake.on("create", LOST)
    async with lab.open(left=1, marker=False) as supervisor:
        await lose(supervisor)
        await settle(supervisor)
    assert reports.ids == [set(lab.fake.created)]


async def test_clocks_that_differ_a_little(reports: Reports) -> None:
    """A server's clock that is half a minute off hides no candidate."""
    lab = LossLab()
    lab.fake.bend_rows(clock_off_by(-30))
    lab.fake.on("create", LOST)
    async with lab.open(left=1, marker=False) as supervisor:
        await lose(supervisor)
        await settle(supervisor)
    assert reports.ids == [set(lab.fake.created)]


async def test_messages_that_are_missing(reports: Reports) -> None:
    """A list that shows no messages makes no candidates."""
    lab = LossLab()
    lab.fake.bend_rows(lambda info: change(info, message=None))
    lab.fake.on("create", LOST)
    async with lab.open(left=1, marker=False) as supervisor:
        await lose(supervisor, on_lost="cancel")
        await settle(supervisor)
    assert reports.all == []


# --- creates that are under way -------------------------------------------------------------------


async def _another_is_under_way(lab: LossLab, one: Supervisor, other: Supervisor) -> None:
    """Lose a create while another one of the same message waits for its answer."""
    lab.fake.on("create", GONE)
    await lose(one, on_lost="cancel")
    async with create_task_group() as group:
        await sleep(20)
        held = lab.fake.gate("create", answer=True)
        wanted: list[str] = []

        async def start() -> None:
            task = await other.start("m", on_shutdown="detach")
            wanted.append(task.id)

        group.start_soon(start)
        await held.entered.wait()
        await sleep(25)  # past the time-out of the lost one
        held.open()
    await settle(one)
    assert wanted == lab.fake.created
    assert lab.fake.live == set(wanted)
    assert lab.deletes() == 0


async def test_another_create_is_under_way(reports: Reports) -> None:
    """A task whose create still waits for its answer is nobody's candidate."""
    lab = LossLab()
    async with lab.open(left=1, marker=False) as supervisor:
        await _another_is_under_way(lab, supervisor, supervisor)
    assert reports.all == []


async def test_in_another_process(reports: Reports) -> None:
    """Nor is one that another process is creating."""
    lab, store = LossLab(), MemoryStore()
    async with (
        lab.open(left=1, marker=False, ledger=MemoryLedger(store)) as one,
        lab.open(left=1, marker=False, ledger=MemoryLedger(store)) as other,
    ):
        await _another_is_under_way(lab, one, other)
    assert reports.all == []


async def test_nobody_asks_who_is_creating(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without a look at what is under way, a task is cancelled that is wanted."""

    async def nothing(_: Candidates) -> dict[str, float]:
        return {}

    monkeypatch.setattr(Candidates, "_read_under_way", nothing)
    lab = LossLab()
    async with lab.open(marker=False) as supervisor:
        with pytest.raises(AssertionError, match="frozenset"):
            await _another_is_under_way(lab, supervisor, supervisor)


# --- of dead owners -------------------------------------------------------------------------------


async def _left_and_found(lab: LossLab, policy: TaskPolicy, *, left: int) -> None:
    store = MemoryStore()
    lab.fake.add("m")
    await leave_behind(lab, store, "theirs", message_digest=digest("m"), policy=policy)
    async with lab.open(left=left, ledger=MemoryLedger(store)) as supervisor:
        await settle(supervisor)
        assert len(lab.fake.live) == left


async def test_left_by_a_dead_owner(reports: Reports) -> None:
    """The candidates of a dead owner's lost create are reported, and ended where it said so."""
    lab = LossLab()
    await _left_and_found(lab, TaskPolicy(), left=1)
    await _left_and_found(LossLab(), TaskPolicy(on_lost="cancel"), left=0)
    assert reports.ids == [set(lab.fake.created)] * 2


async def test_that_may_run_on(reports: Reports) -> None:
    """Where a crash was to leave the task alone, its candidates are left alone too."""
    lab = LossLab()
    await _left_and_found(lab, TaskPolicy(on_lost="cancel", on_crash="abandon"), left=1)
    assert lab.deletes() == 0


# --- a ledger that cannot be read -----------------------------------------------------------------


class BlindLedger(MemoryLedger):
    """Cannot tell who knows a task."""

    blind = True

    async def find(self, identifier: str) -> list[Record]:
        if self.blind:
            raise LedgerError("the disk has gone")
        return list(await super().find(identifier))


async def test_a_ledger_that_cannot_be_read(reports: Reports) -> None:
    """While the ledger cannot tell whose a candidate is, nothing is done, nor proven."""
    lab, ledger = LossLab(), BlindLedger()
    lab.fake.on("create", LOST)
    async with lab.open(marker=False, ledger=ledger) as supervisor:
        await lose(supervisor, on_lost="cancel")
        await sleep(300)
        assert reports.all == []
        assert len(lab.fake.live) == 1
        ledger.blind = False
        with fail_after(60):
            await lab.fake.until(lambda: not lab.fake.live)
    assert lab.finished == {ERROR: 1}


async def test_the_window_ends() -> None:
    """An hour beyond the row's own times nothing is its task, whoever reads the list."""
    lab, store, now = LossLab(), MemoryStore(), time.time()
    lab.fake.add("m")
    policy = TaskPolicy(on_lost="cancel")
    fields = {"message_digest": digest("m"), "policy": policy, "state": State.CREATING}
    await leave_behind(lab, store, "old", created_at=now - 4100, posted_at=now - 4100, **fields)
    async with lab.open(left=1, ledger=MemoryLedger(store)) as supervisor:
        await settle(supervisor)
        assert not supervisor.snapshot()
