"""HTTPS: certificates are checked, names are asked for, and nothing leaves before that."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp.connector
import pytest

from sigmic_guard.errors import ConnectionFailed
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from sigmic_guard.sigmic.wire import dialing
from tests.backends import ASYNCIO, UVLOOP
from tests.sigmic.raw_server import KEY, Exchange, RawServer, success

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = [pytest.mark.backends(ASYNCIO, UVLOOP), pytest.mark.usefixtures("transport")]

#: For localhost and 127.0.0.1 until the year 2120, signed by itself; made for these tests only.
CERTIFICATE = Path(__file__).with_name("localhost.pem")

CREATE = CreateRequest(message="m")
WHOLE = success({"id": "x", "status": "running"})


@asynccontextmanager
async def tls_server(
    script: Callable[[Exchange], Awaitable[None]], asked: list[str | None] | None = None
) -> AsyncIterator[RawServer]:
    """Serve the script on localhost; ``asked`` gets the names that clients ask for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    if asked is not None:
        context.sni_callback = lambda _, name, __: asked.append(name)
    server = RawServer(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"https://localhost:{port}"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients trust the certificate, and nothing else be another than by default."""
    context = dialing.default_context.__wrapped__()
    context.load_verify_locations(CERTIFICATE)
    monkeypatch.setattr(dialing, "default_context", lambda: context)
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)


async def answer(exchange: Exchange) -> None:
    while await exchange.request():
        await exchange.send(WHOLE)


async def test_calls(trusted: None) -> None:
    """They work, share a connection, and tell the server its name."""
    asked: list[str | None] = []
    async with tls_server(answer, asked) as server, SigmicClient(KEY, server.url) as client:
        assert await client.create(CREATE, timeout=5) == "x"
        assert (await client.get("x", timeout=5)).id == "x"
        assert server.connections == 1
    assert asked == ["localhost"]


async def test_large_ones(trusted: None) -> None:
    """Requests and answers of many records."""
    large = success({"id": "x", "status": "running", "message": "m" * 3_000_000})

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(large)
        await exchange.hung_up()

    async with tls_server(script) as server, SigmicClient(KEY, server.url) as client:
        assert await client.create(CreateRequest(message="m" * 3_000_000), timeout=20) == "x"


@pytest.mark.parametrize("why", ["stranger", "another name"])
async def test_whom_nobody_vouches_for(why: str, request: pytest.FixtureRequest) -> None:
    """A certificate of a stranger, or for another name, is no connection; nothing was sent."""
    heard: list[bytes] = []
    if why == "another name":
        request.getfixturevalue("trusted")

    async def script(exchange: Exchange) -> None:
        heard.append(await exchange.request())

    async with tls_server(script) as server:
        url = server.url.replace("localhost", "127.0.0.1" if why == "stranger" else "127.0.0.2")
        port = url.rpartition(":")[2]
        listener = None
        if why == "another name":
            # Somebody else's address, and the same server.
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
            listener = await asyncio.start_server(
                server.serve, "127.0.0.2", int(port), ssl=context, reuse_address=True
            )
        async with SigmicClient(KEY, url) as client:
            with pytest.raises(ConnectionFailed, match=r"TLS failed \(SSLCert.*\): ") as caught:
                await client.create(CREATE, timeout=5)
        if listener is not None:
            listener.close()
    assert not caught.value.sent
    assert not any(heard)


async def test_a_dying_connection(trusted: None) -> None:
    """A call that meets a server hanging up was sent, once."""
    requests: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        requests.append(await exchange.request())
        await exchange.send(WHOLE)
        requests.append(await exchange.request())

    async with tls_server(script) as server, SigmicClient(KEY, server.url) as client:
        await client.get("x", timeout=5)
        with pytest.raises(ConnectionFailed) as caught:
            await client.create(CREATE, timeout=5)
    assert caught.value.sent
    assert len(requests) == 2


async def test_closing_under_way(trusted: None) -> None:
    """Calls under way fail, and no peer can keep the client from closing."""
    arrived = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        arrived.set()
        await asyncio.Event().wait()

    async with tls_server(script) as server, SigmicClient(KEY, server.url) as client:
        call: Any = asyncio.create_task(
            client.create(CreateRequest(message="m" * 20_000_000), timeout=60)
        )
        await arrived.wait()
        async with asyncio.timeout(5):
            await client.aclose()
        with pytest.raises(ConnectionFailed) as caught:
            await call
    assert caught.value.sent


@pytest.mark.parametrize("steps", [*range(1, 12), 20, 40])
async def test_cancelled(trusted: None, steps: int, transport: str) -> None:
    """Wherever it strikes, also in the handshake: the next call works, and nothing is left."""
    if transport == "aiohttp":
        pytest.skip("aiohttp leaves it to asyncio, where a transport may be left behind")
    async with tls_server(answer) as server, SigmicClient(KEY, server.url) as client:
        call = asyncio.create_task(client.create(CREATE, timeout=60))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        call.cancel()
        await asyncio.wait([call])
        assert await client.create(CREATE, timeout=60) == "x"
