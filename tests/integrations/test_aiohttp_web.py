"""``aiohttp_web``: a request's tasks end with it, and a shutdown is told politely."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from anyio import fail_after, sleep_forever
from prometheus_client import CollectorRegistry

from sigmic_guard import ConfigurationError, LedgerError, RemoteTask, Supervisor, TaskFailed
from sigmic_guard.integrations import aiohttp_web
from sigmic_guard.integrations.aiohttp_web import setup, stream, tasks_of
from sigmic_guard.testing import FakeSigmic, Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import ClientResponse, ClientSession

#: Seconds that nothing here takes, and that aiohttp would wait for a handler.
LONG = 30.0


class Service:
    """An application that was set up, served on a port, and a client of it."""

    def __init__(self, **options: Any) -> None:
        self.fake = FakeSigmic()
        self.app = web.Application()
        self.raised: list[BaseException] = []
        options = {"client": self.fake, "ledger": "memory:", "registry": None, **options}
        setup(self.app, **options)
        self.app.router.add_get("/plain", self.plain)
        self.app.router.add_get("/run", self.run)
        self.app.router.add_get("/stream", self.stream)
        self.app.router.add_get("/own", self.own)
        self.app.router.add_get("/lines", self.lines)
        self.app.router.add_get("/start", self.start)
        self.app.router.add_get("/socket", self.socket)
        self.app.router.add_get("/again", self.again)
        self.app.router.add_get("/watch", self.watch)
        self.options: dict[str, Any] = {}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[ClientSession]:
        # Not a TestServer: it has handlers cancelled when their client hangs up, and no host does.
        self.runner = web.AppRunner(self.app, shutdown_timeout=LONG)
        await self.runner.setup()
        try:
            await web.TCPSite(self.runner, "127.0.0.1", 0).start()
            host, port = self.runner.addresses[0][:2]
            async with aiohttp.ClientSession(f"http://{host}:{port}/") as session:
                with fail_after(LONG):
                    yield session
        finally:
            await self.runner.cleanup()
        assert not self.fake.live

    async def stop(self) -> None:
        """Do what aiohttp does on SIGTERM."""
        with fail_after(LONG / 2):
            await self.runner.cleanup()

    # --- handlers ---------------------------------------------------------------------------------

    async def plain(self, _: web.Request) -> web.Response:
        return web.Response(text="as ever")

    async def run(self, request: web.Request) -> web.Response:
        try:
            result = await tasks_of(request).run("m", **self.options)
        except BaseException as error:
            self.raised.append(error)
            raise
        return web.Response(text=result.final_response or "")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        return await stream(request, "m", **self.options)

    async def own(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        return await self._hold(request, response)

    async def lines(self, request: web.Request) -> web.StreamResponse:
        return await self._hold(request, web.StreamResponse())

    async def _hold(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        await response.prepare(request)
        async with tasks_of(request).task("m", **self.options):
            await response.write(b"data: begun\n\n")
            await sleep_forever()
        return response

    async def start(self, request: web.Request) -> web.Response:
        task = await tasks_of(request).start("m", **self.options)
        return web.Response(status=202, text=task.id)

    async def again(self, request: web.Request) -> web.StreamResponse:
        tasks = tasks_of(request)
        task = await tasks.adopt(self.task, **self.options)
        return await stream(request, request.query.get("message"), task=task)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        return await stream(request, task=self.task)

    @property
    def task(self) -> RemoteTask:
        [task] = self.app[aiohttp_web._HOST].find().tasks.values()
        return task

    async def socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async with tasks_of(request).task("m"):
            await socket.send_str("begun")
            await sleep_forever()
        return socket


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Any:
    """No test here has aiohttp or asyncio log an error, but for those that take it out."""
    yield
    told = [it for it in caplog.get_records("call") if it.levelno >= logging.ERROR]
    assert [it.getMessage() for it in told if it.name != "sigmic_guard"] == []


async def live(service: Service, count: int = 1) -> None:
    await service.fake.until(lambda: len(service.fake.live) == count)


async def last_line(response: ClientResponse) -> str:
    return (await response.text()).rstrip().splitlines()[-1]


# --- as long as all goes well ---------------------------------------------------------------------


async def test_a_request_without_a_task_is_as_ever() -> None:
    service = Service()
    async with service.serve() as client, client.get("/plain") as response:
        assert (response.status, await response.text()) == (200, "as ever")
    assert not service.fake.created


async def test_a_handler_that_runs_a_task() -> None:
    service = Service()
    service.fake.script("m", duration=0.0, answer="42")
    async with service.serve() as client, client.get("/run") as response:
        assert (response.status, await response.text()) == (200, "42")


async def test_a_stream() -> None:
    """It is an event stream, tells what the task says, and how it ended."""
    service = Service()
    service.fake.script("m", duration=0.0, chunks=["one", "two"])
    async with service.serve() as client, client.get("/stream") as response:
        assert response.content_type == "text/event-stream"
        text = await response.text()
    assert "event: content" in text
    assert "onetwo" in text
    assert text.rstrip().endswith('data: {"outcome":"completed","reason":null}')


async def test_what_is_started_outlives_its_request() -> None:
    """A 202, then the client goes: the task is the service's."""
    service = Service()
    async with service.serve() as client:
        async with client.get("/start") as response:
            task_id = await response.text()
        async with client.get("/plain"):
            pass
        assert service.fake.live == {task_id}


async def test_what_a_handler_left_open_ends_with_its_request() -> None:
    """A block in a generator that nobody iterates over any more, say."""
    service = Service()
    kept: list[Any] = []

    async def leave(request: web.Request) -> web.Response:
        async def pieces() -> AsyncIterator[int]:
            async with tasks_of(request).task("m"):
                yield 1
                yield 2

        kept.append(pieces())
        async for _ in kept[0]:
            break
        return web.Response(text="done")

    service.app.router.add_get("/leave", leave)
    async with service.serve() as client:
        async with client.get("/leave") as response:
            assert await response.text() == "done"
        await live(service, 0)
        await kept[0].aclose()


async def test_a_handler_that_is_given_a_copy_of_its_request() -> None:
    """As middleware that changes something of it does; its tasks end with the request."""
    service = Service()

    @web.middleware
    async def change(request: web.Request, handler: Any) -> web.StreamResponse:
        return await handler(request.clone(scheme="https"))  # type: ignore[no-any-return]

    service.app.middlewares.append(change)
    async with service.serve() as client, client.get("/own") as response:
        await live(service)
        await service.stop()
        assert await last_line(response) == 'data: {"retry_after":2.0}'
    assert not service.app[aiohttp_web._HOST]._exchanges


async def test_a_handlers_own_error_goes_on() -> None:
    service = Service()
    service.fake.script("m", duration=0.0, fail="out of luck")

    @web.middleware
    async def explain(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            return await handler(request)  # type: ignore[no-any-return]
        except TaskFailed as error:
            return web.Response(status=502, text=error.error)

    service.app.middlewares.insert(0, explain)
    async with service.serve() as client, client.get("/run") as response:
        assert (response.status, await response.text()) == (502, "out of luck")


async def test_what_another_supervisor_says_is_no_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that nobody has entered, say: that is a bug of the handler's, and the log tells it."""
    service = Service()

    async def ask(request: web.Request) -> web.Response:
        await tasks_of(request).start("m")
        await Supervisor(client=service.fake, ledger="memory:", registry=None).run("m")
        return web.Response()

    service.app.router.add_get("/ask", ask)
    async with service.serve() as client, client.get("/ask") as response:
        assert response.status == 500
    assert "enter the supervisor first" in caplog.text
    caplog.clear()


async def test_an_application_that_was_added_takes_part() -> None:
    service = Service()
    service.fake.script("m", duration=0.0, answer="42")
    inner = web.Application()
    inner.router.add_get("/run", service.run)
    service.app.add_subapp("/inner", inner)
    async with service.serve() as client, client.get("/inner/run") as response:
        assert await response.text() == "42"


# --- the client hangs up --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/run", "/stream", "/own", "/lines"])
async def test_a_client_that_hangs_up_ends_the_task(path: str) -> None:
    """Whether the handler writes, waits for a quiet task, or never looks."""
    service = Service()
    async with service.serve() as client:
        request = asyncio.create_task(client.get(path))
        await live(service)
        if path == "/run":
            request.cancel()
        else:
            (await request).close()
        await live(service, 0)
        async with client.get("/plain") as response:
            assert response.status == 200
    assert service.fake.count("delete") == 1


async def test_a_websocket_that_is_cut_ends_the_task() -> None:
    service = Service()
    async with service.serve() as client:
        socket = await client.ws_connect("/socket")
        assert (await socket.receive()).data == "begun"
        assert socket._response.connection is not None
        transport = socket._response.connection.transport
        assert transport is not None
        transport.abort()
        await live(service, 0)
        await socket.close()


@pytest.mark.parametrize("path", ["/again", "/watch"])
async def test_a_task_that_exists_already_is_streamed(path: str) -> None:
    service = Service()
    async with service.serve() as client:
        (await client.get("/start")).close()
        async with client.get(path) as response:
            assert b"event: start" in await response.content.readuntil(b"\n")
            assert service.fake.complete(service.task.id)
            assert await last_line(response) == 'data: {"outcome":"completed","reason":null}'
        assert len(service.fake.created) == 1


@pytest.mark.parametrize("path, deletes", [("/again", 1), ("/watch", 0)])
async def test_a_client_that_hangs_up_ends_what_its_request_adopted(
    path: str, deletes: int
) -> None:
    """Quiet as it is; what the request only shows goes on."""
    service = Service()
    async with service.serve() as client:
        (await client.get("/start")).close()
        task = service.task
        response = await client.get(path)
        response.close()
        if deletes:
            await task.wait()
        await hung_up(service)
        assert len(service.fake.live) == 1 - deletes
        assert service.fake.count("delete") == deletes


async def test_an_adopted_task_that_is_kept_is_left_to_the_service() -> None:
    service = Service(on_disconnect="keep")
    async with service.serve() as client:
        (await client.get("/start")).close()
        (await client.get("/again")).close()
        await hung_up(service)
        assert service.task.reason is None


@pytest.mark.parametrize("path", ["/again", "/watch"])
async def test_a_stream_of_a_task_that_exists_ends_with_a_farewell_too(path: str) -> None:
    service = Service()
    async with service.serve() as client:
        (await client.get("/start")).close()
        async with client.get(path) as response:
            await service.stop()
            assert await last_line(response) == 'data: {"retry_after":2.0}'


async def test_a_request_may_keep_its_task() -> None:
    """The handler goes on without the client, and the task ends with it."""
    service = Service(on_disconnect="keep")
    async with service.serve() as client:
        request = asyncio.create_task(client.get("/run"))
        await live(service)
        request.cancel()
        await hung_up(service)
        [task_id] = service.fake.live
        service.fake.complete(task_id)
        await live(service, 0)
    assert service.fake.count("delete") == 0
    assert not service.raised


async def hung_up(service: Service) -> None:
    """Wait until nobody's connection is looked at any more."""
    host = service.app[aiohttp_web._HOST]
    while host._watched:
        await asyncio.sleep(0.01)


async def test_a_task_may_go_on_for_some_time() -> None:
    service = Service()
    service.options = {"on_disconnect": 0.3}
    async with service.serve() as client:
        request = asyncio.create_task(client.get("/run"))
        await live(service)
        request.cancel()
        await hung_up(service)
        assert service.fake.live
        await live(service, 0)


# --- the shutdown ---------------------------------------------------------------------------------


async def test_an_open_stream_ends_complete_with_a_farewell() -> None:
    service = Service()
    async with service.serve() as client, client.get("/stream") as response:
        await live(service)
        await service.stop()
        assert await last_line(response) == 'data: {"retry_after":2.0}'


async def test_a_stream_of_ones_own_gets_the_farewell_too() -> None:
    service = Service()
    async with service.serve() as client, client.get("/own") as response:
        await live(service)
        await service.stop()
        assert await last_line(response) == 'data: {"retry_after":2.0}'


async def test_what_has_no_farewell_does_not_look_complete() -> None:
    service = Service()
    async with service.serve() as client, client.get("/lines") as response:
        await live(service)
        await service.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.text()


async def test_a_handler_that_waits_is_answered_503() -> None:
    service = Service()
    async with service.serve() as client:
        request = asyncio.create_task(client.get("/run"))
        await live(service)
        await service.stop()
        async with await request as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "2"
            assert response.headers["Connection"] == "close"


async def test_a_create_that_is_under_way() -> None:
    """It is answered 503 as well, and its task is ended."""
    service = Service()
    gate: Gate = service.fake.gate("create")
    async with service.serve() as client:
        request = asyncio.create_task(client.get("/run"))
        await service.fake.until(lambda: service.fake.count("create"))
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0)
        gate.open()
        await stopping
        async with await request as response:
            assert response.status == 503


async def test_while_it_drains_only_new_tasks_are_refused() -> None:
    service = Service()
    async with service.serve() as client:
        async with client.get("/plain"):
            pass
        service.app[aiohttp_web._HOST].find().request_shutdown()
        async with client.get("/plain") as response:
            assert response.status == 200
        async with client.get("/run") as response:
            assert response.status == 503


async def test_a_websocket_is_closed_with_a_reason() -> None:
    service = Service()
    async with service.serve() as client:
        socket = await client.ws_connect("/socket")
        assert (await socket.receive()).data == "begun"
        stopping = asyncio.create_task(service.stop())
        message = await socket.receive()
        await stopping
    assert message.type is WSMsgType.CLOSE
    assert (message.data, message.extra) == (1012, "the service is shutting down")


async def test_a_second_signal_is_in_a_hurry() -> None:
    """aiohttp's shutdown is broken off by it, and then whatever runs is cancelled."""
    service = Service(grace=LONG)
    gate = service.fake.gate("delete", answer=True)
    async with service.serve() as client:
        request = asyncio.create_task(client.get("/run"))
        await live(service)
        stopping = asyncio.create_task(service.stop())
        await service.fake.until(lambda: service.fake.count("delete"))
        [running] = [task for task in asyncio.all_tasks() if "aiohttp_web" in task.get_name()]
        running.cancel()
        with fail_after(LONG / 2):
            await asyncio.wait({running})
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        async with await request as response:
            assert response.status == 503


async def test_a_reader_that_stalls_keeps_nobody() -> None:
    """What it was to be told last is dropped, and so is the connection."""
    service = Service()
    written = asyncio.Event()

    def encode(_: object) -> bytes:
        written.set()
        return b"x" * 2**24  # more than any socket takes

    service.options = {"encode": encode}
    async with service.serve() as client, client.get("/stream") as response:
        await written.wait()
        await service.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


# --- misuse ---------------------------------------------------------------------------------------


async def test_an_application_that_was_not_set_up() -> None:
    app = web.Application()

    async def ask(request: web.Request) -> web.Response:
        with pytest.raises(ConfigurationError, match=r"aiohttp_web\.setup\(app\)"):
            tasks_of(request)
        return web.Response(text="told")

    app.router.add_get("/", ask)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as client,
        client.get(server.make_url("/")) as response,
    ):
        assert await response.text() == "told"


def test_what_cannot_be_set_up_says_so() -> None:
    service = Service()
    with pytest.raises(ConfigurationError, match="once"):
        setup(service.app)
    with pytest.raises(ConfigurationError, match="on_disconnect"):
        Service(on_disconnect="sometimes")
    with pytest.raises(ConfigurationError, match="grace"):
        Service(grace=-1)
    with pytest.raises(ConfigurationError, match="does not run"):
        service.app[aiohttp_web._HOST].find()


async def test_a_supervisor_that_cannot_be_entered_stops_the_application(tmp_path: Any) -> None:
    """aiohttp does not start to serve, and nothing is left."""
    (tmp_path / "ledger").write_text("no database")
    service = Service(ledger=tmp_path / "ledger" / "x.db", registry=CollectorRegistry())
    with pytest.raises(LedgerError):
        await TestServer(service.app).start_server()


async def test_an_application_that_is_stopped_while_it_starts(tmp_path: Any) -> None:
    """Its supervisor is left as soon as it has been entered."""
    service = Service(ledger=tmp_path / "x.db")
    runner = web.AppRunner(service.app)
    starting = asyncio.create_task(runner.setup())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert repr(service.app[aiohttp_web._HOST]._supervisor) == "<Supervisor, closed, 0 tasks>"


async def test_started_in_one_task_and_stopped_in_another() -> None:
    """As test frameworks do."""
    service = Service()
    server = TestServer(service.app)
    await asyncio.create_task(server.start_server())
    await asyncio.create_task(server.close())


async def test_requests_leave_nothing_for_the_collector() -> None:
    """What is remembered of a request is no cycle."""
    service = Service()
    service.fake.script("m", duration=0.0, answer="42")
    async with service.serve() as client:
        for path in ("/plain", "/run"):
            async with client.get(path) as response:
                await response.text()
        gc.collect()
        gc.disable()
        try:
            for path in ("/plain", "/run") * 3:
                async with client.get(path) as response:
                    await response.text()
            left = [one for one in gc.get_objects() if isinstance(one, aiohttp_web._Exchange)]
            assert len(left) <= 1  # the connection's last one
        finally:
            gc.enable()


# --- negative controls ----------------------------------------------------------------------------


async def test_a_hang_up_that_nobody_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task goes on: aiohttp tells no handler."""
    monkeypatch.setattr(aiohttp_web._Host, "_look", lambda _: None)
    service = Service()
    async with service.serve() as client:
        request = asyncio.create_task(client.get("/run"))
        await live(service)
        request.cancel()
        with pytest.raises(TimeoutError), fail_after(1):
            await live(service, 0)


async def test_a_shutdown_without_the_hook() -> None:
    """aiohttp waits for the open stream as long as it may, and then cuts it."""
    service = Service()
    service.app.on_shutdown.clear()
    async with service.serve() as client, client.get("/stream") as response:
        await live(service)
        service.runner._shutdown_timeout = 0.2
        await service.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.text()


async def test_a_shutdown_without_the_middleware(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that waits is answered 500, with a traceback in the log."""
    service = Service()
    service.app.middlewares.clear()
    async with service.serve() as client:
        request = asyncio.create_task(client.get("/run"))
        await live(service)
        await service.stop()
        async with await request as response:
            assert response.status == 500
    assert "SupervisorShutdown" in caplog.text
    caplog.clear()
