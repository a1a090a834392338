"""What can go wrong between here and there: each has one error, that tells what it means."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from aiohttp import http_exceptions
from aioresponses import aioresponses

from sigmic_guard.errors import (
    ConfigurationError,
    ConnectionFailed,
    ProtocolError,
    SigmicGuardError,
)
from sigmic_guard.sigmic import CreateRequest, SigmicClient, TaskApi
from sigmic_guard.sigmic.transport import FOREIGN, Attempt, translate
from tests.backends import ASYNCIO, UVLOOP
from tests.sigmic.raw_server import (
    KEY,
    Exchange,
    answering,
    client_of,
    raw_server,
    response,
    success,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.backends(ASYNCIO, UVLOOP), pytest.mark.usefixtures("transport")]

CREATE = CreateRequest(message="m")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections: bound, and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def fails(call: Any, *, sent: bool, match: str | None = None) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed, match=match) as caught:
        await call
    assert caught.value.sent is sent
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    return caught.value


class TestNotSent:
    async def test_refused(self, closed_port: int) -> None:
        """Where nobody listens nothing was sent."""
        async with SigmicClient(KEY, f"http://127.0.0.1:{closed_port}") as client:
            await fails(client.create(CREATE, timeout=5), sent=False)
            await fails(client.delete("x", timeout=5), sent=False)
            await fails(client.stream("x", timeout=5, silence=5), sent=False)

    @pytest.mark.parametrize(
        "host", ["no-such-host.invalid", "a..b", "x" * 64 + ".invalid", "0x7f.1"]
    )
    async def test_no_such_host(self, host: str) -> None:
        """Where a host has no address, or no possible name, nothing was sent."""
        async with SigmicClient(KEY, f"http://{host}") as client:
            await fails(client.create(CREATE, timeout=10), sent=False)

    async def test_no_tls(self) -> None:
        """Where the TLS handshake fails nothing was sent."""

        async def script(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 400 Speak plainly\r\n\r\n")

        async with raw_server(script) as server:
            url = server.url.replace("http:", "https:")
            async with SigmicClient(KEY, url) as client:
                await fails(client.create(CREATE, timeout=5), sent=False)

    async def test_tls_handshake_never_ends(self) -> None:
        """A handshake that takes too long is a connection that was never made."""
        async with raw_server(Exchange.hung_up) as server:
            url = server.url.replace("http:", "https:")
            async with SigmicClient(KEY, url) as client:
                await fails(client.create(CREATE, timeout=0.05), sent=False, match="no connection")

    async def test_waiting_for_a_place(self) -> None:
        """A POST that waits for a free connection has not been sent."""
        arrived = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            arrived.set()
            await exchange.hung_up()

        async with client_of(script, connections=1) as client:
            holder = asyncio.create_task(client.get("x", timeout=60))
            await arrived.wait()
            await fails(client.create(CREATE, timeout=0.05), sent=False, match="no connection")
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder

    async def test_closed_while_waiting_for_a_place(self) -> None:
        """Closing the client is no cancellation of those who wait for a connection."""
        arrived = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            arrived.set()
            await exchange.hung_up()

        async with client_of(script, connections=1) as client:
            holder = asyncio.create_task(client.get("x", timeout=60))
            await arrived.wait()
            waiter = asyncio.create_task(client.create(CREATE, timeout=60))
            await asyncio.sleep(0)
            await client.aclose()
            await fails(waiter, sent=False)
            await fails(holder, sent=True)

    async def test_closed_client(self) -> None:
        """A client that is closed sends nothing; closing it again does nothing."""
        async with raw_server(answering(success([]))) as server:
            client = SigmicClient(KEY, server.url)
            await client.list(timeout=5)
            await client.aclose()
            await client.aclose()
            await fails(client.create(CREATE, timeout=5), sent=False, match="closed")
            assert server.connections == 1

    async def test_a_client_that_is_never_used(self) -> None:
        """A client that makes no request opens nothing, and needs no loop."""
        client = SigmicClient(KEY, "http://127.0.0.1:9")
        await client.aclose()


WHOLE = success({"id": "x", "status": "running"})


class TestSent:
    @pytest.mark.parametrize(
        "data", [WHOLE[:i] for i in (0, 1, 9, 20, 40, len(WHOLE) - 1)], ids=len
    )
    @pytest.mark.parametrize("how", ["close", "reset"])
    async def test_cut_short(self, data: bytes, how: str) -> None:
        """A POST whose answer ends anywhere may have been obeyed, and is not repeated."""
        posts = []

        async def script(exchange: Exchange) -> None:
            posts.append(await exchange.request())
            await exchange.send(data)
            if how == "reset":
                exchange.reset()
            else:
                exchange.writer.close()

        async with client_of(script) as client:
            await fails(client.create(CREATE, timeout=5), sent=True)
        assert len(posts) == 1

    async def test_too_slow(self) -> None:
        """A server that takes a request and never answers: sent, and too slow."""

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            await exchange.hung_up()

        async with client_of(script) as client:
            await fails(client.create(CREATE, timeout=0.5), sent=True, match="no answer within 0.5")

    async def test_drip(self) -> None:
        """A server that drips its answer cannot stretch the time-out."""
        gone = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            try:
                for byte in WHOLE:
                    await exchange.send(bytes([byte]))
                    await asyncio.sleep(0.05)
            finally:
                gone.set()

        async with client_of(script) as client:
            await fails(client.get("x", timeout=0.5), sent=True, match="no answer")
            await gone.wait()

    @pytest.mark.parametrize(
        "data",
        [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"\x00" * 100,
            b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000 + b"\r\n\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        ],
        ids=range(9),
    )
    async def test_no_http(self, data: bytes) -> None:
        """Bytes that are no HTTP are a documented error, with nothing of them in it."""

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            await exchange.send(data)
            await exchange.hung_up()

        async with client_of(script) as client:
            with pytest.raises((ProtocolError, ConnectionFailed)) as caught:
                await client.create(CREATE, timeout=5)
            assert caught.value.__context__ is None
            assert len(str(caught.value)) < 100

    async def test_an_endless_head(self) -> None:
        """A head that never ends is not read for ever."""

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            await exchange.send(b"HTTP/1.1 200 OK\r\n")
            while True:
                await exchange.send(b"X-Y: z\r\n" * 1000)

        async with client_of(script) as client:
            with pytest.raises((ProtocolError, ConnectionFailed)):
                await client.create(CREATE, timeout=5)

    async def test_closed_under_way(self) -> None:
        """Closing the client ends the calls that are under way."""
        arrived = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            arrived.set()
            await exchange.hung_up()

        async with client_of(script) as client:
            task = asyncio.create_task(client.create(CREATE, timeout=60))
            await arrived.wait()
            await client.aclose()
            await fails(task, sent=True)

    async def test_closing_does_not_wait_for_a_peer(self) -> None:
        """A server that reads nothing cannot keep a client from closing."""
        stuck = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            stuck.set()
            await asyncio.Event().wait()

        async with client_of(script) as client:
            request = CreateRequest(message="x" * 50_000_000)
            task = asyncio.create_task(client.create(request, timeout=60))
            await stuck.wait()
            async with asyncio.timeout(5):
                await client.aclose()
            await fails(task, sent=True)


class TestKeepAlive:
    async def test_reused(self) -> None:
        """Calls in a row share a connection."""
        async with raw_server(answering(success([]))) as server:
            async with SigmicClient(KEY, server.url) as client:
                for _ in range(5):
                    await client.list(timeout=5)
            assert server.connections == 1

    @pytest.mark.parametrize("how", ["close", "reset"])
    async def test_a_post_on_a_dying_connection(self, how: str) -> None:
        """A POST that meets a server hanging up is sent once, and known to have been sent."""
        posts = []

        async def script(exchange: Exchange) -> None:
            await exchange.request()
            await exchange.send(WHOLE)
            posts.append(await exchange.request())
            if how == "reset":
                exchange.reset()

        async with raw_server(script) as server, SigmicClient(KEY, server.url) as client:
            await client.get("x", timeout=5)
            await fails(client.create(CREATE, timeout=5), sent=True)
            assert server.connections == 1
        assert len(posts) == 1

    @pytest.mark.parametrize("call", ["get", "delete"])
    async def test_nothing_goes_twice_by_itself(self, call: str) -> None:
        """What meets a server hanging up is sent once, whatever HTTP says of its method."""
        requests: list[bytes] = []

        async def script(exchange: Exchange) -> None:
            if not requests:
                await exchange.request()
                await exchange.send(WHOLE)
            requests.append(await exchange.request())

        async with client_of(script) as client:
            await client.get("x", timeout=5)
            await fails(getattr(client, call)("x", timeout=5), sent=True)
        assert len(requests) == 1

    async def test_an_early_refusal(self, tmp_path: Any) -> None:
        """A refusal that comes while files are still being sent is the answer."""
        (tmp_path / "f").write_bytes(b"x" * 20_000_000)

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            await exchange.send(response(b"", status=413, headers="Connection: close\r\n"))
            await exchange.hung_up()

        async with client_of(script) as client:
            request = CreateRequest(message="m", files=(tmp_path / "f",))
            with pytest.raises(SigmicGuardError) as caught:
                await client.create(request, timeout=5)
        assert getattr(caught.value, "status", None) == 413


class TestCancellation:
    async def hang(self, exchange: Exchange) -> None:
        await exchange.request()
        self.arrived.set()
        await exchange.hung_up()
        self.left.set()

    @pytest.fixture(autouse=True)
    def _events(self) -> None:
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    async def test_native(self) -> None:
        """Task.cancel() comes out unchanged, and drops the connection."""
        async with client_of(self.hang) as client:
            task = asyncio.create_task(client.create(CREATE, timeout=60))
            await self.arrived.wait()
            task.cancel("why")
            with pytest.raises(asyncio.CancelledError, match="why"):
                await task
            assert task.cancelling() == 1
            await self.left.wait()

    async def test_scope(self) -> None:
        """The cancellation of an anyio scope comes out to that scope, and drops the connection."""
        async with client_of(self.hang) as client:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def cancel() -> None:
                        await self.arrived.wait()
                        scope.cancel()

                    group.start_soon(cancel)
                    await client.create(CREATE, timeout=60)
            assert scope.cancelled_caught
            await self.left.wait()

    async def test_outer_timeout(self) -> None:
        """An outer time-out is the outer one's, not this client's."""
        async with client_of(self.hang) as client:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.05):
                    await client.create(CREATE, timeout=60)
            assert type(caught.value) is TimeoutError
            with anyio.move_on_after(0.05) as scope:
                await client.create(CREATE, timeout=60)
            assert scope.cancelled_caught
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    async def test_at_every_step(self) -> None:
        """A call that is cancelled after any number of steps leaves a client that works."""
        async with client_of(answering(WHOLE)) as client:
            for steps in range(30):
                task = asyncio.create_task(client.create(CREATE, timeout=60))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                assert task in (await asyncio.wait([task]))[0]
                assert task.cancelled() or task.result() == "x"
                assert (await client.get("x", timeout=5)).id == "x"


class TestFunnel:
    @staticmethod
    def exceptions() -> list[Exception]:
        """One instance of whatever aiohttp and the layers below it can raise."""

        def below(kind: type[Exception]) -> set[type[Exception]]:
            return {kind}.union(*map(below, kind.__subclasses__()))

        kinds = below(aiohttp.ClientError) | below(http_exceptions.HttpProcessingError)
        kinds |= {
            k for k in vars(aiohttp).values() if isinstance(k, type) and issubclass(k, OSError)
        }
        found: list[Exception] = []
        for kind in sorted(kinds, key=str):
            error = kind.__new__(kind)
            error.args = ("x",)
            if "aiohttp" in kind.__module__:
                found.append(error)
        assert len(found) > 30
        return [
            *found,
            TimeoutError(),
            asyncio.IncompleteReadError(b"", 1),
            OSError(1, "x"),
            ConnectionResetError(),
            BrokenPipeError(),
            socket.gaierror(-2, "x"),
            ssl.SSLError(),
            ssl.SSLCertVerificationError(),
            ssl.CertificateError(),
            UnicodeError("label too long"),
            RuntimeError("Session is closed"),
            aiohttp.EofStream(),
        ]

    def test_translated(self) -> None:
        """Whatever aiohttp raises becomes an error of ours; while unconnected, nothing was sent."""
        for exc in self.exceptions():
            assert isinstance(exc, FOREIGN), type(exc)
            attempt = Attempt()
            error = translate(exc, attempt)
            assert isinstance(error, ConnectionFailed)
            assert not error.sent
            attempt.connected = True
            error = translate(exc, attempt)
            assert isinstance(error, ProtocolError) or (
                isinstance(error, ConnectionFailed) and error.sent
            )

    async def test_none_gets_out(self) -> None:
        """No exception of aiohttp reaches a user, not even as a cause or context."""
        async with SigmicClient(KEY, "http://h", transport="aiohttp") as client:
            for exc in self.exceptions():
                with aioresponses() as mock:
                    mock.get(re.compile(".*"), exception=exc)
                    with pytest.raises(SigmicGuardError) as caught:
                        await client.get("x", timeout=5)
                assert caught.value.__context__ is None
                assert caught.value.__cause__ is None

    async def test_a_bug_is_seen(self) -> None:
        """What is none of aiohttp's doing is not turned into a failed connection."""
        async with SigmicClient(KEY, "http://h", transport="aiohttp") as client:
            for bug in (TypeError("x"), KeyError("x"), AttributeError("x")):
                with aioresponses() as mock:
                    mock.get(re.compile(".*"), exception=bug)
                    with pytest.raises(type(bug)):
                        await client.get("x", timeout=5)


async def test_on_request_that_raises() -> None:
    """What a hook raises is told, and changes nothing about the request that it was called for."""
    told: list[str] = []

    def hook(*_: object) -> None:
        raise RuntimeError("of the hook")

    async def script(exchange: Exchange) -> None:
        while await exchange.request():
            await exchange.send(WHOLE)

    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(repr(context["exception"]))
    )
    async with client_of(script, on_request=hook) as client:
        assert await client.create(CREATE, timeout=5)
        await client.aclose()
        with pytest.raises(ConnectionFailed):
            await client.get("x", timeout=5)
    assert told == ["RuntimeError('of the hook')"]


async def test_on_request() -> None:
    """The hook hears of each request: its method, its route without ids, how it went, how long."""
    heard: list[tuple[str, str, str]] = []

    def hook(method: str, route: str, status: str, seconds: float) -> None:
        assert 0 <= seconds < 5
        heard.append((method, route, status))

    async def script(exchange: Exchange) -> None:
        while request := await exchange.request():
            if b"/hang" in request:
                await exchange.hung_up()
            elif b"/reset" in request:
                exchange.reset()
            else:
                await exchange.send(WHOLE if b"/gone" not in request else response(status=404))

    async with client_of(script, on_request=hook) as client:
        await client.create(CREATE, timeout=5)
        await client.get("x", timeout=5)
        for task_id in ("gone", "hang", "reset"):
            with pytest.raises(SigmicGuardError):
                await client.send(task_id, "m", timeout=0.5)
        with pytest.raises(SigmicGuardError):
            await client.stream("x", timeout=5, silence=5)
        with pytest.raises(SigmicGuardError):
            await client.approve("x", "y", "cancel", timeout=5)
        with pytest.raises(SigmicGuardError):
            await client.list(timeout=5)
        task = asyncio.create_task(client.delete("hang", timeout=5))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    task_route = "/api/v1/tasks/{id}"
    assert heard == [
        ("POST", "/api/v1/tasks", "200"),
        ("GET", task_route, "200"),
        ("POST", f"{task_route}/messages", "404"),
        ("POST", f"{task_route}/messages", "timeout"),
        ("POST", f"{task_route}/messages", "connection"),
        ("GET", f"{task_route}/stream", "200"),
        ("POST", f"{task_route}/tools/{{callId}}/approve", "200"),
        ("GET", "/api/v1/tasks", "200"),
        ("DELETE", task_route, "cancelled"),
    ]


def test_another_loop() -> None:
    """A client that is used in a second event loop says so, and sends nothing."""
    client = SigmicClient(KEY, "http://127.0.0.1:9")

    async def use() -> None:
        await client.get("x", timeout=5)

    with pytest.raises(ConnectionFailed):
        asyncio.run(use())
    with pytest.raises(ConfigurationError, match="one event loop"):
        asyncio.run(use())
    asyncio.run(client.aclose())


def test_the_protocol() -> None:
    """The client is what the supervisor asks for; mypy looks at the signatures."""
    api: TaskApi = SigmicClient(KEY, "http://h")
    assert api.base_url == "http://h"


async def test_many_at_once() -> None:
    """Far more calls than connections all get their answer."""
    async with raw_server(answering(WHOLE)) as server:
        async with SigmicClient(KEY, server.url, connections=5) as client:
            await asyncio.gather(*(client.get("x", timeout=10) for _ in range(200)))
        assert server.connections == 5
