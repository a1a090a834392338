"""Dead owners whose creates had been answered with each other's ids."""

from __future__ import annotations

import time
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.supervisor.ground.marking import MARKER, digest
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import Lab
from tests.supervisor.orphanage import row, write

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

POSTED: Any = {"posted_at": time.time()}


def crossed(*, duration: float | None = None) -> tuple[Lab, list[str]]:
    """Two tasks with marks of their own; the rows are to have each other's ids."""
    lab = Lab()
    for number in range(2):
        lab.fake.script(f"m-{number}", duration=duration, chunks=(f"m-{number}", "!"))
    return lab, [lab.fake.add(f"m-{n}", **{MARKER: f"intent-{n}"}) for n in range(2)]


async def test_each_is_ended_once() -> None:
    """The marks tell which task is whose, and each gets one DELETE."""
    lab, ids = crossed()
    store = MemoryStore()
    await write(
        store,
        *(row(lab, f"intent-{n}", remote_id=ids[1 - n], **POSTED) for n in range(2)),
    )
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        with fail_after(60):
            report = await supervisor.reap()
        assert report.clean
        assert {found.intent_id: found.id for found in report.reaped} == {
            f"intent-{n}": ids[n] for n in range(2)
        }
    assert [lab.deletes(task_id) for task_id in ids] == [1, 1]


async def test_the_task_of_somebody_who_lives_is_let_be() -> None:
    """A dead owner's row has the id of another create's task: that one gets no DELETE."""
    lab, [mine, other] = crossed()
    store = MemoryStore()
    await write(store, row(lab, "intent-0", remote_id=other, **POSTED))
    async with lab.open(ledger=MemoryLedger(store), left=1) as supervisor:
        with fail_after(60):
            assert (await supervisor.reap()).clean
    assert lab.fake.live == {other}
    assert (lab.deletes(mine), lab.deletes(other)) == (1, 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_key_leads_to_its_own_task(order: tuple[int, int]) -> None:
    """Whoever asks for the key after the crash gets its answer, and not the other key's."""
    lab, ids = crossed(duration=5.0)
    store, answers = MemoryStore(), dict[int, str | None]()
    terms: Any = {"on_crash": "reattach"}
    await write(
        store,
        *(
            row(lab, f"intent-{n}", remote_id=ids[1 - n], key=f"k-{n}", **terms, **POSTED)
            for n in range(2)
        ),
    )
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:

        async def ask(number: int) -> None:
            result = await supervisor.run(f"m-{number}", key=f"k-{number}", **terms)
            assert result.id == ids[number]
            answers[number] = result.final_response

        with fail_after(60):
            async with create_task_group() as group:
                for number in order:
                    group.start_soon(ask, number)
    assert answers == {0: "m-0!", 1: "m-1!"}
    assert lab.deletes() == lab.fake.count("create") == 0


async def test_a_key_that_is_asked_for_with_other_words() -> None:
    """The dead owner's create said something else: that is no mistake, and costs one GET."""
    lab = Lab()
    store, terms = MemoryStore(), {"on_crash": "reattach"}
    task_id = lab.fake.add("what it was")
    await write(
        store,
        row(
            lab, remote_id=task_id, key="k", message_digest=digest("what it was"), **terms, **POSTED
        ),
    )
    async with lab.open(ledger=MemoryLedger(store), marker=False) as supervisor:
        same = await supervisor.start("what it was")
        async with supervisor.task("what it is now", key="k", on_crash="reattach") as task:
            assert task.id == task_id
            lab.fake.complete(task_id, "mine")
            assert (await task.result()).final_response == "mine"
        lab.fake.complete(same.id, "theirs")
        assert (await same.result()).final_response == "theirs"
    assert lab.deletes() == 0
