"""A server that does to its clients whatever a test tells it to, byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sigmic_guard.sigmic import SigmicClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

KEY = "sigmic_0123456789abcdefTHEKEY"


class Exchange:
    """One connection, as the server has it; requests are read from it one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Read one request to the end of its body and return it; b"" when the client hung up."""
        try:
            head = await self.head()
        except asyncio.IncompleteReadError:
            return b""
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        return head + await self._reader.readexactly(length)

    async def head(self) -> bytes:
        """Read as far as the blank line of a request, and leave its body alone."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():  # on uvloop write() would raise a RuntimeError
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def hung_up(self) -> None:
        """Return when the client has closed its side."""
        while await self._reader.read(65536):
            pass

    def reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        # What waits to be sent is dropped, and a RST goes out in place of a FIN.
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class RawServer:
    """Runs one script for each connection, and keeps the requests that the scripts read."""

    def __init__(self, script: Callable[[Exchange], Awaitable[None]]) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        protocol: Any = writer.transport.get_protocol()
        if protocol is not None:  # else asyncio may complain of an error that nobody looked at
            protocol._closed.add_done_callback(lambda end: end.cancelled() or end.exception())
        try:
            await self._script(Exchange(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.sleep(0)


@asynccontextmanager
async def raw_server(script: Callable[[Exchange], Awaitable[None]]) -> AsyncIterator[RawServer]:
    """Serve the script on a port of its own."""
    server = RawServer(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**20)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


@asynccontextmanager
async def client_of(
    script: Callable[[Exchange], Awaitable[None]], **options: Any
) -> AsyncIterator[SigmicClient]:
    """A client of a server that runs the script."""
    async with raw_server(script) as server, SigmicClient(KEY, server.url, **options) as client:
        yield client


def response(
    body: bytes | Any = b"", *, status: int = 200, headers: str = "", reason: str = "Whatever"
) -> bytes:
    """A whole response; a body that is no bytes is sent as JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(payload)}\r\n{headers}\r\n"
    return head.encode() + payload


def success(data: Any) -> bytes:
    return response({"success": True, "data": data})


def answering(*answers: bytes) -> Callable[[Exchange], Awaitable[None]]:
    """A script that gives these answers to the requests of a connection, the last for ever."""

    async def script(exchange: Exchange) -> None:
        left = list(answers)
        while await exchange.request():
            await exchange.send(left.pop(0) if len(left) > 1 else left[0])

    return script
