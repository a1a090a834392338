"""Another server for the same API page, on raw sockets, written without a look at the emulator.

Where the page leaves room, ``Manners`` choose. The world of tasks is in ``world.py``; here is how
it is put on the wire.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.blackbox.streams import StreamManners, stream_bytes
from tests.blackbox.world import Remote, World

if TYPE_CHECKING:
    from types import TracebackType


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def segments(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.target).path.split("/")]


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def ok(data: Any, status: int = 200, **extra: Any) -> Answer:
    return Answer(status, json.dumps({"success": True, "data": data, **extra}).encode())


def error(status: int, code: str, message: str = "no", **headers: str) -> Answer:
    body = {"success": False, "error": {"code": code, "message": message}}
    return Answer(status, json.dumps(body).encode(), headers)


Hook = Callable[[Request, Remote | None], Awaitable[Answer | None]]


@dataclass
class Manners:
    """How this server does what the page leaves open."""

    host: str = "127.0.0.1"
    name: str = ""  # what the URL calls it
    prefix: str = ""
    framing: str = "length"  # length | chunked | close
    keep_alive: bool = True
    gzip: bool = False
    finished: Answer | None = None  # the answer to a DELETE of a finished task
    deleted: Answer | None = None  # and to one of a live task
    list_max: int = 100
    list_total: bool = True
    stream: StreamManners = field(default_factory=StreamManners)


class Server:
    def __init__(self, manners: Manners | None = None, world: World | None = None) -> None:
        self.manners = manners or Manners()
        self.world = world or World()
        self.requests: list[Request] = []
        self.hooks: dict[str, deque[Hook]] = {}  # one use each, by route
        self.always: dict[str, Hook] = {}
        self.stream_manners: deque[StreamManners] = deque()  # for the next streams, one each
        self.cuts: deque[int] = deque()  # after how many events the next streams are cut
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.manners.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.world.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        host = self.manners.name or self.manners.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}{self.manners.prefix}"

    def count(self, method: str, *, ends: str = "") -> int:
        return sum(r.method == method and r.target.endswith(ends) for r in self.requests)

    def once(self, route: str, *hooks: Hook) -> None:
        self.hooks.setdefault(route, deque()).extend(hooks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while request := await read_request(reader, writer):
                self.requests.append(request)
                if not await self._answer(request, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        path = urlsplit(request.target).path
        base = f"{self.manners.prefix}/api/v1/tasks"
        if path != base and not path.startswith(base + "/"):
            return await self._send(error(404, "NOT_FOUND", "no such route"), writer)
        rest = [unquote(part) for part in path[len(base) :].split("/")][1:]
        remote = self.world.tasks.get(rest[0]) if rest else None
        route = self._route(request.method, rest)
        hook = self.always.get(route)
        if waiting := self.hooks.get(route):
            hook = waiting.popleft()
        if hook and (answer := await hook(request, remote)):
            if answer.status == 0:  # say nothing, and hang up
                return False
            return await self._send(answer, writer)
        if route == "stream":
            if remote is None or self.world.seen(remote) is None:
                return await self._send(error(404, "NOT_FOUND"), writer)
            return await self._stream(remote, writer)
        return await self._send(self._decide(route, request, remote, rest), writer)

    def _route(self, method: str, rest: list[str]) -> str:
        match method, rest:
            case "POST", []:
                return "create"
            case "GET", []:
                return "list"
            case "GET", [_]:
                return "get"
            case "DELETE", [_]:
                return "delete"
            case "GET", [_, "stream"]:
                return "stream"
            case "POST", [_, "messages"]:
                return "message"
            case "POST", [_, "tools", _, "approve"]:
                return "approve"
        return "unknown"

    def _decide(
        self, route: str, request: Request, remote: Remote | None, rest: list[str]
    ) -> Answer:
        if route == "create":
            made = self.world.create(request.headers.get("content-type", ""), request.body)
            return ok({"id": made.id, "status": self.world.word("pending"), "queue": {"place": 3}})
        if route == "list":
            return self._list(request)
        if remote is None:
            return error(404, "NOT_FOUND", f"Task {rest[0] if rest else ''} not found")
        if route == "get":
            if self.world.seen(remote) is None:
                return error(404, "NOT_FOUND", "not yet")
            return ok(self.world.row(remote, output=True))
        if route == "delete":
            remote.deletes += 1
            if remote.status in {"completed", "failed", "cancelled"}:
                return self.manners.finished or ok({"message": "Task cancelled"})
            self.world.set(remote, "cancelled")
            return self.manners.deleted or ok({"message": "Task cancelled"})
        if route == "message":
            self.world.follow_up(remote, json.loads(request.body)["message"])
            return ok({"status": "running", "queued": False})
        if route == "approve":
            self.world.approve(remote)
            return ok({"approved": True})
        return error(404, "NOT_FOUND", "no such route")

    def _list(self, request: Request) -> Answer:
        query = parse_qs(urlsplit(request.target).query)
        limit = min(int(query.get("limit", ["50"])[0]), self.manners.list_max)
        offset = int(query.get("offset", ["0"])[0])
        rows = self.world.listed()
        page = [self.world.row(remote, output=False) for remote in rows[offset : offset + limit]]
        pagination: dict[str, Any] = {"limit": limit, "offset": offset}
        pagination["hasMore"] = offset + limit < len(rows)
        if self.manners.list_total:
            pagination["total"] = len(rows)
        return ok(page, pagination=pagination)

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        body = answer.body
        headers = {"content-type": "application/json; charset=utf-8", **answer.headers}
        if self.manners.gzip:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        keep = self.manners.keep_alive and self.manners.framing != "close"
        version = "HTTP/1.0" if self.manners.framing == "close" else "HTTP/1.1"
        if answer.status == 204:
            body = b""
        elif self.manners.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
            parts = [body[at : at + 7] for at in range(0, len(body), 7)] + [b""]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        elif self.manners.framing == "length":
            headers["Content-Length"] = str(len(body))
        if not keep and version == "HTTP/1.1":
            headers["Connection"] = "close"
        head = f"{version} {answer.status} Fine\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        return keep

    async def _stream(self, remote: Remote, writer: asyncio.StreamWriter) -> bool:
        manners = self.stream_manners.popleft() if self.stream_manners else self.manners.stream
        cut = self.cuts.popleft() if self.cuts else None
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=UTF-8\r\n")
        chunked = self.manners.framing == "chunked"
        writer.write(b"Transfer-Encoding: chunked\r\n" if chunked else b"Connection: close\r\n")
        writer.write(b"Cache-Control: no-cache\r\n\r\n")
        count = 0
        async for data in stream_bytes(remote, manners, self.world):
            if cut is not None and count >= cut:
                break
            count += 1
            size = manners.chunk or len(data)
            for at in range(0, len(data), size):
                part = data[at : at + size]
                writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
                await writer.drain()
                if manners.chunk:
                    await asyncio.sleep(0)
        if chunked and cut is None:
            writer.write(b"0\r\n\r\n")
        return False


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.lower(): value.strip() for name, value in pairs}
    if headers.get("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b""
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    elif length := int(headers.get("content-length", "0")):
        body = await reader.readexactly(length)
    return Request(method, target, headers, body)
