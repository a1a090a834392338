"""A request's tasks end with it, and with its client: each trap that hosts and frameworks set."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sigmic_guard import CancelReason, ConfigurationError, SupervisorShutdown, TaskCancelled
from sigmic_guard.integrations.asgi import Guard, OnDisconnect, RequestTasks
from sigmic_guard.integrations.asgi.receiving import MOST_BYTES
from sigmic_guard.supervisor.face.members import Members
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.integrations.driver import Exchange, bench, tasks_in
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sigmic_guard.integrations.asgi.protocol import Message, Receive, Scope, Send

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)

OK: Message = {"type": "http.response.start", "status": 200, "headers": []}
EVENTS: Message = {**OK, "headers": [(b"content-type", b"text/event-stream")]}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def generate(tasks: RequestTasks) -> AsyncGenerator[bytes]:
    async with tasks.task("generated"):
        yield b"first"
        yield b"second"


async def runs(scope: Scope, receive: Receive, send: Send) -> None:
    """Await ``run()``, and read nothing."""
    result = await tasks_in(scope).run("a question")
    await send(OK)
    await send(body((result.final_response or "").encode()))


async def chats(scope: Scope, receive: Receive, send: Send) -> None:
    """Do the same in a websocket."""
    await send({"type": "websocket.accept"})
    await tasks_in(scope).run("a question")
    await send({"type": "websocket.close"})


# --- hanging up -------------------------------------------------------------------------------


async def test_a_handler_that_does_not_read_ends_when_its_client_hangs_up() -> None:
    async with bench() as at:
        request = at.request(runs)
        await at.until_live(1)
        await request.until_listening()
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        assert request.sent == []
        await at.until_finished({("cancelled", "scope"): 1})


async def test_a_quiet_websocket_ends_when_its_client_hangs_up() -> None:
    async with bench() as at:
        websocket = at.websocket(chats)
        await at.until_live(1)
        websocket.hang_up()
        await websocket.over.wait()
        assert websocket.error is None
        assert not at.fake.live


async def test_without_a_reader_nobody_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the pump is what hears it."""
    monkeypatch.setattr(Guard, "spawn", lambda self, run: False)
    async with bench() as at:
        request = at.request(runs)
        await at.until_live(1)
        request.hang_up()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert at.fake.live
        assert not request.over.is_set()
        at.fake.complete(*at.fake.live)
        await request.over.wait()


async def test_the_application_that_reads_hears_of_it_as_ever() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = await tasks_in(scope).start("in the background", on_disconnect="cancel")
        started.set()
        heard.extend([await receive(), await receive(), await receive()])
        assert tasks_in(scope).disconnected
        await task.wait()

    started = anyio.Event()
    async with bench() as at:
        request = at.request(app)
        request.say(type="http.request", body=b"b", more_body=False)
        await started.wait()
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        assert [message["type"] for message in heard] == ["http.request", *2 * ["http.disconnect"]]
        assert not at.fake.live


@pytest.mark.backends(TRIO_VIRTUAL)
@pytest.mark.parametrize("how, seconds", [("cancel", 0), (30, 30)])
async def test_what_was_started_ends_in_time_though_its_request_is_over(
    how: OnDisconnect, seconds: int
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await tasks_in(scope).start("in the background", on_disconnect=how)
        await receive()

    async with bench() as at:
        request = at.request(app)
        await at.until_live(1)
        request.hang_up()
        await request.over.wait()
        if seconds:
            await anyio.sleep(seconds - 1)
            assert at.fake.live
        await anyio.sleep(2)
        assert not at.fake.live
        await at.until_finished({("cancelled", "scope"): 1})


async def test_a_body_that_was_read_ahead_arrives_whole_and_in_order() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with tasks_in(scope).task("m"):
            await told.wait()
            pieces = []
            while True:
                message = await receive()
                pieces.append(message["body"])
                if not message["more_body"]:
                    break
        await send(OK)
        await send(body(b"".join(pieces)))

    told = anyio.Event()
    async with bench() as at:
        request = at.request(app)
        await at.until_live(1)
        for number in range(40):
            request.say(type="http.request", body=b"%d," % number, more_body=number < 39)
        await request.until_taken(3)
        told.set()
        await request.over.wait()
        assert request.body == b"".join(b"%d," % number for number in range(40))


async def test_what_is_read_ahead_is_bounded() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with tasks_in(scope).task("m"):
            await told.wait()
            for _ in range(20):
                await receive()

    told = anyio.Event()
    async with bench() as at:
        request = at.request(app)
        await at.until_live(1)
        for _ in range(20):
            request.say(type="http.request", body=bytes(MOST_BYTES // 4), more_body=True)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert request.taken == 4
        told.set()
        await request.over.wait()
        assert request.error is None
        assert request.taken == 20


async def test_a_read_that_is_given_up_leaves_somebody_listening() -> None:
    """As ``request.is_disconnected()`` does, which looks whether a message is there."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope() as scope_of_read:
            scope_of_read.cancel()
            await receive()
        await tasks_in(scope).run("m")

    async with bench() as at:
        request = at.request(app)
        await at.until_live(1)
        request.hang_up()
        await request.over.wait()
        assert not at.fake.live


@pytest.mark.parametrize("on_disconnect", ["keep", 60])
async def test_a_task_that_may_go_on_does(on_disconnect: Any) -> None:
    async with bench(on_disconnect=on_disconnect) as at:
        request = at.request(runs)
        await at.until_live(1)
        request.hang_up()
        await request.until_taken(1)
        [task_id] = at.fake.live
        at.fake.complete(task_id)
        await request.over.wait()
        assert request.error is None
        await at.until_finished({("completed", "none"): 1})


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_number_of_seconds_is_how_long_it_may_go_on() -> None:
    async with bench(on_disconnect=9) as at:
        request = at.request(runs)
        await at.until_live(1)
        request.hang_up()
        began = anyio.current_time()
        await request.over.wait()
        assert anyio.current_time() - began == pytest.approx(9, abs=0.1)
        assert request.error is None


async def test_each_call_can_say_what_a_hang_up_means_for_it() -> None:
    outcomes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks = tasks_in(scope)
        async with tasks.task("kept", on_disconnect="keep") as kept:
            try:
                await tasks.run("cancelled")
            except TaskCancelled as error:
                outcomes.append(str(error.reason))
            at.fake.complete(kept.id)
            outcomes.append((await kept.result()).outcome)
            with pytest.raises(TaskCancelled, match="hung up"):
                tasks.task("too late")

    async with bench() as at:
        request = at.request(app)
        await at.until_live(2)
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        assert outcomes == ["scope", "completed"]


# --- the end of a request ---------------------------------------------------------------------


async def test_a_background_task_outlives_its_request() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await tasks_in(scope).start("in the background")
        await send({**OK, "status": 202})
        await send(body())

    async with bench() as at:
        request = at.request(app)
        await request.over.wait()
        request = at.request(app)
        await request.over.wait()
        await anyio.lowlevel.checkpoint()
        assert len(at.fake.live) == 2


async def test_a_hang_up_after_the_response_is_none() -> None:
    """Frameworks run their background tasks inside of the application's call."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with tasks_in(scope).task("m") as task:
            await send(OK)
            await send(body(b"done"))
            assert (await receive())["type"] == "http.disconnect"
            assert not tasks_in(scope).disconnected
            at.fake.complete(task.id)
            await task.result()

    async with bench() as at:
        request = at.request(app)
        await request.until_sent(2)
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        await at.until_finished({("completed", "none"): 1})


async def test_a_generator_that_was_left_behind_keeps_no_task() -> None:
    left: list[AsyncGenerator[bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        generator = generate(tasks_in(scope))
        left.append(generator)
        await send(OK)
        await send(body(await anext(generator)))

    async with bench() as at:
        request = at.request(app)
        await request.over.wait()
        assert request.error is None
        await at.until_finished({("cancelled", "scope"): 1})
        await left[0].aclose()


async def test_without_the_end_by_record_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        generator = generate(tasks_in(scope))
        left.append(generator)
        await anext(generator)

    left: list[AsyncGenerator[bytes]] = []
    monkeypatch.setattr(Members, "end", lambda self: None)
    async with bench() as at:
        request = at.request(app)
        await request.over.wait()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert at.fake.live
        with suppress(ConfigurationError):
            await left[0].aclose()


async def test_a_generator_that_stands_before_a_client_that_does_not_read() -> None:
    """The hang-up strikes ``send()``: it comes out past the generator, and is no error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OK)
        generator = generate(tasks_in(scope))
        left.append(generator)
        async for piece in generator:
            await send(body(piece, more=True))

    left: list[AsyncGenerator[bytes]] = []
    async with bench() as at:
        request = at.request(app)
        await request.until_sent(2)
        request.writable = anyio.Event()
        await at.until_live(1)
        await request.until_listening()
        request.hang_up()
        await request.over.wait()
        assert request.error is None
        await at.until_live(0)
        await left[0].aclose()


@pytest.mark.parametrize("end", ["hang-up", "shutdown"])
async def test_a_generator_that_a_framework_reads_in_a_task_of_its_own(end: str) -> None:
    """What strikes it there cannot be left in that task, and comes out as another error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(EVENTS)
        generator = generate(tasks_in(scope))
        left.append(generator)
        async with anyio.create_task_group() as group:
            group.start_soon(read, generator, send)

    async def read(generator: AsyncGenerator[bytes], send: Send) -> None:
        async for piece in generator:
            await send(body(piece, more=True))

    left: list[AsyncGenerator[bytes]] = []
    async with bench() as at:
        request = at.request(app)
        await request.until_sent(2)
        request.writable = anyio.Event()
        await at.until_live(1)
        await request.until_listening()
        if end == "hang-up":
            request.hang_up()
        else:
            at.guard.supervisor.request_shutdown()
        await at.until_live(0)
        request.writable.set()
        await request.over.wait()
        assert request.error is None
        assert request.complete == (end == "shutdown")
        await left[0].aclose()


async def test_an_error_of_the_application_goes_on_unchanged() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with tasks_in(scope).task("m"):
            raise ZeroDivisionError("mine")

    async with bench() as at:
        request = at.request(app)
        await request.over.wait()
        assert isinstance(request.error, ZeroDivisionError)
        await at.until_finished({("cancelled", "error"): 1})


async def test_the_mistake_of_a_supervisor_that_is_closed_goes_on() -> None:
    """It looks like a shutdown of ours, and is none."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with Lab().open() as another:
            pass
        await another.run("m")

    async with bench() as at:
        request = at.request(app)
        await request.over.wait()
        assert isinstance(request.error, SupervisorShutdown)


async def test_a_cancel_button_is_no_hang_up() -> None:
    async with bench() as at:
        request = at.request(runs)
        await at.until_live(1)
        while not at.guard.supervisor.tasks:
            await anyio.lowlevel.checkpoint()
        [task] = at.guard.supervisor.tasks.values()
        await task.cancel()
        await request.over.wait()
        assert isinstance(request.error, TaskCancelled)
        assert request.error.reason is CancelReason.USER


# --- the shutdown -----------------------------------------------------------------------------


async def test_a_handler_that_waits_is_refused() -> None:
    async with bench(retry_after=1.5) as at:
        request = at.request(runs)
        await at.until_live(1)
        at.guard.supervisor.request_shutdown()
        await request.over.wait()
        assert request.error is None
        assert request.status == 503
        assert request.headers[b"retry-after"] == b"2"
        assert request.headers[b"connection"] == b"close"
        assert request.complete


async def test_what_comes_during_the_drain_is_refused_and_what_needs_no_task_is_served() -> None:
    async def idle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OK)
        await send(body(b"idle"))

    async with bench() as at:
        gate = at.fake.gate("delete")
        waiting = at.request(runs)
        await at.until_live(1)
        at.guard.supervisor.request_shutdown()
        await gate.entered.wait()
        late, other, http2 = at.request(runs), at.request(idle), at.request(runs, http_version="2")
        await late.over.wait()
        await other.over.wait()
        await http2.over.wait()
        assert (late.status, other.status, http2.status) == (503, 200, 503)
        assert b"connection" not in http2.headers
        gate.open()
        await waiting.over.wait()


@pytest.mark.parametrize("status", [500, 418])
@pytest.mark.parametrize("raises", [False, True])
async def test_the_answer_of_a_framework_to_the_shutdowns_error_is_replaced(
    status: int, *, raises: bool
) -> None:
    """Litestar lets no error out, Starlette's does. What somebody says on purpose stands."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await runs(scope, receive, send)
        except SupervisorShutdown:
            await send({**OK, "status": status})
            await send(body(b"Internal Server Error"))
            if raises:
                raise

    async with bench() as at:
        request = at.request(app)
        await at.until_live(1)
        at.guard.supervisor.request_shutdown()
        await request.over.wait()
        assert request.error is None
        assert request.complete
        assert request.status == (503 if status == 500 else status)
        assert (b"Internal" in request.body) == (status != 500)


@pytest.mark.parametrize("code", [1011, 4500, 4418])
async def test_a_framework_that_closes_a_websocket_for_the_shutdowns_error_is_corrected(
    code: int,
) -> None:
    """As Litestar, which lets no error out. Another code is somebody's own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await tasks_in(scope).run("m")
        except SupervisorShutdown:
            await send({"type": "websocket.close", "code": code, "reason": "of its own"})

    async with bench() as at:
        websocket = at.websocket(app)
        websocket.say(type="websocket.connect")
        await at.until_live(1)
        at.guard.supervisor.request_shutdown()
        await websocket.over.wait()
        assert websocket.error is None
        assert [message["type"] for message in websocket.sent[1:]] == ["websocket.close"]
        assert websocket.sent[-1]["code"] == (4418 if code == 4418 else 1012)


async def test_an_error_from_the_shutdowns_error_comes_out_before_the_response_begins() -> None:
    """It can be answered, and somebody may have meant it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await runs(scope, receive, send)
        except SupervisorShutdown as error:
            raise RuntimeError("mine") from error

    async with bench() as at:
        request = at.request(app)
        await at.until_live(1)
        at.guard.supervisor.request_shutdown()
        await request.over.wait()
        assert str(request.error) == "mine"


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send(EVENTS)
    async with tasks_in(scope).task("m"):
        await send(body(b"data: first\n\n", more=True))
        await anyio.sleep_forever()


async def ends_before_it_raises(scope: Scope, receive: Receive, send: Send) -> None:
    """As ``BaseHTTPMiddleware`` and ``EventSourceResponse`` do."""
    try:
        await stream(scope, receive, send)
    except SupervisorShutdown as error:
        await send(body())
        raise ExceptionGroup("of a task group", [error]) from None


async def ends_without_an_error(scope: Scope, receive: Receive, send: Send) -> None:
    """As sse-starlette does, which looks for the shutdown by itself."""
    with suppress(SupervisorShutdown):
        await stream(scope, receive, send)


async def handles_it_itself(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await stream(scope, receive, send)
    except SupervisorShutdown:
        await send(body(b"data: my own last words\n\n"))


async def wraps_it(scope: Scope, receive: Receive, send: Send) -> None:
    """As Litestar does once the response has begun."""
    try:
        await stream(scope, receive, send)
    except SupervisorShutdown as error:
        raise RuntimeError("Exception caught after response started") from error


@pytest.mark.parametrize(
    "app", [stream, ends_before_it_raises, ends_without_an_error, handles_it_itself, wraps_it]
)
async def test_an_event_stream_ends_complete_with_a_farewell(app: Any) -> None:
    async with bench() as at:
        request = at.request(app)
        await request.until_sent(2)
        at.guard.supervisor.request_shutdown()
        await request.over.wait()
        assert request.error is None
        assert request.body.count(b"event: shutdown\n") == 1
        assert request.body.endswith(b'data: {"retry_after":2.0}\n\n')
        assert request.complete


async def test_a_stream_that_had_ended_gets_no_farewell() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(EVENTS)
        async with tasks_in(scope).task("m") as task:
            at.fake.complete(task.id)
            await task.result()
        await at.guard.supervisor.shutdown()
        await send(body(b"data: last\n\n"))

    async with bench() as at:
        request = at.request(app)
        await request.over.wait()
        assert request.body == b"data: last\n\n"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"application/x-ndjson")],
        [(b"Content-Type", b"text/event-stream"), (b"Content-Encoding", b"gzip")],
    ],
    ids=["not events", "compressed"],
)
async def test_what_can_have_no_farewell_is_cut(headers: list[tuple[bytes, bytes]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**OK, "headers": headers})
        async with tasks_in(scope).task("m"):
            await send(body(b"first", more=True))
            await anyio.sleep_forever()

    async with bench() as at:
        request = at.request(app)
        await request.until_sent(2)
        at.guard.supervisor.request_shutdown()
        await request.over.wait()
        assert request.error is None
        assert not request.complete


async def test_a_websocket_is_told_that_the_service_restarts() -> None:
    async with bench() as at:
        websocket = at.websocket(chats)
        await at.until_live(1)
        at.guard.supervisor.request_shutdown()
        await websocket.over.wait()
        assert websocket.error is None
        assert [message["type"] for message in websocket.sent] == [
            "websocket.accept",
            "websocket.close",
        ]
        assert websocket.sent[-1]["code"] == 1012


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_websocket_that_was_not_accepted_is_refused(extensions: dict[str, Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await tasks_in(scope).run("before it is accepted")

    async with bench() as at:
        websocket = at.websocket(app, extensions=extensions)
        await at.until_live(1)
        at.guard.supervisor.request_shutdown()
        await websocket.over.wait()
        assert websocket.error is None
        if extensions:
            assert websocket.status == 503
            assert websocket.sent[0]["type"] == "websocket.http.response.start"
        else:
            assert [message["type"] for message in websocket.sent] == ["websocket.close"]


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_client_that_does_not_read_gets_a_second_for_its_last_words() -> None:
    async with bench() as at:
        request = at.request(stream)
        await request.until_sent(2)
        request.writable = anyio.Event()
        at.guard.supervisor.request_shutdown()
        began = anyio.current_time()
        await request.over.wait()
        assert anyio.current_time() - began == pytest.approx(1, abs=0.1)
        assert request.error is None


# --- what passes through ----------------------------------------------------------------------


async def test_a_request_without_a_task_passes_unchanged() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.append(message)
        await send(answer[0])
        await send(answer[1])

    seen: list[Message] = []
    answer = [OK, body(b"x")]
    asked = [{"type": "http.request", "body": b"1", "more_body": True} for _ in range(3)]
    async with bench() as at:
        request = at.request(app, state={"of": "the lifespan"})
        for message in asked:
            request.say(**message)
        request.hang_up()
        await request.over.wait()
        assert seen == asked
        assert [sent is mine for sent, mine in zip(request.sent, answer, strict=True)] == [True] * 2
        assert request.scope["state"]["of"] == "the lifespan"


async def test_a_request_leaves_nothing_to_the_collector() -> None:
    """There are many of them, and a collection stops the loop."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(OK)
        await send(body(b"x"))

    async with bench() as at:
        guarded = at.guard.middleware(app)
        exchange = Exchange("http")
        exchange.hang_up()
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await guarded({"type": "http"}, exchange.receive, exchange.send)
            assert gc.collect() < 10
        finally:
            gc.enable()


async def test_the_lifespan_passes_through() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(receive)

    seen: list[Receive] = []
    async with bench() as at:
        exchange = Exchange("lifespan")
        await at.guard.middleware(app)(exchange.scope, exchange.receive, exchange.send)
        assert seen == [exchange.receive]
        assert "state" not in exchange.scope


async def test_an_application_without_a_lifespan_is_told_what_to_do() -> None:
    """As one that is mounted in another one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ConfigurationError, match="mounted in another one gets no lifespan"):
            await tasks_in(scope).run("m")
        await send(OK)

    exchange = Exchange("http")
    await Guard().middleware(app)(exchange.scope, exchange.receive, exchange.send)
    assert exchange.status == 200
