"""``TaskStream``: a response that owns its task, and tells the client how that ends."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sigmic_guard import ConfigurationError, TaskEvent, ValidationError
from sigmic_guard.integrations import asgi, sse, starlette
from sigmic_guard.integrations.asgi import TaskStream
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.integrations.driver import Bench, Exchange, bench, tasks_in

if TYPE_CHECKING:
    from sigmic_guard.integrations.asgi.protocol import Receive, Scope, Send

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)

KINDS = pytest.mark.parametrize("kind", [asgi.TaskStream, starlette.TaskStream])


def serve(at: Bench, kind: Any = TaskStream, message: str = "m", **options: Any) -> Exchange:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await kind(tasks_in(scope), message, **options)(scope, receive, send)

    return at.request(app)


def events(body: bytes) -> list[tuple[str, Any]]:
    """Read a body as a browser would. Source: the HTML standard, 9.2.6."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


@KINDS
async def test_what_the_task_does_and_how_it_ends(kind: Any) -> None:
    async with bench(duration=1) as at:
        request = serve(at, kind)
        await request.over.wait()
        assert request.error is None
        assert request.status == 200
        assert request.headers[b"content-type"].startswith(b"text/event-stream")
        assert request.headers[b"cache-control"] == b"no-store"
        assert b"content-length" not in request.headers
        assert request.complete
        said = events(request.body)
        assert said[0] == ("start", {"id": next(iter(at.fake.tasks))})
        assert "".join(d["text"] for name, d in said if name == "content") == "the answer"
        assert said[-1] == ("end", {"outcome": "completed", "reason": None})
        assert at.lab.finished == {("completed", "none"): 1}


async def test_a_hang_up_ends_a_quiet_stream() -> None:
    async with bench() as at:
        request = serve(at)
        await at.until_live(1)
        await request.until_sent(1)
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        await at.until_finished({("cancelled", "scope"): 1})


async def test_a_client_that_is_gone_when_something_is_sent_has_hung_up() -> None:
    async with bench() as at:
        request = serve(at)
        await request.until_sent(1)
        request.gone = True
        [task_id] = at.fake.live
        at.fake.ask(task_id)
        await request.over.wait()
        assert request.error is None
        await at.until_finished({("cancelled", "scope"): 1})


async def test_one_that_is_kept_runs_to_its_end_without_a_client() -> None:
    async with bench(on_disconnect="keep") as at:
        request = serve(at)
        await at.until_live(1)
        await request.until_sent(1)
        request.hang_up()
        await request.until_taken(1)
        at.fake.complete(*at.fake.live)
        await request.over.wait()
        assert request.error is None
        await at.until_finished({("completed", "none"): 1})


async def test_a_cancel_button_is_told_as_the_end() -> None:
    async with bench() as at:
        request = serve(at)
        await request.until_sent(1)
        [task] = at.guard.supervisor.tasks.values()
        task.request_cancel()
        await request.over.wait()
        assert request.error is None
        assert events(request.body)[-1] == ("end", {"outcome": "cancelled", "reason": "user"})
        assert request.complete


async def test_a_failure_is_told_as_the_end() -> None:
    async with bench() as at:
        request = serve(at)
        await request.until_sent(1)
        [task_id] = at.fake.live
        at.fake.fail(task_id, "it broke")
        await request.over.wait()
        assert request.error is None
        assert events(request.body)[-1] == ("end", {"outcome": "failed", "reason": None})


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_deadline_is_told_as_the_end() -> None:
    async with bench() as at:
        request = serve(at, timeout=60)
        await request.over.wait()
        assert events(request.body)[-1] == ("end", {"outcome": "timed_out", "reason": "deadline"})
        assert request.complete


async def test_where_there_is_no_task_there_is_no_response() -> None:
    refusal = ValidationError("no", code="VALIDATION_ERROR", status=400)
    async with bench() as at:
        at.fake.always("create", refusal)
        request = serve(at)
        await request.over.wait()
        assert isinstance(request.error, ValidationError)
        assert not request.sent


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_silence_is_broken_by_heartbeats() -> None:
    async with bench() as at:
        request = serve(at, heartbeat=10)
        await request.until_sent(1)
        await anyio.sleep(35)
        assert request.body.count(sse.HEARTBEAT) == 3
        request.hang_up()
        await request.over.wait()


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_none_sends_no_heartbeat() -> None:
    async with bench() as at:
        request = serve(at, heartbeat=None)
        await anyio.sleep(100)
        assert sse.HEARTBEAT not in request.body
        request.hang_up()
        await request.over.wait()


async def test_a_heartbeat_of_less_than_a_second_is_refused() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ConfigurationError, match="heartbeat"):
            TaskStream(tasks_in(scope), "m", heartbeat=0.5)

    async with bench() as at:
        await at.request(app).over.wait()


@KINDS
async def test_the_farewell_is_the_last_thing_said(kind: Any) -> None:
    async with bench(retry_after=7) as at:
        default, own = serve(at, kind), serve(at, kind, farewell="event: bye\ndata: 1\n\n")
        await default.until_sent(1)
        await own.until_sent(1)
        at.guard.supervisor.request_shutdown()
        await default.over.wait()
        await own.over.wait()
        assert default.body.endswith(sse.farewell_bytes(7.0))
        assert own.body.endswith(b"event: bye\ndata: 1\n\n")
        assert b"shutdown" not in own.body
        assert default.complete
        assert own.complete


async def test_another_encoding() -> None:
    def encode(event: TaskEvent) -> str | None:
        return event.text or None

    class Text(TaskStream):
        media_type = "text/plain; charset=utf-8"

    async with bench(duration=1) as at:
        request = serve(at, partial(Text, encode=encode))
        await request.over.wait()
        assert request.body == b"the answer"
        assert request.headers[b"content-type"] == b"text/plain; charset=utf-8"


async def test_an_encode_that_raises_ends_the_task() -> None:
    def encode(event: TaskEvent) -> bytes:
        raise ZeroDivisionError

    async with bench(duration=1) as at:
        request = serve(at, encode=encode)
        await request.over.wait()
        assert isinstance(request.error, ZeroDivisionError)
        await at.until_live(0)


def test_a_replayed_event_is_not_sent_again() -> None:
    assert sse.encode_event(TaskEvent("content", {"text": "x"}, replayed=True)) is None


@pytest.mark.parametrize("kind", ["a\nb", "a\r\nb", "a\rdata: b"])
def test_an_events_name_is_one_line(kind: str) -> None:
    assert len(sse.event_bytes(kind, 1).splitlines()) == 3
