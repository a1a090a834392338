"""A client that says every byte itself, so that it can stall, and hang up, when it wants to."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Self

import anyio

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import SocketStream


class Client:
    """One connection, and what came over it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._stream: SocketStream
        self.received = b""
        #: Whether the server has closed the connection.
        self.closed = False

    async def __aenter__(self) -> Self:
        self._stream = await anyio.connect_tcp("127.0.0.1", self.port)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        await anyio.aclose_forcefully(self._stream)

    async def get(self, path: str, *headers: str) -> None:
        """Ask for something, and do not wait for the answer."""
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
        await self._stream.send("\r\n".join(lines).encode())

    async def post(self, path: str, body: object, *headers: str) -> None:
        """Send JSON, and do not wait for the answer."""
        data = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *headers,
        ]
        await self._stream.send("\r\n".join([*lines, "", ""]).encode() + data)

    async def connect(self, path: str) -> None:
        """Open a websocket. Source: RFC 6455, 4.1."""
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        await self.get(
            path, "Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13"
        )
        await self.until(b"\r\n\r\n")
        assert self.status == 101, self.received

    async def say(self, text: str) -> None:
        """Send a text frame. Source: RFC 6455, 5.2."""
        data, mask = text.encode(), os.urandom(4)
        assert len(data) < 126
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        await self._stream.send(bytes([0x81, 0x80 | len(data)]) + mask + masked)

    async def until(self, wanted: bytes) -> None:
        """Read until that has come."""
        while wanted not in self.received:
            await self._read()
            assert wanted in self.received or not self.closed, self.received

    async def to_the_end(self) -> None:
        """Read until the server closes the connection."""
        while not self.closed:
            await self._read()

    async def _read(self) -> None:
        try:
            self.received += await self._stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.closed = True

    @property
    def status(self) -> int:
        return int(self.received.split(b" ", 2)[1])

    @property
    def head(self) -> str:
        return self.received.partition(b"\r\n\r\n")[0].decode().lower()

    @property
    def body(self) -> bytes:
        """The body, of a response in chunks, as far as it has come."""
        body = self.received.partition(b"\r\n\r\n")[2]
        if "transfer-encoding: chunked" not in self.head:
            return body
        return b"".join(re.findall(rb"(?s)[0-9a-f]+\r\n(.+?)\r\n(?=[0-9a-f]+\r\n)", body))

    @property
    def complete(self) -> bool:
        """Whether a response in chunks came to its end."""
        return self.received.endswith(b"\r\n0\r\n\r\n")
