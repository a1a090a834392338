"""A ledger that fails, hangs or refuses; and the order intent, POST, id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from anyio import CancelScope, create_task_group, current_time, sleep, wait_all_tasks_blocked

from sigmic_guard import DuplicateKey, LedgerError, State, TaskTimedOut
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.lifecycle import Record
from sigmic_guard.sigmic import CreateRequest
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.supervisor.ground.outbox import Outbox
from sigmic_guard.testing import FakeSigmic
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab
from tests.supervisor.ledgers import FailingLedger, HangingLedger, RefusingLedger

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)


def new(writes: Sequence[Write]) -> bool:
    return any(write.expected == 0 for write in writes)


def later(writes: Sequence[Write]) -> bool:
    return not new(writes)


# --- the intent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_the_intent_fails(how: str) -> None:
    """Where the intent cannot be written the caller is told, and nothing is sent."""
    lab = Lab()
    async with lab.open(ledger=FailingLedger(new)) as supervisor:
        with pytest.raises(LedgerError, match="disk is full"):
            match how:
                case "task":
                    async with supervisor.task("m"):
                        raise AssertionError
                case "start":
                    await supervisor.start("m")
                case _:
                    await supervisor.run("m")
        assert not supervisor.snapshot()
    assert not lab.fake.requests
    assert lab.finished == {("failed", "none"): 1}


async def test_the_intent_fails_for_a_while() -> None:
    """When the ledger is well again tasks are created again."""
    lab = Lab()
    ledger = FailingLedger(new)
    async with lab.open(ledger=ledger) as supervisor:
        with pytest.raises(LedgerError):
            await supervisor.start("m")
        ledger.wrong = lambda writes: False
        assert (await supervisor.start("m")).state is State.RUNNING
    assert lab.fake.count("create") == 1


@pytest.mark.parametrize(
    "why, error", [(Refusal.DUPLICATE_KEY, DuplicateKey), (Refusal.CONFLICT, LedgerError)]
)
async def test_the_intent_is_refused(why: Refusal, error: type[Exception]) -> None:
    """A refused intent reaches its caller alone; the neighbour in the same batch is created."""
    lab = Lab()
    ledger = RefusingLedger(lambda write: why if write.record.key == "refused" else None)
    async with lab.open(ledger=ledger) as supervisor, create_task_group() as group:

        async def refused() -> None:
            with pytest.raises(error):
                await supervisor.start("m", key="refused")

        group.start_soon(refused)
        group.start_soon(supervisor.start, "neighbour")
    assert [task.message for task in lab.fake.tasks.values()] == ["neighbour"]


@virtual
async def test_the_intent_hangs() -> None:
    """While the intent hangs nothing is sent; the caller can leave, and a deadline counts."""
    lab = Lab()
    ledger = HangingLedger()
    async with lab.open(ledger=ledger) as supervisor:
        ledger.hang = True
        with CancelScope(deadline=current_time() + 5) as scope:
            await supervisor.start("m")
        assert scope.cancelled_caught
        with pytest.raises(TaskTimedOut):
            await supervisor.start("m", timeout=5)
        assert current_time() == pytest.approx(10, abs=0.1)
    assert not lab.fake.requests
    assert lab.finished == {("cancelled", "scope"): 1, ("timed_out", "deadline"): 1}


async def test_withdrawn_while_the_intent_is_written() -> None:
    """A cancel during the intent's commit means that no POST is sent, and no row is left."""
    lab, store = Lab(), MemoryStore()
    gate = FakeSigmic().gate("create")

    class Slow(MemoryLedger):
        async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
            if new(writes):
                await gate.hold()
            return await super().commit(writes)

    async with lab.open(ledger=Slow(store)) as supervisor, create_task_group() as group:
        scope = CancelScope()

        async def start() -> None:
            with scope:
                await supervisor.start("m")

        group.start_soon(start)
        await gate.entered.wait()
        scope.cancel()
        await wait_all_tasks_blocked()
        gate.open()
    assert not lab.fake.requests
    assert not store.rows
    assert lab.finished == {("cancelled", "scope"): 1}


# --- afterwards -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [later, lambda writes: True], ids=["later", "all"])
async def test_later_failures_never_stop_a_delete(wrong: Callable[..., bool]) -> None:
    """Once the task exists no failure of the ledger keeps it from being used and deleted."""
    lab = Lab()
    ledger = FailingLedger(lambda writes: False)
    async with lab.open(ledger=ledger, grace=2) as supervisor:
        async with supervisor.task("m") as task:
            ledger.wrong = wrong
            lab.fake.complete(task.id, "42")
            assert (await task.result()).final_response == "42"
        task = await supervisor.start("m") if wrong is later else task
        if wrong is later:
            assert (await task.cancel()).result == "acknowledged"
    assert ledger.failures
    assert not lab.fake.live


@virtual
async def test_a_failed_write_is_tried_again() -> None:
    """What could not be written is written when the ledger is well again, in its last state."""
    lab, store = Lab(), MemoryStore()
    ledger = FailingLedger(lambda writes: False)
    ledger.store = store
    async with lab.open(ledger=ledger) as supervisor:
        task = await supervisor.start("m")
        await sleep(1)
        ledger.wrong = lambda writes: True
        task.request_cancel()
        await task.wait()
        await sleep(10)
        assert store.rows[task._entry.record.intent_id].state is State.RUNNING
        ledger.wrong = lambda writes: False
        await sleep(10)
        assert not store.rows, "it finished"
    assert ledger.failures >= 2


@virtual
async def test_a_row_that_somebody_else_changed() -> None:
    """A conflict on a later write is logged, and does not stop a DELETE."""
    lab = Lab()
    ledger = RefusingLedger(lambda write: Refusal.CONFLICT if write.expected else None)
    async with lab.open(ledger=ledger) as supervisor:
        async with supervisor.task("m") as task:
            pass
        assert task.outcome == "cancelled"


@virtual
async def test_a_ledger_that_hangs_afterwards() -> None:
    """A ledger that hangs once the task exists holds up neither its end nor the exit."""
    lab = Lab()
    ledger = HangingLedger()
    async with lab.open(ledger=ledger, grace=4) as supervisor:
        async with supervisor.task("m") as task:
            ledger.hang = True
        assert (task.outcome, current_time() < 1) == ("cancelled", True)
        await supervisor.adopt(lab.fake.add())
        began = current_time()
    assert current_time() - began <= 5
    assert lab.deletes() == 2


# --- the order ------------------------------------------------------------------------------------


class Diary:
    """A ledger and an API that write down what happens, in one list."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        diary = self.lines

        class RecordingLedger(MemoryLedger):
            async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
                done = await super().commit(writes)
                diary.extend(f"{write.record.state} durable" for write in writes)
                return done

        class RecordingApi(FakeSigmic):
            async def create(self, request: CreateRequest, *, timeout: float) -> str:
                held = ledger.store.rows.get(request.env.get(MARKER, ""))
                diary.append(f"POST, with {held.state if held else 'nothing'} in the ledger")
                return await super().create(request, timeout=timeout)

            async def delete(self, task_id: str, *, timeout: float) -> bool:
                diary.append("DELETE")
                return await super().delete(task_id, timeout=timeout)

        self.ledger = ledger = RecordingLedger()
        self.api = RecordingApi()


async def test_the_order() -> None:
    """The intent is durable before the POST, and the id before the DELETE that follows."""
    diary, lab = Diary(), Lab()
    async with lab.open(client=diary.api, ledger=diary.ledger) as supervisor:
        await supervisor.start("m")
    assert diary.lines[:2] == ["intent durable", "POST, with intent in the ledger"]
    assert "running durable" in diary.lines[2:3]
    assert diary.lines.index("cancelling durable") < diary.lines.index("DELETE")


async def test_the_order_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with a POST that does not wait for its intent the diary tells."""

    def careless(
        self: Outbox, record: Record, told: Callable[[None], None], *, timeout: float
    ) -> None:
        told(None)
        self.add(None, record)

    monkeypatch.setattr(Outbox, "insert_and_tell", careless)
    diary, lab = Diary(), Lab()
    async with lab.open(client=diary.api, ledger=diary.ledger) as supervisor:
        await supervisor.start("m")
    assert diary.lines[0] == "POST, with nothing in the ledger"


async def test_a_row_is_gone_when_its_task_is() -> None:
    """When all is over no unfinished row is left; an unconfirmed one stays."""
    lab, store = Lab(), MemoryStore()
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        for _ in range(20):
            async with supervisor.task("m"):
                pass
        await supervisor.start("m")
    assert not store.rows
