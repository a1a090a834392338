"""Tasks that exist already: a request adopts one, and a ``TaskStream`` shows what it does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sigmic_guard import ConfigurationError, RemoteTask, TaskCancelled, TaskNotFound
from sigmic_guard.integrations import asgi, sse, starlette
from sigmic_guard.integrations.asgi import TaskStream
from sigmic_guard.integrations.requests import RequestTasks
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.integrations.driver import Bench, Exchange, bench, tasks_in
from tests.integrations.test_streams import events

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Receive, Scope, Send

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)

KINDS = pytest.mark.parametrize("kind", [asgi.TaskStream, starlette.TaskStream])
ANSWERS = {("completed", "none"): 1}
#: Messages until a stream of a task that says nothing is quiet: its start, and what is known of it.
QUIET = 5


def follow(
    at: Bench,
    task: RemoteTask | str,
    message: str | None = None,
    kind: Any = TaskStream,
    **how: Any,
) -> Exchange:
    """Adopt a task, and stream it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks = tasks_in(scope)
        await kind(tasks, message, task=await tasks.adopt(task, **how))(scope, receive, send)

    return at.request(app)


def watch(at: Bench, task: RemoteTask, **options: Any) -> Exchange:
    """Stream a task that the request does not own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await TaskStream(tasks_in(scope), task=task, **options)(scope, receive, send)

    return at.request(app)


def begin(at: Bench, **options: Any) -> Exchange:
    """Stream a new task."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await TaskStream(tasks_in(scope), "m", **options)(scope, receive, send)

    return at.request(app)


async def in_the_background(at: Bench) -> RemoteTask:
    return await at.guard.supervisor.start("in the background")


async def completed(at: Bench) -> str:
    """Have a task end its first turn, and return its id."""
    task = await in_the_background(at)
    at.fake.complete(task.id)
    await task.wait()
    return task.id


@KINDS
async def test_a_follow_up_is_a_stream_like_another(kind: Any) -> None:
    async with bench(duration=1) as at:
        task_id = (await at.guard.supervisor.run("a question")).id
        assert task_id is not None
        for _ in range(2):
            request = follow(at, task_id, "and then?", kind)
            await request.over.wait()
            assert request.error is None
            assert request.complete
            said = events(request.body)
            assert said[0] == ("start", {"id": task_id})
            assert said[-1] == ("end", {"outcome": "completed", "reason": None})
        assert not at.guard.supervisor.tasks


@pytest.mark.parametrize("how", ["cancel", None])
async def test_a_hang_up_ends_a_quiet_follow_up(how: str | None) -> None:
    async with bench() as at:
        task_id = await completed(at)
        request = follow(at, task_id, "and then?", on_disconnect=how)
        await at.until_live(1)
        await request.until_sent(QUIET)
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        await at.until_finished({("completed", "none"): 1, ("cancelled", "scope"): 1})


async def test_one_that_is_kept_is_left_to_the_service() -> None:
    async with bench(on_disconnect="keep") as at:
        task = await in_the_background(at)
        request = follow(at, task)
        await request.until_sent(QUIET)
        request.hang_up()
        await request.over.wait()
        assert task.reason is None
        at.fake.complete(task.id)
        await task.wait()
        await at.until_finished(ANSWERS)


async def test_a_hang_up_before_the_follow_up_leaves_nothing_live() -> None:
    async with bench(on_disconnect="keep") as at:
        task_id = await completed(at)
        gate = at.fake.gate("get")
        request = follow(at, task_id, "and then?")
        at.fake.always("send", TaskNotFound("gone", code="NOT_FOUND", status=404))
        await request.until_listening()
        request.hang_up()
        gate.open()
        await request.over.wait()
        assert not at.guard.supervisor.tasks


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_one_may_go_on_for_some_seconds_and_be_taken_up_again() -> None:
    """As by a page that has lost its connection, and comes back for the task."""
    async with bench(on_disconnect=30) as at:
        first = begin(at)
        await first.until_sent(QUIET)
        [task] = at.guard.supervisor.tasks.values()
        first.hang_up()
        await anyio.sleep(20)
        assert at.fake.live
        again = follow(at, task)
        await again.until_sent(QUIET)
        await anyio.sleep(20)
        assert first.over.is_set()
        assert first.error is None
        assert task.reason is None
        again.hang_up()
        await again.over.wait()
        await anyio.sleep(29)
        assert at.fake.live
        await anyio.sleep(2)
        assert not at.fake.live


@pytest.mark.parametrize("owner", ["first", "second"])
async def test_the_last_of_two_requests_ends_it(owner: str) -> None:
    async with bench() as at:
        begun = begin(at)
        await begun.until_sent(QUIET)
        [task] = at.guard.supervisor.tasks.values()
        adopted = follow(at, task)
        await adopted.until_sent(QUIET)
        leaves, stays = (begun, adopted) if owner == "second" else (adopted, begun)
        leaves.hang_up()
        await leaves.over.wait()
        assert leaves.error is None
        assert task.reason is None
        assert at.fake.live
        stays.hang_up()
        await stays.over.wait()
        await at.until_finished({("cancelled", "scope"): 1})


async def test_a_cancel_button_ends_it_for_both() -> None:
    async with bench() as at:
        begun = begin(at)
        await begun.until_sent(QUIET)
        [task] = at.guard.supervisor.tasks.values()
        adopted = follow(at, task)
        await adopted.until_sent(QUIET)
        task.request_cancel()
        for request in begun, adopted:
            await request.over.wait()
            assert request.error is None
            assert events(request.body)[-1] == ("end", {"outcome": "cancelled", "reason": "user"})
            assert request.complete


async def test_who_only_watches_ends_nothing() -> None:
    async with bench() as at:
        task = await in_the_background(at)
        gone, stays = watch(at, task), watch(at, task)
        for request in gone, stays:
            await request.until_sent(QUIET)
        gone.hang_up()
        await gone.over.wait()
        assert gone.error is None
        assert task.reason is None
        at.fake.complete(task.id)
        await stays.over.wait()
        assert events(stays.body)[-1] == ("end", {"outcome": "completed", "reason": None})
        await at.until_finished(ANSWERS)


@pytest.mark.parametrize("on_shutdown", ["cancel", "detach"])
async def test_the_farewell_is_the_last_thing_said(on_shutdown: Any) -> None:
    left = 1 if on_shutdown == "detach" else 0
    async with bench(left=left, retry_after=7) as at:
        task = await at.guard.supervisor.start("m", on_shutdown=on_shutdown)
        adopted, watching = follow(at, task, on_disconnect="keep"), watch(at, task)
        own = watch(at, task, farewell="event: bye\ndata: 1\n\n")
        for request in adopted, watching, own:
            await request.until_sent(QUIET)
        at.guard.supervisor.request_shutdown()
        for request in adopted, watching, own:
            await request.over.wait()
            assert request.error is None
            assert request.complete
        for request in adopted, watching:
            assert request.body.endswith(sse.farewell_bytes(7.0))
            assert request.body.count(b"event: shutdown") == 1
        assert own.body.endswith(b"event: bye\ndata: 1\n\n")


async def test_a_follow_up_while_it_drains_is_refused() -> None:
    async with bench() as at:
        task_id = await completed(at)
        at.guard.supervisor.request_shutdown()
        request = follow(at, task_id, "too late")
        await request.over.wait()
        assert request.status == 503
        assert request.headers[b"retry-after"] == b"2"


@pytest.mark.parametrize("how", ["cancel", "keep"])
async def test_a_follow_up_that_is_refused_leaves_nothing_live(how: str) -> None:
    async with bench() as at:
        task_id = await completed(at)
        at.fake.cancel(task_id)
        refusal = TaskNotFound("gone", code="NOT_FOUND", status=404)
        at.fake.always("send", refusal)
        request = follow(at, task_id, "and then?", on_disconnect=how)
        await request.over.wait()
        assert isinstance(request.error, TaskNotFound)
        assert not request.sent
        assert not at.guard.supervisor.tasks


@pytest.mark.parametrize("owned", [True, False])
async def test_an_encode_that_raises_ends_what_is_adopted_and_nothing_else(owned: bool) -> None:
    def encode(event: object) -> bytes:
        raise ZeroDivisionError

    async with bench() as at:
        task = await in_the_background(at)
        kind = partial(TaskStream, encode=encode)
        request = follow(at, task, kind=kind) if owned else watch(at, task, encode=encode)
        await request.over.wait()
        assert isinstance(request.error, ZeroDivisionError)
        assert (task.reason is not None) is owned


async def test_a_websocket_that_is_cut_ends_what_it_adopted() -> None:
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        adopted = await tasks_in(scope).adopt(task)
        async for event in adopted.events():
            await send({"type": "websocket.send", "text": event.type})
        await adopted.result()

    async with bench() as at:
        task = await in_the_background(at)
        websocket = at.websocket(chat)
        await websocket.until_sent(2)
        websocket.hang_up()
        await websocket.over.wait()
        assert websocket.error is None
        await at.until_finished({("cancelled", "scope"): 1})


async def test_a_deploy_closes_a_websocket_with_what_it_adopted() -> None:
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        adopted = await tasks_in(scope).adopt(task)
        ready.set()
        await adopted.result()

    ready = anyio.Event()
    async with bench() as at:
        task = await in_the_background(at)
        websocket = at.websocket(chat)
        await ready.wait()
        at.guard.supervisor.request_shutdown()
        await websocket.over.wait()
        assert websocket.error is None
        assert websocket.sent[-1]["code"] == 1012


async def test_who_has_hung_up_adopts_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks = tasks_in(scope)
        tasks.listen()
        await receive()
        with pytest.raises(TaskCancelled):
            await tasks.adopt(task)

    async with bench() as at:
        task = await in_the_background(at)
        request = at.request(app)
        await request.until_listening()
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        assert task.reason is None


async def test_what_makes_no_sense_is_refused() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks = tasks_in(scope)
        with pytest.raises(ConfigurationError, match="give a message"):
            TaskStream(tasks)
        with pytest.raises(ConfigurationError, match=r"tasks\.adopt"):
            TaskStream(tasks, task=task, on_disconnect="keep")
        with pytest.raises(ConfigurationError, match="supervised already"):
            await tasks.adopt(task.id)

    async with bench() as at:
        task = await in_the_background(at)
        request = at.request(app)
        await request.over.wait()
        assert request.error is None


async def test_without_the_call_upon_a_hang_up_a_quiet_stream_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: what is watched is not ended, so only the call ends its stream."""
    monkeypatch.setattr(RequestTasks, "listen", without_call(RequestTasks.listen))
    async with bench() as at:
        task = await in_the_background(at)
        request = watch(at, task)
        await request.until_sent(QUIET)
        await settle()
        request.hang_up()
        await request.until_taken(1)
        await settle()
        assert not request.over.is_set()
        at.fake.complete(task.id)
        await request.over.wait()


def without_call(listen: Any) -> Any:
    return lambda tasks, hung_up=None: listen(tasks)


async def settle() -> None:
    for _ in range(50):
        await anyio.lowlevel.checkpoint()
