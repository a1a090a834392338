"""A host in memory, and requests driven by hand: each message is sent when the test says so."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from sigmic_guard.integrations.asgi import Guard, RequestTasks
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from sigmic_guard.integrations.asgi.protocol import Application, Message, Scope


class Exchange:
    """One request, or one websocket, from the host's side."""

    def __init__(self, kind: str, **scope: Any) -> None:
        self.scope: Scope = {"type": kind, "http_version": "1.1", **scope}
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self.over = anyio.Event()
        #: Let go of it, and ``send()`` blocks: a client that does not read.
        self.writable = anyio.Event()
        self.writable.set()
        #: Some hosts say so in ``send()`` only.
        self.gone = False
        self._incoming: deque[Message] = deque()
        self._last: Message | None = None
        self._readers = 0
        #: How many messages the application, or whoever reads for it, has taken.
        self.taken = 0
        self._changed = anyio.Event()

    async def receive(self) -> Message:
        assert self._readers == 0, "there are two readers"
        self._readers += 1
        self._notify()
        try:
            if self._last is not None:
                return self._last
            while not self._incoming:
                await self._changed.wait()
            message = self._incoming.popleft()
            self.taken += 1
            if message["type"].endswith("disconnect"):
                self._last = message
            self._notify()
            return message
        finally:
            self._readers -= 1

    async def send(self, message: Message) -> None:
        await self.writable.wait()
        if self.gone:
            raise OSError("the client is gone")
        self.sent.append(message)
        self._notify()
        await anyio.lowlevel.checkpoint()

    def say(self, **message: Any) -> None:
        """Have a message arrive."""
        self._incoming.append(message)
        self._notify()

    def hang_up(self) -> None:
        self.say(type="http.disconnect" if self.scope["type"] == "http" else "websocket.disconnect")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until_listening(self) -> None:
        """Wait until somebody is inside of ``receive()``."""
        while not self._readers:
            await self._changed.wait()

    async def until_sent(self, count: int) -> None:
        while len(self.sent) < count:
            await self._changed.wait()

    async def until_taken(self, count: int) -> None:
        while self.taken < count:
            await self._changed.wait()

    def start(self, app: Application, group: TaskGroup) -> None:
        """Serve it."""
        group.start_soon(self._serve, app)

    async def _serve(self, app: Application) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            self.error = error
        finally:
            self.over.set()

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")

    @property
    def complete(self) -> bool:
        """Whether the response came to its end, in one last message."""
        ends = [not m.get("more_body") for m in self.sent if m["type"] == "http.response.body"]
        assert True not in ends[:-1]
        return bool(ends) and ends[-1]


def tasks_in(scope: Scope) -> RequestTasks:
    tasks = scope["state"]["tasks"]
    assert isinstance(tasks, RequestTasks)
    return tasks


class Bench:
    """A guard that runs, and what is asked of its application."""

    def __init__(self, lab: Lab, guard: Guard, group: TaskGroup) -> None:
        self.lab = lab
        self.fake = lab.fake
        self.guard = guard
        self._group = group

    def request(self, app: Application, **scope: Any) -> Exchange:
        exchange = Exchange("http", **scope)
        exchange.start(self.guard.middleware(app), self._group)
        return exchange

    def websocket(self, app: Application, **scope: Any) -> Exchange:
        exchange = Exchange("websocket", **scope)
        exchange.start(self.guard.middleware(app), self._group)
        return exchange

    async def until_finished(self, finished: dict[tuple[str, str], int]) -> None:
        """Wait until so many tasks have finished, by outcome and reason."""
        while self.lab.finished != finished:
            await anyio.lowlevel.checkpoint()

    async def until_live(self, count: int) -> None:
        await self.fake.until(lambda: len(self.fake.live) == count)


@asynccontextmanager
async def bench(
    *, left: int = 0, duration: float | None = None, **options: Any
) -> AsyncIterator[Bench]:
    """Run a guard over a fake; afterwards ``left`` remote tasks may live."""
    lab = Lab(duration=duration)
    guard = Guard(client=lab.fake, ledger="memory:", registry=lab.registry, **options)
    with anyio.fail_after(600):
        async with anyio.create_task_group() as group, guard.lifespan(None):
            yield Bench(lab, guard, group)
    assert len(lab.fake.live) == left, lab.fake.live
