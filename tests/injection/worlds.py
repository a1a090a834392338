"""The remote systems that the sweeps run against: the emulator over HTTP, and the fake in memory.

Their tasks say ``Hello world`` at once, and then run until somebody ends them: a task that nobody
ended is still there to be counted.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, Self
from unittest.mock import patch

from sigmic_guard import Supervisor
from sigmic_guard.emulator import Emulator, Script
from sigmic_guard.errors import ConnectionFailed, ProtocolError
from sigmic_guard.sigmic import SigmicClient
from sigmic_guard.sigmic.models import TaskInfo
from sigmic_guard.testing import Answer, Call, FakeSigmic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from prometheus_client import CollectorRegistry

    from sigmic_guard.sigmic import CreateRequest, TaskApi
    from sigmic_guard.sigmic.models import TaskPage

KEY = "sigmic_" + "0" * 64


class World(Protocol):
    """What a sweep asks of a remote system; its truth, never what we believe of it."""

    @property
    def live(self) -> int:
        """How many tasks run, and cost money."""

    @property
    def statuses(self) -> list[str]:
        """How all tasks are that were ever created."""

    @property
    def posted(self) -> int:
        """How many creates arrived."""

    #: Seconds in which a create that was torn apart is certainly over.
    short: float

    def begin(self) -> None:
        """Forget everything."""

    def api(self) -> TaskApi:
        """A new client, closed with the world."""

    def supervisor(self, registry: CollectorRegistry, create_timeout: float) -> Supervisor:
        """A supervisor on the memory ledger."""

    def complete(self) -> None:
        """Let all tasks complete."""

    async def stream_opened(self) -> None:
        """Wait until somebody reads a stream."""


class InEmulator:
    """The real client and a real server."""

    short = 0.5

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._clients = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clients.aclose()

    @property
    def live(self) -> int:
        return self._emulator.live

    @property
    def statuses(self) -> list[str]:
        return [task.status for task in self._emulator.tasks.values()]

    @property
    def posted(self) -> int:
        return self._emulator.count(route="create")

    def begin(self) -> None:
        self._emulator.reset()

    def api(self) -> TaskApi:
        client = SigmicClient(KEY, self._emulator.url)
        self._clients.push_async_callback(client.aclose)
        return client

    def supervisor(self, registry: CollectorRegistry, create_timeout: float) -> Supervisor:
        return Supervisor(
            api_key=KEY,
            base_url=self._emulator.url,
            ledger="memory:",
            create_timeout=create_timeout,
            registry=registry,
        )

    def complete(self) -> None:
        for task_id in self._emulator.state()["live_ids"]:
            self._emulator.complete(task_id)

    async def stream_opened(self) -> None:
        await self._emulator.wait_for(
            lambda _: any(
                seen.route == "stream" and seen.status == 200 for seen in self._emulator.requests
            )
        )


class InMemory:
    """No sockets, no waiting: the same steps each time, and on trio as well."""

    short = 0.1

    def __init__(
        self,
        *,
        read_lag: float = 0.0,
        arrange: Callable[[FakeSigmic], None] = lambda _: None,
        make: type[FakeSigmic] = FakeSigmic,
    ) -> None:
        self._read_lag = read_lag
        self._arrange = arrange
        self._make = make
        self.begin()

    def begin(self) -> None:
        self._fake = self._make(read_lag=self._read_lag)
        self._arrange(self._fake)
        self._fake.script("work", chunks=("Hello", " ", "world"))
        self._fake.script("more", chunks=("Done", "."))

    @property
    def live(self) -> int:
        return len(self._fake.live)

    @property
    def statuses(self) -> list[str]:
        return [task.status for task in self._fake.tasks.values()]

    @property
    def posted(self) -> int:
        return self._fake.count("create")

    def api(self) -> TaskApi:
        return self._fake

    def supervisor(self, registry: CollectorRegistry, create_timeout: float) -> Supervisor:
        return Supervisor(
            client=self._fake, ledger="memory:", create_timeout=create_timeout, registry=registry
        )

    def complete(self) -> None:
        for task_id in self._fake.live:
            self._fake.complete(task_id)

    async def stream_opened(self) -> None:
        await self._fake.until(lambda: self._fake.open_streams)


def _swap(fake: FakeSigmic) -> None:
    """Let the first GETs tell of another task; who reads a stream that breaks asks for one."""

    def of_somebody_else(call: Call) -> Answer:
        return Answer(TaskInfo(id=f"not {call.task_id}", status="completed"))

    fake.on("get", *[of_somebody_else] * 3)
    fake.on("receive", ConnectionFailed("the stream broke", sent=True))


def _stand_before(fake: FakeSigmic) -> None:
    """Let a gateway answer first, with a page of its own, where that is not told to the caller."""
    for method, status in (("get", 403), ("list", 404), ("delete", 401), ("stream", 409)):
        fake.on(method, ProtocolError("a page", status=status))


class Replaced(FakeSigmic):
    """Obeys, and a gateway gives the first answers of each route where that is not told."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._replaced = set[str]()

    def _replace(self, route: str) -> None:
        if route not in self._replaced:
            self._replaced.add(route)
            raise ProtocolError("a page", status=409)

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        task_id = await super().create(request, timeout=timeout)
        self._replace("create")
        return task_id

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        info = await super().get(task_id, timeout=timeout)
        self._replace("get")
        return info

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        page = await super().list(limit=limit, offset=offset, timeout=timeout)
        self._replace("list")
        return page

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        told = await super().delete(task_id, timeout=timeout)
        self._replace("delete")
        return told


@contextmanager
def a_clock_that_steps() -> Iterator[None]:
    """Set the wall clock by an hour or two between any two readings of it."""
    off = cycle((0.0, 3600.0, -3600.0))
    clock = SimpleNamespace(time=lambda: time.time() + next(off), monotonic=time.monotonic)
    with patch("sigmic_guard.supervisor.ground.clock.time", clock):
        yield


_IN_MEMORY: Mapping[str, Callable[[], InMemory]] = {
    "fake": InMemory,
    "lagging": partial(InMemory, read_lag=2.0),
    "lagging a little": partial(InMemory, read_lag=0.05),
    "swapped": partial(InMemory, arrange=_swap),
    "behind a gateway": partial(InMemory, arrange=_stand_before),
    "a gateway answers for it": partial(InMemory, make=Replaced),
    "its clock steps": InMemory,
}
_CLOCKS: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "its clock steps": a_clock_that_steps
}


@asynccontextmanager
async def open_world(name: str) -> AsyncIterator[World]:
    """Open the world of this name.

    :param name: ``emulator`` or ``fake``; or ``lagging``, ``lagging a little`` (for real time),
        ``swapped``, ``behind a gateway`` or ``a gateway answers for it``: a fake whose reads lag,
        whose first GETs tell of another task, or whose first answers are a gateway's pages, without
        and with effect; or ``its clock steps``: by an hour or two, again and again.
    """
    if name in _IN_MEMORY:
        with _CLOCKS.get(name, nullcontext)():
            yield _IN_MEMORY[name]()
        return
    script = Script(duration=0.0, hold=True)
    async with Emulator(script=script) as emulator, InEmulator(emulator) as world:
        yield world
