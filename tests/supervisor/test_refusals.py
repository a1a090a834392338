"""401 and 403 in the API's own words: believed, told once, and asked about again, slowly."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from anyio import create_task_group, current_time, fail_after, sleep

from sigmic_guard import (
    CancelResult,
    Outcome,
    ProtocolError,
    State,
    SupervisorShutdown,
    TaskNotFound,
)
from sigmic_guard.ledger import MemoryLedger, MemoryStore
from sigmic_guard.testing import LOST
from tests.backends import TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, UNAVAILABLE, Lab, too_many
from tests.supervisor.losses import LossLab, unwanted
from tests.supervisor.orphanage import left

if TYPE_CHECKING:
    from sigmic_guard import RemoteTask, Supervisor
    from sigmic_guard.testing import Call

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)

GONE = TaskNotFound("no such task", code="NOT_FOUND", status=404)
PAGE = ProtocolError("a firewall's page", status=403)
either = pytest.mark.parametrize("refusal", [UNAUTHORISED, FORBIDDEN], ids=["401", "403"])


def times(lab: Lab, method: str = "delete") -> list[float]:
    """When the requests arrived."""
    return [call.at for call in lab.fake.requests if call.method == method]


def pauses(lab: Lab, method: str = "delete") -> list[float]:
    """Seconds between each and the next."""
    return [after - before for before, after in itertools.pairwise(times(lab, method))]


async def refused(lab: Lab, supervisor: Supervisor, refusal: Exception = FORBIDDEN) -> RemoteTask:
    """A background task that the API does not let us end."""
    lab.fake.always("delete", refusal)
    task = await supervisor.start("m")
    assert (await task.cancel()).result is CancelResult.UNCONFIRMED
    return task


@either
async def test_the_question_is_asked_again_slowly(refusal: Exception) -> None:
    """The pauses double from 2 s, with jitter of half, up to a minute."""
    lab = Lab()
    async with lab.open(left=1) as supervisor:
        await refused(lab, supervisor, refusal)
        await sleep(3600)
        found = pauses(lab)
    for number, pause in enumerate(found[:-1]):  # the last is the shutdown's
        whole = min(60, 2 * 2**number)
        assert whole / 2 <= pause <= whole + 1e-6, number
    assert 60 <= len(found) <= 130


@either
async def test_it_is_told_once(refusal: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """An hour of refusals is one line, the step to UNCONFIRMED; each is counted as an attempt."""
    lab = Lab()
    async with lab.open(left=1) as supervisor:
        await refused(lab, supervisor, refusal)
        await sleep(3600)
        told = [str(record.msg) for record in caplog.records if "task_id" in str(record.msg)]
        assert [line for line in told if "task.started" not in line] == [
            line for line in told if "task.cancelling" in line or "task.unconfirmed" in line
        ]
        assert sum("task.unconfirmed" in line for line in told) == 1
        assert lab.attempts == {str(refusal.status): lab.deletes()}  # type: ignore[attr-defined]
        assert lab.cancellations == {"unconfirmed": 1}


@either
async def test_what_is_allowed_again_is_done(refusal: Exception) -> None:
    """A refusal that passes costs a few seconds, and nobody has to come back for it."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await refused(lab, supervisor, refusal)
        lab.fake.always("delete", None)
        with fail_after(2.1):
            await lab.fake.until(lambda: not lab.fake.live)
            await task._entry.until(lambda entry: entry.record.finished_at is not None)
    assert lab.deletes() == 2
    assert task.outcome is Outcome.CANCELLED
    assert lab.live == {}


async def test_a_person_who_asks_is_served_at_once() -> None:
    """cancel() sends a DELETE, however long the next one was to be waited for."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await refused(lab, supervisor)
        await sleep(3600)
        began, before = current_time(), lab.deletes()
        assert (await task.cancel()).result is CancelResult.UNCONFIRMED
        assert lab.deletes() == before + 1
        lab.fake.always("delete", None)
        await task.cancel()
        assert task.state is State.CANCELLED
        assert current_time() - began < 0.1


async def test_a_refused_look_is_asked_again_slowly() -> None:
    """A GET that should confirm is the same: UNCONFIRMED, and asked again."""
    lab = Lab()
    lab.fake.always("get", UNAUTHORISED)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", confirm="terminal")
        lab.fake.on("delete", lambda call: None)
        assert (await task.cancel()).state is State.UNCONFIRMED
        lab.fake.always("get", None)
        with fail_after(2.5):
            await task._entry.until(lambda entry: entry.record.finished_at is not None)
    assert task.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("how", ["complete", "fail", "cancel"])
async def test_what_the_list_shows_as_ended_has_ended(how: str) -> None:
    """The place is given back, the metrics move, and a result is not lost."""
    lab = Lab()
    async with lab.open(max_tasks=1) as supervisor:
        task = await refused(lab, supervisor)
        await sleep(600)
        getattr(lab.fake, how)(task.id)
        with fail_after(5):
            second = await supervisor.start("m")
        assert second.state is State.RUNNING
        result = await task.wait()
        lab.fake.always("delete", None)
    outcome = {"complete": "completed", "fail": "failed", "cancel": "cancelled"}[how]
    assert result.outcome == outcome
    assert result.final_response == ("the answer" if how == "complete" else None)
    assert lab.finished[outcome, "user"] >= 1
    assert lab.live == {}


@pytest.mark.parametrize("how", ["complete", "fail", "cancel"])
async def test_the_list_is_enough(how: str) -> None:
    """Where GET is refused as well, the list's word is taken."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await refused(lab, supervisor)
        lab.fake.always("get", FORBIDDEN)
        getattr(lab.fake, how)(task.id)
        await sleep(5)
        assert task.state in {State.COMPLETED, State.FAILED, State.CANCELLED}
        assert supervisor.tasks == {}


async def test_what_is_gone_has_ended() -> None:
    """A task that is neither in the list nor known to GET is gone, though DELETE is refused."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await refused(lab, supervisor)
        lab.fake.always("get", GONE)
        lab.hide(task.id)
        lab.fake._world.model.live.clear()
        await sleep(120)
        assert task.state is State.CANCELLED
        assert lab.cancellations == {"unconfirmed": 1, "not_found": 1}


async def test_a_refused_list_is_read_again_slowly() -> None:
    """The list is asked about again as slowly; meanwhile GET tells how tasks are."""
    lab = Lab()
    lab.fake.always("list", FORBIDDEN)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await sleep(30)
        assert 4 <= lab.fake.count("list") <= 6
        for number, pause in enumerate(pauses(lab, "list")):
            assert 2**number <= pause <= 2 * 2**number + 0.2
        lab.fake.complete(task.id)
        with fail_after(75):
            assert (await task.wait()).outcome is Outcome.COMPLETED
        await supervisor.start("m")
        await sleep(3600)
        assert lab.fake.count("list") <= 130
        lab.fake.always("list", None)


@either
async def test_a_list_that_is_refused_to_who_looks_for_a_lost_create(refusal: Exception) -> None:
    """It is asked about again as slowly, up to a minute apart, and found once it is allowed."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    lab.fake.always("list", refusal)
    async with lab.open(create_timeout=5) as supervisor, create_task_group() as group:
        group.start_soon(unwanted, supervisor)
        await sleep(60)
        assert 4 <= lab.lists() <= 12
        await sleep(3600)
        assert lab.lists() <= 12 + 3600 / 30
        assert max(pauses(lab, "list")) <= 61
        lab.fake.always("list", None)
        with fail_after(61):
            await lab.fake.until(lambda: not lab.fake.live)


async def test_a_pause_that_the_list_asks_for_does_not_blind_a_shutdown() -> None:
    """A lost create is found and ended within the budget, whatever was asked for before it."""
    lab = LossLab()
    lab.fake.on("create", LOST)
    lab.fake.on("list", too_many(50), too_many(50))

    async def begin() -> None:
        with pytest.raises(SupervisorShutdown):
            await supervisor.start("m")

    async with lab.open(create_timeout=5, grace=8) as supervisor, create_task_group() as group:
        group.start_soon(begin)
        await lab.fake.until(lambda: lab.lists() == 1)
        await sleep(3)
        report = await supervisor.shutdown()
        assert report.clean
    assert lab.deletes() == 1


async def test_an_orphan_that_may_not_be_ended() -> None:
    """A dead owner's task is asked about as slowly, and is over when the list says so."""
    lab, store = Lab(), MemoryStore()
    await left(lab, store)
    [task_id] = lab.fake.live
    lab.fake.always("delete", UNAUTHORISED)
    lab.fake.on("get", UNAUTHORISED)
    async with lab.open(ledger=MemoryLedger(store)) as supervisor:
        await supervisor.reap()
        await sleep(3600)
        assert 60 <= lab.deletes() <= 130
        assert max(pauses(lab)) <= 61
        lab.fake.complete(task_id)
        await sleep(5)
        assert store.rows == {}


async def test_a_shutdown_names_it() -> None:
    """A shutdown asks once more, waits for nothing, and names what it may not end."""
    lab = Lab()
    async with lab.open(left=1) as supervisor:
        task = await refused(lab, supervisor)
        began, before = current_time(), lab.deletes()
        report = await supervisor.shutdown()
        assert current_time() - began < 0.1
        assert lab.deletes() == before + 1
        assert [row.id for row in report.unconfirmed] == [task.id]


async def test_a_refusal_between_other_troubles() -> None:
    """503 after a refusal is asked again as ever, and the task can still be ended."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await refused(lab, supervisor)
        lab.fake.on("delete", UNAVAILABLE, too_many(1), FORBIDDEN, PAGE)
        lab.fake.always("delete", None)
        with fail_after(15):
            await lab.fake.until(lambda: not lab.fake.live)
    assert task.outcome is Outcome.CANCELLED


# --- a gateway's pages --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 405, 408, 409, 413, 429, 451, 499])
async def test_a_page_is_no_refusal(status: int) -> None:
    """A page in answer to a DELETE proves nothing: it is looked how the task is, and sent again."""
    lab = Lab()
    lab.fake.on("delete", *[ProtocolError("a page", status=status)] * 4)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        with fail_after(3):
            assert (await task.cancel()).result is CancelResult.ACKNOWLEDGED
    assert lab.deletes() == 5
    assert lab.fake.count("get") == (1 if status == 429 else 4)
    assert lab.attempts == {str(status): 4, "200": 1}


async def test_pages_for_two_hours() -> None:
    """A firewall that blocks us for hours is asked again every 10 s, and never believed."""
    lab = Lab()
    lab.fake.always("delete", PAGE)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=0)
        await task.cancel()
        await sleep(2 * 3600)
        assert task.state is State.CANCELLING
        lab.fake.always("delete", None)
        with fail_after(10.1):
            await task.wait()


@pytest.mark.parametrize("page", [PAGE, ProtocolError("a page", status=404)], ids=["403", "404"])
async def test_pages_on_every_route(page: Exception) -> None:
    """A task that a gateway hides for a while, on every route but the create, is not given up."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        for method in ("get", "list", "delete", "stream"):
            lab.fake.always(method, page)
        await sleep(300)
        assert task.state is State.RUNNING
        for method in ("get", "list", "delete", "stream"):
            lab.fake.always(method, None)
        lab.fake.complete(task.id)
        with fail_after(75):
            assert (await task.wait()).outcome is Outcome.COMPLETED
    assert lab.deletes() == 0


@pytest.mark.parametrize("effect", [True, False], ids=["obeyed", "not obeyed"])
@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 429, 451])
async def test_a_page_in_answer_to_a_create(status: int, effect: bool) -> None:
    """It is looked for in the list: found, or proven not to exist. It is never sent again."""
    lab = Lab()
    page = ProtocolError("a page", status=status)

    def answer(call: Call) -> Exception:
        if effect:
            record = next(iter(supervisor.snapshot()))
            lab.fake.add("m", SIGMIC_GUARD_INTENT=record.intent_id)
        return page

    lab.fake.on("create", answer)
    async with lab.open(create_timeout=2) as supervisor:
        if effect:
            task = await supervisor.start("m")
            assert task.state is State.RUNNING
        else:
            with pytest.raises(ProtocolError):
                await supervisor.start("m")
    assert lab.fake.count("create") == 1


@pytest.mark.parametrize("status", [403, 404, 409])
async def test_a_page_in_answer_to_a_follow_up(status: int) -> None:
    """It may have been obeyed, so that the task counts as running until it is seen to be not."""
    lab = Lab()
    async with lab.open() as supervisor, supervisor.task("m") as task:
        lab.fake.complete(task.id)
        await task.result()
        lab.fake.on("send", ProtocolError("a page", status=status))
        with pytest.raises(ProtocolError):
            await task.send("again")
        assert task.state is State.RUNNING
