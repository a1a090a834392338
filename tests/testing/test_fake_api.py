"""``FakeSigmic``: its tasks, its faults and its gates, on asyncio and in virtual time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from sigmic_guard.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    ServerError,
    TaskNotFound,
    ValidationError,
)
from sigmic_guard.sigmic.models import CreateRequest, TaskInfo
from sigmic_guard.testing import HANG, LIE, LOST, SWAPPED, Answer, Call, FakeSigmic
from tests.backends import ASYNCIO, TRIO_VIRTUAL

if TYPE_CHECKING:
    from sigmic_guard.sigmic.api import EventStream, TaskApi

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

HELLO = CreateRequest(message="hello", env={"A": "1"})


def as_protocol(fake: FakeSigmic) -> TaskApi:
    """mypy checks that the fake is what the supervisor takes."""
    return fake


async def drain(stream: EventStream) -> list[tuple[str, dict[str, object]]]:
    """Everything a stream says until its clean end."""
    events = []
    while batch := await stream.receive():
        events += [(event.event, json.loads(event.data)) for event in batch]
    stream.close()
    return events


async def test_a_task_runs_until_it_is_pushed_and_its_truth_is_kept() -> None:
    fake = FakeSigmic()
    task_id = await as_protocol(fake).create(HELLO, timeout=1)
    assert fake.created == [task_id]
    assert fake.live == {task_id}
    assert fake.tasks[task_id].env == {"A": "1"}
    assert (await fake.get(task_id, timeout=1)).status == "running"
    assert fake.complete(task_id, "bye")
    info = await fake.get(task_id, timeout=1)
    assert info.terminal
    assert info.output is not None
    assert info.output.content == "bye"
    assert info.env == {"A": "1"}
    assert info.completed_at is not None
    assert info.completed_at.endswith("Z")
    assert not fake.live
    assert not fake.fail(task_id), "a task ends once"
    assert [call[:2] for call in fake.requests] == [
        ("create", None),
        ("get", task_id),
        ("get", task_id),
    ]
    assert fake.count("get") == fake.count("get", task_id) == 2
    assert fake.count("get", "other") == 0


@virtual
async def test_a_task_ends_after_its_duration_without_being_looked_at() -> None:
    fake = FakeSigmic(duration=3600)
    fake.script("bad", duration=1800, fail="no luck")
    good, bad = fake.add("good"), fake.add("bad")
    remote = fake.tasks[good]
    await anyio.sleep(3599)
    assert fake.live == {good}
    assert (fake.tasks[bad].status, fake.tasks[bad].error) == ("failed", "no luck")
    await anyio.sleep(1)
    assert remote.status == "completed"
    assert remote.completed_at == remote.created_at + 3600


async def test_delete_cancels_and_what_it_says_of_ended_tasks_is_configurable() -> None:
    fake = FakeSigmic()
    first, second = fake.add(), fake.add()
    assert await fake.delete(first, timeout=1) is True
    info = await fake.get(first, timeout=1)
    assert (info.status, info.error) == ("cancelled", None)
    fake.complete(second)
    for ended in (first, second):
        with pytest.raises(ValidationError) as caught:
            await fake.delete(ended, timeout=1)
        assert (caught.value.code, caught.value.status) == ("VALIDATION_ERROR", 409)
    fake.delete_finished = "ok"
    assert await fake.delete(second, timeout=1) is False
    assert fake.tasks[second].status == "completed"


async def test_unknown_ids_are_not_found_and_impossible_ones_are_refused() -> None:
    fake = FakeSigmic()
    with pytest.raises(TaskNotFound):
        await fake.delete("nobody", timeout=1)
    for naughty in ("", ".", ".."):
        with pytest.raises(ConfigurationError):
            await fake.get(naughty, timeout=1)
    assert len(fake.requests) == 1


async def test_files_and_env_are_refused_before_sending() -> None:
    fake = FakeSigmic()
    with pytest.raises(ConfigurationError):
        await fake.create(CreateRequest(message="m", files=(Path("f"),), env={"A": "1"}), timeout=1)
    assert not fake.requests


async def test_an_exception_is_raised_once_per_call_it_was_planned_for() -> None:
    fake = FakeSigmic()
    task_id = fake.add()
    fake.on("delete", ServerError("down", code="X", status=503, retry_after=2), None, 0.0)
    with pytest.raises(ServerError) as caught:
        await fake.delete(task_id, timeout=1)
    assert caught.value.retry_after == 2
    assert await fake.delete(task_id, timeout=1) is True
    with pytest.raises(ApiError):
        await fake.delete(task_id, timeout=1)


async def test_always_stands_behind_what_is_planned_until_it_is_taken_back() -> None:
    fake = FakeSigmic()
    task_id = fake.add()
    fake.always("get", ConnectionFailed("refused", sent=False))
    planned = TaskInfo(id="x", status="novel")
    fake.on("get", Answer(planned))
    assert await fake.get(task_id, timeout=1) is planned
    for _ in range(3):
        with pytest.raises(ConnectionFailed):
            await fake.get(task_id, timeout=1)
    fake.always("get", None)
    assert (await fake.get(task_id, timeout=1)).id == task_id


@virtual
async def test_a_hanging_request_ends_with_its_callers_time_out_and_has_no_effect() -> None:
    fake = FakeSigmic()
    task_id = fake.add()
    fake.on("delete", HANG)
    began = anyio.current_time()
    with pytest.raises(ConnectionFailed) as caught:
        await fake.delete(task_id, timeout=7)
    assert caught.value.sent
    assert anyio.current_time() == began + 7
    assert fake.live == {task_id}


async def test_a_lost_answer_took_effect_and_a_lie_did_not() -> None:
    fake = FakeSigmic()
    fake.on("create", LOST)
    with pytest.raises(ConnectionFailed) as caught:
        await fake.create(HELLO, timeout=1)
    assert caught.value.sent
    [task_id] = fake.live
    fake.on("delete", LIE, LOST)
    assert await fake.delete(task_id, timeout=1) is True
    assert fake.live == {task_id}
    with pytest.raises(ConnectionFailed):
        await fake.delete(task_id, timeout=1)
    assert not fake.live


@virtual
async def test_latency_is_spent_half_before_and_half_after_the_effect() -> None:
    fake = FakeSigmic(latency=2)
    with pytest.raises(ConnectionFailed):
        await fake.create(HELLO, timeout=0.9)
    assert not fake.tasks
    with pytest.raises(ConnectionFailed):
        await fake.create(HELLO, timeout=1.1)
    assert len(fake.tasks) == 1
    fake.on("create", 4)
    began = anyio.current_time()
    await fake.create(HELLO, timeout=10)
    assert anyio.current_time() == began + 4


async def test_a_function_may_push_the_task_to_a_race_before_the_request_takes_effect() -> None:
    fake = FakeSigmic()
    task_id = fake.add()

    async def completes_first(call: Call) -> None:
        assert call.task_id is not None
        await anyio.sleep(0)
        fake.complete(call.task_id)

    fake.on("delete", completes_first, lambda call: LIE)
    with pytest.raises(ValidationError):
        await fake.delete(task_id, timeout=1)
    assert fake.tasks[task_id].status == "completed"
    assert await fake.delete(task_id, timeout=1) is True


@pytest.mark.parametrize("answer", [False, True])
async def test_a_gate_holds_requests_before_or_after_their_effect(answer: bool) -> None:
    fake = FakeSigmic()
    gate = fake.gate("create", answer=answer)
    ids = []

    async def create() -> None:
        ids.append(await fake.create(HELLO, timeout=10))

    async with anyio.create_task_group() as group:
        group.start_soon(create)
        group.start_soon(create)
        await gate.entered.wait()
        await fake.until(lambda: fake.in_flight("create") == 2)
        assert bool(fake.tasks) is answer
        assert not ids
        gate.open()
    assert len(ids) == fake.peak("create") == 2
    assert gate.waiting == fake.in_flight("create") == 0


async def test_an_anyio_cancellation_passes_through_a_request_unchanged() -> None:
    fake = FakeSigmic()
    fake.always("get", HANG)
    ended = []

    async def get() -> None:
        try:
            await fake.get("x", timeout=60)
        except BaseException as error:
            ended.append(error)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(get)
        await fake.until(lambda: fake.in_flight("get"))
        group.cancel_scope.cancel()
    assert isinstance(ended[0], anyio.get_cancelled_exc_class())


@pytest.mark.backends(ASYNCIO)
async def test_a_native_cancellation_passes_through_a_request_unchanged() -> None:
    fake = FakeSigmic()
    fake.always("get", HANG)
    task = asyncio.create_task(fake.get("x", timeout=60))
    await fake.until(lambda: fake.in_flight("get"))
    task.cancel("mine")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_the_list_has_the_most_recent_activity_first_and_pages() -> None:
    fake = FakeSigmic()
    first, second, third = (fake.add(name, MARK=name) for name in "abc")
    fake.complete(first)
    await fake.send(second, "go on", timeout=1)
    page = await fake.list(limit=2, timeout=1)
    assert [task.id for task in page.tasks] == [second, first]
    assert (page.total, page.has_more) == (3, True)
    assert page.tasks[0].env == {"MARK": "b"}
    assert page.tasks[0].message_count == 2
    assert page.tasks[0].output is None
    page = await fake.list(limit=2, offset=2, timeout=1)
    assert ([task.id for task in page.tasks], page.has_more) == ([third], False)
    for limit in (0, 101):
        with pytest.raises(ValidationError):
            await fake.list(limit=limit, timeout=1)


@virtual
async def test_a_stream_tells_history_then_what_was_said_then_what_is_said() -> None:
    fake = FakeSigmic()
    fake.script("count", duration=3, chunks=["one ", "two"])
    task_id = fake.add("count")
    await anyio.sleep(1.5)
    early = await fake.stream(task_id, timeout=1, silence=45)
    events = await drain(early)
    assert [name for name, _ in events] == [
        "history_message",
        "history_done",
        "status",
        "content",
        "content",
        "done",
    ]
    assert events[1][1] == {"messageCount": 1, "isStreaming": True}
    assert events[-1][1] == {"finalResponse": "one two"}
    late = await drain(await fake.stream(task_id, timeout=1, silence=45))
    assert [name for name, _ in late] == ["history_message", "history_message", "history_done"]
    assert late[-1][1] == {"messageCount": 2, "isStreaming": False}
    assert fake.open_streams == 0


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
async def test_an_open_stream_ends_when_its_task_does(end: str) -> None:
    fake = FakeSigmic()
    task_id = fake.add()
    stream = await fake.stream(task_id, timeout=1, silence=45)
    events: list[str] = []

    async def read() -> None:
        events.extend(name for name, _ in await drain(stream))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        getattr(fake, end)(task_id)
    last = {"complete": ["content", "done"], "fail": ["error"], "cancel": []}
    assert events == ["history_message", "history_done", "status", *last[end]]


async def test_a_stream_breaks_falls_silent_and_is_closed() -> None:
    fake = FakeSigmic()
    task_id = fake.add()
    stream = await fake.stream(task_id, timeout=1, silence=0.01)
    assert await stream.receive()
    fake.on("receive", HANG)
    with pytest.raises(ConnectionFailed):
        await stream.receive()
    stream = await fake.stream(task_id, timeout=1, silence=45)
    fake.drop_streams()
    with pytest.raises(ConnectionFailed):
        await stream.receive()
    stream = await fake.stream(task_id, timeout=1, silence=45)
    assert await stream.receive()
    async with anyio.create_task_group() as group:
        group.start_soon(_close_when_blocked, stream)
        with pytest.raises(ConnectionFailed):
            await stream.receive()
    with pytest.raises(ConnectionFailed):
        await stream.receive()
    stream.close()
    assert fake.open_streams == 0


async def _close_when_blocked(stream: EventStream) -> None:
    await anyio.wait_all_tasks_blocked()
    stream.close()


@virtual
async def test_a_follow_up_takes_an_ended_task_back_to_running() -> None:
    fake = FakeSigmic(duration=1, answer="first")
    fake.script("and then?", duration=5, answer="second")
    task_id = fake.add()
    await anyio.sleep(1)
    assert await fake.send(task_id, "and then?", timeout=1) == "running"
    assert fake.live == {task_id}
    assert fake.tasks[task_id].completed_at is None
    events = await drain(await fake.stream(task_id, timeout=1, silence=45))
    assert events[-1] == ("done", {"finalResponse": "second"})
    assert [role for role, _ in fake.tasks[task_id].messages] == ["user", "assistant"] * 2


async def test_no_follow_up_can_be_sent_to_a_cancelled_task() -> None:
    fake = FakeSigmic()
    task_id = fake.add()
    fake.cancel(task_id)
    with pytest.raises(ValidationError):
        await fake.send(task_id, "hello?", timeout=1)
    assert not fake.live


@virtual
@pytest.mark.parametrize("outcome", ["proceed_once", "cancel"])
async def test_a_task_that_asks_goes_on_once_it_is_answered(outcome: str) -> None:
    fake = FakeSigmic()
    fake.script("careful", duration=5, approval="shell")
    task_id = fake.add("careful")
    await anyio.sleep(60)
    info = await fake.get(task_id, timeout=1)
    assert info.status == "awaiting_approval"
    assert info.pending_approvals is not None
    call_id = info.pending_approvals[0].call_id
    with pytest.raises(TaskNotFound):
        await fake.approve(task_id, "other", "cancel", timeout=1)
    approved = await fake.approve(task_id, call_id, outcome, timeout=1)  # type: ignore[arg-type]
    assert approved is (outcome == "proceed_once")
    assert fake.tasks[task_id].status == "running"
    await anyio.sleep(5)
    assert fake.tasks[task_id].status == "completed"
    assert fake.tasks[task_id].approvals == [outcome]


@virtual
async def test_asking_by_hand_stops_the_clock_of_the_work() -> None:
    fake = FakeSigmic(duration=10)
    task_id = fake.add()
    await anyio.sleep(9)
    fake.ask(task_id)
    await anyio.sleep(100)
    assert fake.tasks[task_id].status == "awaiting_approval"
    await fake.approve(task_id, "call-1", "proceed_always", timeout=1)
    await anyio.sleep(9)
    assert fake.live == {task_id}
    await anyio.sleep(1)
    assert not fake.live


@virtual
async def test_until_wakes_for_what_happens_by_itself() -> None:
    fake = FakeSigmic(duration=86400)
    fake.add()
    await fake.until(lambda: not fake.live)
    assert anyio.current_time() >= 86400


async def test_a_closed_fake_refuses_requests_until_it_is_reopened() -> None:
    fake = FakeSigmic()
    task_id = fake.add()
    stream = await fake.stream(task_id, timeout=1, silence=45)
    await fake.aclose()
    with pytest.raises(ConnectionFailed) as caught:
        await fake.get(task_id, timeout=1)
    assert not caught.value.sent
    with pytest.raises(ConnectionFailed):
        await stream.receive()
    fake.reopen()
    assert (await fake.get(task_id, timeout=1)).status == "running"


@virtual
async def test_twenty_thousand_tasks_cost_no_timer_each() -> None:
    fake = FakeSigmic(duration=60)
    for number in range(20_000):
        fake.add(str(number))
    assert len(fake.live) == 20_000
    await anyio.sleep(60)
    assert not fake.live


def test_a_misspelt_method_is_refused() -> None:
    with pytest.raises(ValueError, match="delete"):
        FakeSigmic().on("remove", LIE)


def test_the_truth_can_be_read_when_the_loop_is_gone() -> None:
    fake = FakeSigmic()

    async def main() -> str:
        return await fake.create(HELLO, timeout=1)

    task_id = anyio.run(main)
    assert fake.live == {task_id}
    assert fake.tasks[task_id].status == "running"


@virtual
async def test_reads_that_lag() -> None:
    """They tell how things were then; a DELETE of what did not exist then is refused."""
    fake = FakeSigmic(answer="old", read_lag=2.0)
    old = fake.add("there before")
    await anyio.sleep(2)
    task_id = await fake.create(HELLO, timeout=1)
    for read in (fake.get, fake.delete):
        with pytest.raises(TaskNotFound):
            await read(task_id, timeout=1)
    with pytest.raises(TaskNotFound):
        await fake.stream(task_id, timeout=1, silence=1)
    assert [info.id for info in (await fake.list(timeout=1)).tasks] == [old]
    await anyio.sleep(2)
    fake.complete(task_id)
    assert (await fake.get(task_id, timeout=1)).status == "running"
    stream = await fake.stream(task_id, timeout=1, silence=1)
    assert (await drain(stream))[-1] == ("done", {"finalResponse": "old"})
    await anyio.sleep(2)
    await fake.send(task_id, "again", timeout=1)
    shown = await fake.get(task_id, timeout=1)
    assert (shown.status, shown.output and shown.output.content) == ("completed", "old")
    [row, _] = (await fake.list(timeout=1)).tasks
    assert (row.id, row.status, row.message_count) == (task_id, "completed", 2)
    assert (await drain(await fake.stream(task_id, timeout=1, silence=1)))[-1][0] == "history_done"
    fake.read_lag = 0
    assert (await fake.get(task_id, timeout=1)).status == "running"
    fake.read_lag = 2.0
    assert (await fake.get(task_id, timeout=1)).status == "running"
    assert await fake.delete(task_id, timeout=1)


@pytest.mark.parametrize("lag", [-1.0, float("nan"), float("inf")])
def test_a_lag_that_cannot_be(lag: float) -> None:
    with pytest.raises(ValueError, match="lag"):
        FakeSigmic(read_lag=lag)


async def test_swapped_answers() -> None:
    """``get`` tells of the task that was active last, ``create`` gives its id if it lives."""
    fake = FakeSigmic()
    fake.on("create", None, SWAPPED)
    first = await fake.create(HELLO, timeout=1)
    fake.on("get", SWAPPED)
    assert (await fake.get(first, timeout=1)).id not in fake.tasks  # there is no other
    assert await fake.create(HELLO, timeout=1) == first
    [_, second] = fake.created
    assert {first, second} == fake.live
    fake.on("get", SWAPPED, SWAPPED)
    assert (await fake.get(first, timeout=1)).id == second
    assert (await fake.get(second, timeout=1)).id == first
