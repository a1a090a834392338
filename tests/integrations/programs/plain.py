"""A plain program that listens by itself, with what asyncio and the supervisor have.

``python -m plain run PORT`` is ``asyncio.run`` around ``Supervisor(signals=True)``; ``serve`` is
:func:`sigmic_guard.serve`. ``WITHOUT=signals`` leaves the signals to Python.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from anyio import CancelScope

from sigmic_guard import Supervisor, SupervisorShutdown, TaskCancelled, serve
from sigmic_guard.integrations import sse

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

WITHOUT = os.environ.get("WITHOUT", "").split(",")
OPTIONS: dict[str, Any] = {
    "signals": "signals" not in WITHOUT,
    "grace": float(os.environ.get("GRACE", "8")),
    "registry": None,
}
OK = b"HTTP/1.1 200 OK\r\n"
STREAM = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
IDLE = OK + b"Content-Length: 4\r\n\r\nidle"
NO = b"HTTP/1.1 503 \r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
FLOOD = b": " + bytes(8_000_000) + b"\n\n"


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Connections:
    """The clients, each of which asks once."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.under_way: set[asyncio.Task[None]] = set()
        self._idle: set[StreamWriter] = set()
        supervisor.on_drain(self._close_idle)

    def _close_idle(self) -> None:
        for writer in self._idle:
            writer.close()

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        path = ""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path, _, query = head.split(b" ", 2)[1].decode().partition("?")
            if path == "/idle":
                self._idle.add(writer)
                writer.write(IDLE)
                await reader.read()
            else:
                await self._work(path, parse_qs(query)["q"][0], reader, writer)
        except (TaskCancelled, OSError, EOFError):
            pass  # he hung up
        except SupervisorShutdown:
            last = chunk(sse.farewell_bytes(2.0)) + b"0\r\n\r\n"
            writer.write(NO if path == "/run" else last)
        finally:
            self._idle.discard(writer)
            writer.close()

    async def _work(
        self, path: str, question: str, reader: StreamReader, writer: StreamWriter
    ) -> None:
        async with self.supervisor.group() as group:
            # It is told of a hang-up, whatever else is waited for.
            listening = asyncio.create_task(reader.read())
            listening.add_done_callback(lambda _: group.end())
            try:
                if path == "/run":
                    await group.run(question)
                    return
                async with group.task(question) as task:
                    writer.write(STREAM)
                    while path.startswith("/flooded"):
                        writer.write(chunk(FLOOD))
                        await writer.drain()
                    async for event in task.events():
                        if (piece := sse.encode_event(event)) is not None:
                            writer.write(chunk(piece))
                            await writer.drain()
            finally:
                listening.cancel()


async def main(supervisor: Supervisor) -> None:
    connections = Connections(supervisor)
    port = int(sys.argv[2])
    server = await asyncio.start_server(connections.accept, "127.0.0.1", port, backlog=1000)
    logging.getLogger(__name__).info("the service is ready")
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        server.close()
        with CancelScope(shield=True):  # they come to their ends, for their tasks do
            await asyncio.gather(*connections.under_way)


async def whole() -> None:
    async with Supervisor(**OPTIONS) as supervisor:
        await main(supervisor)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if sys.argv[1] == "serve":
        serve(main, **OPTIONS)
    else:
        try:
            asyncio.run(whole())
        except KeyboardInterrupt:
            sys.exit(130)
