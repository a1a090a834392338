"""No secret leaves: greps whatever can be seen of a request that goes wrong in any way."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.sigmic import CreateRequest, SigmicClient
from tests.sigmic.raw_server import Exchange, raw_server, response, success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SECRET = "hunter2-a-very-long-secret"
KEY = "sigmic_5ec2e7" + "0" * 58
REQUEST = CreateRequest(
    message="m", env={"A": "b"}, secrets={"S": SECRET, "T": "y" * 3_000_000, "Z": SECRET}
)

pytestmark = pytest.mark.usefixtures("transport")


def echo(status: int) -> Callable[[Exchange], Awaitable[None]]:
    """Sends back all it was sent, as the message of an error, and as cookies and headers."""

    async def script(exchange: Exchange) -> None:
        request = await exchange.request()
        body = {
            "success": False,
            "error": {"code": f"{KEY}", "message": request[-34:].decode() + KEY},
        }
        await exchange.send(response(body, status=status, headers=f"X-Echo: {KEY}\r\n"))

    return script


def sending(data: bytes) -> Callable[[Exchange], Awaitable[None]]:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(data)

    return script


async def hang_up(exchange: Exchange) -> None:
    await exchange.request()
    exchange.reset()


async def hang_up_early(exchange: Exchange) -> None:
    await exchange.head()
    exchange.reset()


async def read_nothing(exchange: Exchange) -> None:
    await exchange.head()
    await asyncio.Event().wait()


SCRIPTS = {
    "echo 400": echo(400),
    "echo 200": echo(200),
    "echo 500": echo(500),
    "no http": sending(b"nonsense\r\n\r\n" + KEY.encode()),
    "bad json": sending(response(f'{{"success": true, "data": "{KEY}{SECRET}"}}'.encode())),
    "bad type": sending(success({"id": [KEY, SECRET]})),
    "bad envelope": sending(response(f'{{"success": "{KEY}{SECRET}"}}'.encode())),
    "no envelope": sending(response(f'{{"{KEY}{SECRET}'.encode())),
    "html": sending(response(f"<p>{KEY}{SECRET}".encode(), status=502)),
    "redirect": sending(response(status=302, headers=f"Location: http://{KEY}.invalid/\r\n")),
    "cut": sending(success({"id": KEY + SECRET})[:-3]),
    "reset": hang_up,
    "early reset": hang_up_early,
    "time-out": read_nothing,
}


def told(exc: BaseException) -> str:
    """All that a very curious error reporter shows: every frame's locals, the whole chain."""
    report = traceback.TracebackException.from_exception(exc, capture_locals=True, compact=False)
    texts = [*report.format(), repr(exc), str(exc), str(vars(exc)), str(exc.args)]
    if isinstance(exc, Exception):
        texts.append(str(pickle.dumps(exc)))
    seen: BaseException | None = exc
    while seen is not None:
        texts += [repr(seen), str(vars(seen))]
        seen = seen.__context__ or seen.__cause__
    return "\n".join(texts)


# Not locals of a test: they are captured as well.
CALLS: dict[str, Callable[[SigmicClient, float], Awaitable[Any]]] = {
    "create": lambda client, t: client.create(REQUEST, timeout=t),
    "get": lambda client, t: client.get("x", timeout=t),
    "stream": lambda client, t: client.stream("x", timeout=t, silence=t),
}


def new_client(url: str) -> SigmicClient:
    return SigmicClient(KEY, url)


@pytest.fixture(params=[False, True], ids=["", "debug"])
def logs(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Any:
    """Everything that is logged by anyone, on any level, also in asyncio's debug mode."""
    caplog.set_level(logging.DEBUG)
    return caplog, request.param


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=list(SCRIPTS))
async def test_errors(
    script: Callable[[Exchange], Awaitable[None]],
    call: Callable[[SigmicClient, float], Awaitable[Any]],
    logs: Any,
) -> None:
    """Neither errors with all that hangs on them, nor reprs, nor logs show a secret."""
    caplog, debug = logs
    asyncio.get_running_loop().set_debug(debug)
    timeout = 0.2 if script is read_nothing else 5
    async with raw_server(script) as server, new_client(server.url) as client:
        with pytest.raises(Exception) as caught:
            await call(client, timeout)
        shown = told(caught.value) + repr(client) + repr(vars(client)) + caplog.text
    for secret in (KEY, KEY[7:], SECRET, "yyyyyyyy"):
        assert secret not in shown


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 30])
async def test_cancellations(
    call: Callable[[SigmicClient, float], Awaitable[Any]], steps: int, logs: Any
) -> None:
    """The traceback of a cancellation does not show a secret either, wherever it struck."""
    caplog, debug = logs
    asyncio.get_running_loop().set_debug(debug)
    async with raw_server(read_nothing) as server, new_client(server.url) as client:
        task: asyncio.Future[Any] = asyncio.ensure_future(call(client, 60))
        for _ in range(steps):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        shown = told(caught.value) + repr(task) + caplog.text
    for secret in (KEY, KEY[7:], SECRET, "yyyyyyyy"):
        assert secret not in shown


async def test_the_key_travels_in_one_header_only() -> None:
    """The credential is in the Authorization header and nowhere else in a request."""
    seen: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        while request := await exchange.request():
            seen.append(request)
            await exchange.send(success({"id": "x"}))

    async with raw_server(script) as server, new_client(server.url) as client:
        await client.create(CreateRequest(message="m"), timeout=5)
    assert seen[0].count(KEY.encode()) == 1
    assert f"\r\nAuthorization: Bearer {KEY}\r\n".encode() in seen[0]
