"""DELETE is asked again where that helps, when the server says so, and not where it cannot."""

from __future__ import annotations

import itertools

import pytest
from anyio import current_time, sleep

from sigmic_guard import (
    CancelResult,
    ConnectionFailed,
    ProtocolError,
    ServerError,
    State,
    TaskCancelled,
    TaskNotFound,
    ValidationError,
)
from sigmic_guard.supervisor.ground.lag import BRAND_NEW
from sigmic_guard.testing import HANG, LOST
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, UNAVAILABLE, Lab, too_many

pytestmark = pytest.mark.backends(TRIO_VIRTUAL)
also_asyncio = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)

GONE = TaskNotFound("no such task", code="NOT_FOUND", status=404)


def times(lab: Lab) -> list[float]:
    """When the DELETEs arrived."""
    return [call.at for call in lab.fake.requests if call.method == "delete"]


@also_asyncio
@pytest.mark.parametrize(
    "fault, status",
    [
        (ConnectionFailed("refused", sent=False), "connection"),
        (ConnectionFailed("reset", sent=True), "connection"),
        (UNAVAILABLE, "503"),
        (ServerError("broken", code="HTTP_500", status=500), "500"),
        (too_many(), "429"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_worth_retrying(fault: Exception, status: str) -> None:
    """A DELETE that met an error of the connection or the server is sent again."""
    lab = Lab()
    lab.fake.on("delete", fault, fault)
    async with lab.open() as supervisor:
        async with supervisor.task("m") as task:
            pass
        assert task._entry.record.attempts == 2
    assert lab.deletes() == 3
    assert lab.attempts == {status: 2, "200": 1}
    assert lab.cancellations == {"acknowledged": 1}


async def test_a_time_out_is_worth_retrying() -> None:
    """A DELETE without an answer is sent again after its time-out of five seconds."""
    lab = Lab()
    lab.fake.on("delete", HANG)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=60)
        assert (await task.cancel()).result is CancelResult.ACKNOWLEDGED
    first, second = times(lab)
    assert 5 < second - first < 5.2


async def test_a_lost_answer_is_looked_into() -> None:
    """A DELETE whose answer was lost is sent again; the task is known to have been cancelled."""
    lab = Lab()
    lab.fake.on("delete", LOST)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert (await task.cancel()).state is State.CANCELLED
        with pytest.raises(TaskCancelled):
            await task.result()
    assert lab.deletes() == 2
    assert lab.finished == {("cancelled", "user"): 1}


@pytest.mark.parametrize("seconds", [0, 1, 30])
async def test_retry_after_is_obeyed(seconds: int) -> None:
    """429 and 503 with Retry-After are asked again after that time, and not before."""
    lab = Lab()
    busy = ServerError("busy", code="HTTP_503", status=503, retry_after=seconds)
    lab.fake.on("delete", too_many(seconds), busy)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=120)
        assert (await task.cancel()).result is CancelResult.ACKNOWLEDGED
    first, second, third = times(lab)
    assert seconds <= second - first < seconds + 0.2
    assert seconds <= third - second < seconds + 0.2


async def test_retry_after_does_not_outlast_the_shutdown() -> None:
    """In a shutdown a long Retry-After is cut so that one more attempt fits in."""
    lab = Lab()
    lab.fake.on("delete", too_many(3600))
    async with lab.open(grace=8) as supervisor:
        await supervisor.start("m")
        report = await supervisor.shutdown()
    assert report.clean
    assert lab.deletes() == 2


async def test_a_shutdown_does_not_wait_for_the_next_attempt() -> None:
    """A task that waits for its next attempt when the shutdown comes is asked at once."""
    lab = Lab()
    lab.fake.on("delete", too_many(3600))
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        await task.cancel()
        began = current_time()
        assert (await supervisor.shutdown()).clean
        assert current_time() - began < 0.1
    assert task.reason == "user"


async def test_the_backoff_grows_and_is_capped() -> None:
    """The pauses between attempts double from 0.1 s, with jitter of half, up to 10 s."""
    lab = Lab()
    lab.fake.always("delete", UNAVAILABLE)
    async with lab.open(left=1) as supervisor:
        task = await supervisor.start("m", cancel_wait=0)
        await task.cancel()
        await lab.fake.until(lambda: lab.deletes() == 12)
        at = times(lab)
        pauses = [after - before for before, after in itertools.pairwise(at)]
        for number, pause in enumerate(pauses):
            whole = min(10, 0.1 * 2**number)
            assert whole / 2 <= pause <= whole + 1e-6, number
    assert task.state is State.UNCONFIRMED


async def test_it_never_gives_up_by_itself() -> None:
    """A server that is away for hours is asked until it is back."""
    lab = Lab()
    lab.fake.always("delete", UNAVAILABLE)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=0)
        await task.cancel()
        await sleep(2 * 3600)
        assert task.state is State.CANCELLING
        assert 2 * 360 <= lab.deletes() <= 2 * 720 + 20, "once in 5 to 10 seconds"
        lab.fake.always("delete", None)
        await task.wait()
    assert lab.cancellations == {"acknowledged": 1}


@also_asyncio
@pytest.mark.parametrize("refusal", [UNAUTHORISED, FORBIDDEN], ids=["401", "403"])
async def test_refused(refusal: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """401 and 403 in the API's words are believed: UNCONFIRMED at once, an error in the log."""
    lab = Lab()
    lab.fake.always("delete", refusal)
    async with lab.open(left=1) as supervisor:
        async with supervisor.task("m") as task:
            pass
        assert task.state is State.UNCONFIRMED
        assert lab.deletes() == 1
        assert "task.unconfirmed" in str([record.msg for record in caplog.records])
        assert supervisor.tasks == {task.id: task}, "it may still run"
        result = await task.wait()
        assert result.cancellation is not None
        assert str(refusal) == result.cancellation.error
        report = await supervisor.shutdown()
        assert [row.id for row in report.unconfirmed] == [task.id]
    assert lab.live == {"unconfirmed": 1}
    assert lab.cancellations == {"unconfirmed": 1}


@also_asyncio
async def test_somebody_comes_back() -> None:
    """cancel() on an UNCONFIRMED task asks again, and can succeed."""
    lab = Lab()
    lab.fake.on("delete", UNAUTHORISED, FORBIDDEN)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        assert (await task.cancel()).result is CancelResult.UNCONFIRMED
        await task.cancel()
        await lab.fake.until(lambda: lab.deletes() == 2 and not lab.fake.in_flight("delete"))
        task.request_cancel()
        await lab.fake.until(lambda: not lab.fake.live)
    assert task.outcome == "cancelled"
    assert lab.deletes() == 3
    assert lab.finished == {("cancelled", "user"): 1}


async def test_not_found() -> None:
    """404 means gone for this credential: cancelled, "not_found", and not asked again."""
    lab = Lab()
    lab.fake.on("delete", GONE)
    async with lab.open(left=1) as supervisor:
        task = await supervisor.start("m")
        await sleep(BRAND_NEW)
        cancellation = await task.cancel()
    assert (cancellation.result, cancellation.state) == ("not_found", "cancelled")
    assert lab.deletes() == 1
    assert lab.cancellations == {"not_found": 1}


@also_asyncio
@pytest.mark.parametrize("how", ["complete", "fail", "cancel"])
async def test_a_conflict_is_looked_into(how: str) -> None:
    """A refusal like 409 is followed by GET: who had ended keeps the outcome and the result."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        getattr(lab.fake, how)(task.id)
        cancellation = await task.cancel()
        result = await task.wait()
    assert (lab.deletes(), lab.fake.count("get", task.id)) == (1, 1)
    outcome = {"complete": "completed", "fail": "failed", "cancel": "cancelled"}[how]
    assert result.outcome == outcome
    assert result.final_response == ("the answer" if how == "complete" else None)
    if how != "cancel":
        assert cancellation.result is CancelResult.ALREADY_FINISHED
    assert lab.finished == {(outcome, "user"): 1}


async def test_a_refusal_of_a_task_that_runs() -> None:
    """A refusal that GET does not explain is asked again, until it works."""
    lab = Lab()
    odd = ValidationError("not now", code="VALIDATION_ERROR", status=409)
    lab.fake.on("delete", odd, ProtocolError("what?", status=200), odd)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=60)
        assert (await task.cancel()).result is CancelResult.ACKNOWLEDGED
    assert (lab.deletes(), lab.fake.count("get", task.id)) == (4, 3)


@pytest.mark.parametrize(
    "fault", [UNAVAILABLE, HANG, ProtocolError("what?"), GONE], ids=["503", "hang", "odd", "404"]
)
async def test_a_look_that_fails(fault: Exception) -> None:
    """Whatever happens to the GET after a refusal, the task is cancelled in the end."""
    lab = Lab()
    odd = ValidationError("not now", code="VALIDATION_ERROR", status=409)
    lab.fake.on("delete", odd)
    lab.fake.on("get", fault)
    async with lab.open(left=1 if fault is GONE else 0) as supervisor:
        task = await supervisor.start("m", cancel_wait=60)
        await sleep(BRAND_NEW)
        cancellation = await task.cancel()
        assert cancellation.state is State.CANCELLED
    assert cancellation.result == ("not_found" if fault is GONE else "acknowledged")


async def test_a_look_that_fails_is_repeated_without_another_delete() -> None:
    """What the API has refused for what the task is, only GET can explain."""
    lab = Lab()
    lab.fake.on("get", *[UNAVAILABLE] * 4)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", cancel_wait=60)
        lab.fake.complete(task.id)
        cancellation = await task.cancel()
    assert cancellation.result is CancelResult.ALREADY_FINISHED
    assert (lab.deletes(), lab.fake.count("get", task.id)) == (1, 5)


async def test_an_unexplained_404_after_the_acknowledgement() -> None:
    """With confirm="terminal", GET saying 404 after a DELETE is the end: gone."""
    lab = Lab()
    lab.fake.on("get", GONE)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", confirm="terminal")
        assert (await task.cancel()).state is State.CANCELLED


async def test_the_credential_fails_during_the_look() -> None:
    """401 on the GET that should confirm is UNCONFIRMED at once."""
    lab = Lab()
    lab.fake.on("get", UNAUTHORISED)
    async with lab.open() as supervisor:
        task = await supervisor.start("m", confirm="terminal")
        assert (await task.cancel()).state is State.UNCONFIRMED
    assert lab.deletes() >= 1


async def test_max_cancels_bounds_the_deletes_in_flight() -> None:
    """Never more than max_cancels DELETEs are under way, and each task gets its own."""
    lab = Lab(latency=1)
    async with lab.open(max_cancels=3) as supervisor:
        for _ in range(10):
            await supervisor.start("m")
    assert lab.fake.peak("delete") == 3
    assert lab.deletes() == 10


async def test_one_slow_task_does_not_hold_up_the_rest() -> None:
    """Tasks whose DELETE hangs leave workers for the others."""
    lab = Lab()
    async with lab.open(max_cancels=2, grace=30) as supervisor:
        stuck = await supervisor.start("stuck")
        lab.fake.always("delete", lambda call: HANG if call.task_id == stuck.id else None)
        stuck.request_cancel()
        others = [await supervisor.start("m", cancel_wait=1) for _ in range(20)]
        for task in others:
            assert (await task.cancel()).result is CancelResult.ACKNOWLEDGED
        lab.fake.always("delete", None)
