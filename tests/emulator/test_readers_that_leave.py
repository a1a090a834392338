"""A reader may leave at any step of a request and its answer: that is no error, and not logged."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from sigmic_guard.emulator import Emulator, Fault, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


KEY: Final = "sigmic_of_the_test"
#: Closed with this, a socket is reset, and what it was sent is refused.
LINGER_0: Final = struct.pack("ii", 1, 0)
CREATE: Final = b'{"message":"hello"}'


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert [
        it.getMessage() for it in caplog.get_records("call") if it.levelno >= logging.WARNING
    ] == []


@asynccontextmanager
async def reader(emulator: Emulator) -> AsyncIterator[socket.socket]:
    """Connect to it, without a protocol."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        port = int(emulator.url.rpartition(":")[2])
        await loop.sock_connect(connection, ("127.0.0.1", port))
        yield connection


def leave(connection: socket.socket, how: str) -> None:
    """Leave now: the kernel tells the other side before this returns."""
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    connection.close()


async def send(connection: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, data)


async def until(connection: socket.socket, wanted: bytes) -> None:
    received = b""
    while wanted not in received:
        piece = await asyncio.get_running_loop().sock_recv(connection, 65536)
        assert piece, received
        received += piece


def head(method: str, path: str, size: int = 0) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: it", f"Authorization: Bearer {KEY}"]
    if size:
        lines += ["Content-Type: application/json", f"Content-Length: {size}"]
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def held() -> AsyncIterator[Emulator]:
    """An emulator whose tasks run until they are pushed; it answers as ever when it is left."""
    async with Emulator(script=Script(duration=0.0, hold=True)) as emulator:
        yield emulator
        emulator.clear_faults()
        async with reader(emulator) as connection:
            await send(connection, head("GET", "/api/v1/tasks"))
            await until(connection, b'"success":true')


async def begun(emulator: Emulator) -> str:
    """Create a task, and return its id."""
    async with reader(emulator) as connection:
        await send(connection, head("POST", "/api/v1/tasks", len(CREATE)) + CREATE)
        await until(connection, b'"success":true')
    [task_id] = emulator.tasks
    return str(task_id)


HOW = pytest.mark.parametrize("how", ["close", "reset"])


@HOW
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /api",
        head("POST", "/api/v1/tasks", len(CREATE)),
        head("POST", "/api/v1/tasks", len(CREATE)) + CREATE[:5],
        head("POST", "/api/v1/tasks", len(CREATE)) + CREATE,
        head("GET", "/api/v1/tasks"),
        head("GET", "/api/v1/tasks") * 3,
        head("GET", "/nowhere"),
    ],
    ids=["nothing", "half-head", "head", "half-body", "create", "list", "pipelined", "no-route"],
)
async def test_who_leaves_before_the_answer(sent: bytes, how: str) -> None:
    async with held() as emulator:
        for tick in range(5):
            async with reader(emulator) as connection:
                await send(connection, sent)
                for _ in range(tick):
                    await asyncio.sleep(0)
                leave(connection, how)


@HOW
@pytest.mark.parametrize("step", ["request", "head", "history"])
@pytest.mark.parametrize("ticks", range(6))
async def test_who_leaves_a_stream_as_it_ends(step: str, ticks: int, how: str) -> None:
    """Before the server has heard of it there is more to be written."""
    async with held() as emulator:
        task_id = await begun(emulator)
        async with reader(emulator) as connection:
            await send(connection, head("GET", f"/api/v1/tasks/{task_id}/stream"))
            if step != "request":
                await until(connection, b"200 OK" if step == "head" else b"event: status")
            emulator.complete(task_id)
            for _ in range(ticks):
                await asyncio.sleep(0)
            leave(connection, how)


@HOW
@pytest.mark.parametrize("kind", ["drip", "malformed", "reset_after", "reset_mid", "truncated"])
@pytest.mark.parametrize("route", ["list", "stream"])
async def test_who_leaves_an_answer_that_a_fault_spoils(kind: Any, route: str, how: str) -> None:
    async with held() as emulator:
        task_id = await begun(emulator)
        emulator.fault(route, Fault(kind, seconds=0.001))
        path = "/api/v1/tasks" if route == "list" else f"/api/v1/tasks/{task_id}/stream"
        async with reader(emulator) as connection:
            await send(connection, head("GET", path))
            await asyncio.sleep(0)
            leave(connection, how)
            emulator.complete(task_id)
