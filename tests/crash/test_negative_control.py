"""The sweep finds what it looks for: ways to survive death that look right, and are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from sigmic_guard.errors import ConnectionFailed
from sigmic_guard.ledger import Orphans, Write, find_orphans
from sigmic_guard.lifecycle import Event, State, Verdict, judge
from sigmic_guard.supervisor.ground.outbox import Outbox
from sigmic_guard.supervisor.ground.roster import Roster
from sigmic_guard.supervisor.recovery import reaper
from sigmic_guard.supervisor.work.creating import Creator
from tests.backends import TRIO_VIRTUAL
from tests.crash.network import MortalApi
from tests.crash.story import Plot, tell

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic import CreateRequest
    from sigmic_guard.supervisor.ground.entry import Entry

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)


async def finds(problem: str, *, at: str, claims: bool = False) -> bool:
    """Sweep the steps that are called so until a story has this problem."""
    whole = await tell(Plot(claims=claims))
    for number, step in enumerate(whole.lives[0].steps):
        if at in step:
            story = await tell(Plot(deaths=(number,), claims=claims))
            if any(problem in found for found in story.problems):
                return True
    return False


async def test_a_post_before_its_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who posts before the intent is durable leaves tasks that no row tells of."""

    def only_queue(creator: Creator, task: Entry) -> None:
        creator._outbox.insert(task.record)
        creator._pool.put(task)

    monkeypatch.setattr(Creator, "_write_intent", only_queue)
    assert await finds(" is live", at="a create of")


async def test_an_acknowledgement_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a transaction has begun is no proof that its rows will be there."""

    write = Outbox._write

    async def tell_first(outbox: Outbox, batch: Any) -> None:
        for waiter in batch.awaited.values():
            waiter.tell(None)
        await write(outbox, batch)

    monkeypatch.setattr(Outbox, "_write", tell_first)
    assert await finds(" is live", at="a create of")


async def test_an_heir_that_believes_an_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that says nothing of a POST does not prove that none went out."""

    async def close(ledger: Ledger, namespace: str) -> Orphans:
        orphans, corrupt = await find_orphans(ledger, namespace)
        for row in (row for row, _, _ in orphans if row.state is State.INTENT):
            closed = replace(
                row, state=State.NEVER_CREATED, version=row.version + 1, finished_at=row.created_at
            )
            await ledger.commit([Write(closed, row.version)])
        left = [orphan for orphan in orphans if orphan.record.state is not State.INTENT]
        return Orphans(left, corrupt)

    monkeypatch.setattr(reaper, "find_orphans", close)
    assert await finds(" is live", at="create of 'scoped' took effect")


async def test_an_heir_that_believes_a_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that had completed may have been asked again since."""
    settle_in = Roster._settle_in

    def believe(roster: Roster, task: Entry) -> None:
        if task.record.orphan and task.record.remote_status == "completed":
            roster.apply(task, Event.COMPLETE)
        settle_in(roster, task)

    monkeypatch.setattr(Roster, "_settle_in", believe)
    assert await finds(" is live", at="follow-up took effect")


async def test_an_heir_that_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that may run on when its owner dies has to be let go."""
    monkeypatch.setattr(reaper, "judge", lambda record, **facts: Verdict.REAP)
    assert await finds("was to run on", at="having committed running")


async def test_an_heir_that_creates_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that runs has to be found by its key, or it is paid for twice."""
    monkeypatch.setattr(reaper, "judge", lambda record, **facts: Verdict.REAP)
    assert await finds("the key led to another task", at="running", claims=True)


async def test_an_heir_that_takes_a_deploy_for_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an orderly shutdown left for its key is not ended as what a crash left."""

    def as_if_it_crashed(record: Record, **facts: Any) -> Verdict:
        handed_over = record.state is State.HANDED_OVER
        return judge(replace(record, state=State.RUNNING) if handed_over else record, **facts)

    monkeypatch.setattr(reaper, "judge", as_if_it_crashed)
    assert await finds("the key led to another task", at="handed_over", claims=True)


async def test_a_post_that_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create whose answer was lost is sent again, and there are two of it."""
    create = MortalApi.create

    async def persist(api: MortalApi, request: CreateRequest, *, timeout: float) -> str:
        try:
            return await create(api, request, timeout=timeout)
        except ConnectionFailed:
            return await create(api, request, timeout=timeout)

    monkeypatch.setattr(MortalApi, "create", persist)
    assert await finds("2 creates of", at="a delete took effect")
