"""The remote system as the benchmarks need it: faster than any client, and with books.

    python -m benchmarks.server [--tls CERTIFICATE KEY]

One process with httptools and uvloop. It answers creates, looks, lists, DELETEs and streams as the
API does, and counts every POST and DELETE by id. ``GET /books`` tells the sums; ``POST /reset``
begins anew, as a ``Script`` says. It prints its ports, and serves until its standard input ends:
with whoever started it, however that ends.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Final, cast

import httptools
import msgspec
import uvloop

from benchmarks.core.books import Books, Script, task_id

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS: Final = b"/api/v1/tasks"
#: Bytes of events that are written at once.
BLOCK: Final = 64 * 1024
#: Seconds between two steps in which tasks finish.
STEP: Final = 0.05

_HEAD: Final = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_TIME: Final = "2026-01-26T15:50:54.870Z"


def _answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return _HEAD % (status, len(body), body)


_DELETED: Final = _answer(b'{"success":true,"data":{"message":"Task cancelled"}}')
_MISSING: Final = _answer(
    b'{"success":false,"error":{"code":"NOT_FOUND","message":"No such task"}}', b"404 Not Found"
)
_DONE: Final = _answer(b'{"success":true,"data":{}}')


class _Asked(msgspec.Struct):
    message: str = ""
    env: dict[str, str] = {}


class World:
    """All tasks."""

    def __init__(self) -> None:
        self.script = Script()
        self.books = Books()
        #: Status by id, the latest activity last; and what they were created with.
        self.status: dict[str, str] = {}
        self.asked: dict[str, bytes] = {}
        self._owed = 0.0
        self._step: asyncio.TimerHandle | None = None

    def reset(self, script: Script) -> None:
        self.script = script
        if not script.keep:
            self.books = Books()
            self.asked.clear()
            self.status = dict.fromkeys(map(task_id, range(script.seed)), "running")
        self._owed = 0.0
        if self._step is not None:
            self._step.cancel()
            self._step = None
        if script.finishing:
            self._finish_some()

    def _finish_some(self) -> None:
        """Let as many of the oldest tasks complete as are due."""
        self._owed += len(self.status) * self.script.finishing * STEP
        due = [name for name, status in self.status.items() if status == "running"]
        for name in due[: int(self._owed)]:
            del self.status[name]  # to the end: it is the latest activity
            self.status[name] = "completed"
            self.books.finished[name] = perf_counter()
        self._owed %= 1
        self._step = asyncio.get_running_loop().call_later(STEP, self._finish_some)

    def tell(self) -> bytes:
        self.books.running = sum(status == "running" for status in self.status.values())
        return msgspec.json.encode(self.books)

    def create(self, body: bytes) -> bytes:
        name = task_id(len(self.status))
        self.status[name] = "running"
        self.asked[name] = body
        self.books.posts += 1
        return _answer(b'{"success":true,"data":{"id":"%b","status":"pending"}}' % name.encode())

    def delete(self, name: str) -> bytes:
        books = self.books
        status = self.status.get(name)
        if status is None:
            books.unknown += 1
            return _MISSING
        books.deletes += 1
        if status == "cancelled":
            books.twice += 1
        elif status == "running":
            self.status[name] = "cancelled"
        books.last_delete = perf_counter()
        return _DELETED

    def show(self, name: str) -> bytes:
        self.books.reads += 1
        if name not in self.status:
            return _MISSING
        return _answer(msgspec.json.encode({"success": True, "data": self._task(name)}))

    def page(self, query: bytes) -> bytes:
        self.books.reads += 1
        asked = dict(part.split(b"=", 1) for part in query.split(b"&") if b"=" in part)
        limit, offset = int(asked.get(b"limit", 50)), int(asked.get(b"offset", 0))
        total = len(self.status)
        found = islice(reversed(self.status), offset, offset + limit)
        more = offset + limit < total
        told = {"total": total, "limit": limit, "offset": offset, "hasMore": more}
        tasks = [self._task(name) for name in found]
        return _answer(msgspec.json.encode({"success": True, "data": tasks, "pagination": told}))

    def _task(self, name: str) -> dict[str, object]:
        status = self.status[name]
        over = status != "running"
        asked = self.message_of(name)
        return {
            "id": name,
            "status": status,
            "message": asked.message,
            "env": asked.env,
            "createdAt": _TIME,
            "startedAt": _TIME,
            "completedAt": _TIME if over else None,
            "lastActivityAt": _TIME,
            "output": {"content": "done", "updatedAt": _TIME} if status == "completed" else None,
        }

    def message_of(self, name: str) -> _Asked:
        body = self.asked.get(name)
        return _Asked() if body is None else msgspec.json.decode(body, type=_Asked)

    def events(self, name: str) -> Iterator[bytes]:
        """Yield what a stream says, in pieces: each event a chunk of HTTP, some to a piece."""
        said = {"id": "m1", "role": "user", "content": self.message_of(name).message}
        count = self.script.events
        yield _chunk(b"history_message", msgspec.json.encode(said)) + _chunk(
            b"history_done", b'{"messageCount":1,"isStreaming":true}'
        )
        content = _chunk(b"content", b'{"text":"%b","isPartial":true}' % _text(self.script.size))
        at_once = max(1, BLOCK // len(content))
        whole, rest = divmod(count, at_once)
        block = content * at_once
        for _ in range(whole):
            yield block
        yield content * rest
        if count:
            yield _chunk(b"done", b'{"finalResponse":"done"}') + b"0\r\n\r\n"
            self.status[name] = "completed"


def _text(size: int) -> bytes:
    words = b"The agent reads the file, and says what it finds in it. "
    return (words * (size // len(words) + 1))[:size]


def _chunk(kind: bytes, data: bytes) -> bytes:
    event = b"event: %b\ndata: %b\n\n" % (kind, data)
    return b"%x\r\n%b\r\n" % (len(event), event)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._url = self._body = b""
        self._events: Iterator[bytes] | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no such class
        self._parser = httptools.HttpRequestParser(self)
        self._out: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._events = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        (path, _, query), body = self._url.partition(b"?"), self._body
        self._url = self._body = b""
        method = self._parser.get_method()
        rest = path[len(TASKS) :]
        world = self._world
        if not path.startswith(TASKS):
            self._out.append(self._control(path, body))
        elif method == b"DELETE":
            self._out.append(world.delete(rest[1:].decode()))
        elif method == b"POST":
            self._out.append(_MISSING if rest else world.create(body))
        elif rest.endswith(b"/stream"):
            self._stream(rest[1:-7].decode())
        elif rest:
            self._out.append(world.show(rest[1:].decode()))
        else:
            self._out.append(world.page(query))

    def _control(self, path: bytes, body: bytes) -> bytes:
        if path == b"/books":
            return _answer(self._world.tell())
        if path == b"/reset":
            self._world.reset(msgspec.json.decode(body, type=Script))
        return _DONE

    def _stream(self, name: str) -> None:
        self._world.books.reads += 1
        if name not in self._world.status:
            self._out.append(_MISSING)
            return
        self._transport.write(b"".join([*self._out, _STREAM]))
        self._out.clear()
        self._events = self._world.events(name)
        self._pump()

    def _pump(self) -> None:
        while self._events is not None and not self._paused:
            block = next(self._events, None)
            if block is None:
                self._events = None
            else:
                self._transport.write(block)


async def serve(certificate: list[str] | None) -> None:
    """Serve until the standard input ends."""
    world = World()
    loop = asyncio.get_running_loop()
    ports = []
    context = None
    for _ in range(2 if certificate else 1):
        server = await loop.create_server(
            lambda: Connection(world), "127.0.0.1", 0, ssl=context, backlog=4096
        )
        ports.append(str(server.sockets[0].getsockname()[1]))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
    print(*ports, flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    uvloop.run(serve(parser.parse_args().tls))
