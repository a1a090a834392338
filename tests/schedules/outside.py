"""What leads out of a virtual process: a line to the remote system, a handle on the ledger."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import (
    ConnectionFailed,
    LedgerError,
    ProtocolError,
    ServerError,
    TaskNotFound,
)
from sigmic_guard.ledger import MemoryLedger, Refusal, Write
from sigmic_guard.sigmic.models import TaskPage
from tests.schedules.freezing import PROCESS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from pathlib import Path

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.api import ApprovalOutcome, EventStream
    from sigmic_guard.sigmic.models import CreateRequest, TaskInfo
    from tests.schedules.world import Process

T = TypeVar("T")

FOREVER: Final = 1e9
UNAVAILABLE: Final = ServerError("come back later", code="HTTP_503", status=503)
#: What a gateway answers in the API's place, which proves nothing.
PAGES: Final = {
    "create": ProtocolError("a page", status=409),
    "get": ProtocolError("a page", status=404),
    "list": ProtocolError("a page", status=403),
    "delete": ProtocolError("a page", status=404),
    "stream": ProtocolError("a page", status=401),
}
NOT_FOUND: Final = TaskNotFound("no such task", code="NOT_FOUND", status=404)
#: Seconds since the epoch at which virtual time begins.
EPOCH: Final = 1.8e9
#: Seconds after which rows of creates that were absent may be forgotten: more than clocks differ.
FORGOTTEN: Final = 86400.0
#: Seconds that a call of the ledger takes at most.
SLOWEST_LEDGER: Final = 9.0


class Line:
    """A process's line to the remote system, with its own credential."""

    base_url = "https://sigmic.test"

    def __init__(self, process: Process) -> None:
        self._process = process
        self._fake = process.world.fake
        self._truth = process.world.truth

    @property
    def credential_fingerprint(self) -> str:
        return self._process.life.credential

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        return await self._ask("create", lambda: self._create(request), timeout)

    async def _create(self, request: CreateRequest) -> str:
        return await self._fake.create(request, timeout=FOREVER)

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        return await self._ask("get", lambda: self._get(task_id), timeout)

    async def _get(self, task_id: str) -> TaskInfo:
        self._check(task_id)
        return await self._fake.get(task_id, timeout=FOREVER)

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        return await self._ask("list", lambda: self._list(limit, offset), timeout)

    async def _list(self, limit: int, offset: int) -> TaskPage:
        page = await self._fake.list(limit=100, offset=0, timeout=FOREVER)
        mine = [info for info in page.tasks if self._may_see(info.id)]
        end = offset + limit
        return TaskPage(mine[offset:end], len(mine), len(mine) > end)

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        if not self._process.dead:
            self._truth.deleting(self._process.life, task_id)
        return await self._ask("delete", lambda: self._delete(task_id), timeout)

    async def _delete(self, task_id: str) -> bool:
        self._check(task_id)
        self._truth.deleted(self._process.life, task_id)
        return await self._fake.delete(task_id, timeout=FOREVER)

    async def send(
        self, task_id: str, message: str, *, files: Sequence[Path] = (), timeout: float
    ) -> str:
        raise NotImplementedError

    async def approve(
        self, task_id: str, call_id: str, outcome: ApprovalOutcome, *, timeout: float
    ) -> bool:
        raise NotImplementedError

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> EventStream:
        opened: list[EventStream] = []
        given_up = False

        async def opening() -> EventStream:
            self._check(task_id)
            stream = await self._fake.stream(task_id, timeout=FOREVER, silence=silence)
            opened.append(stream)
            self._process.connections.append(stream)
            if given_up or not self._process.life.alive:  # nobody is at the other end any more
                stream.close()
            return stream

        try:
            return await self._ask("stream", opening, timeout)
        except BaseException:
            given_up = True
            for stream in opened:
                stream.close()
            raise

    async def aclose(self) -> None:
        pass

    # --- one request ----------------------------------------------------------------------------

    def _may_see(self, task_id: str) -> bool:
        wish = self._truth.wish_of(task_id)
        return wish is not None and wish.life.credential == self._process.life.credential

    def _check(self, task_id: str) -> None:
        if not self._may_see(task_id):
            raise copy(NOT_FOUND)

    async def _ask(self, method: str, effect: Callable[[], Awaitable[T]], timeout: float) -> T:
        process, fault = self._process, self._process.world.api_fault
        await checkpoint()
        if process.dead or fault == "refuse":
            raise ConnectionFailed("nobody listens", sent=False)
        if fault == "fail":
            raise copy(
                UNAVAILABLE
            )  # a shared one would keep the frames that it passed, and readers
        if fault == "page":
            raise copy(PAGES[method])
        with anyio.move_on_after(timeout):
            if fault == "swallow":
                await anyio.sleep_forever()
            answer = await self._carry(effect)
            if process.dead or fault == "lose":
                raise ConnectionFailed(f"the answer to {method} was lost", sent=True)
            if fault == "page in its place":
                raise copy(PAGES[method])
            return answer
        raise ConnectionFailed(f"no answer to {method}", sent=True, timed_out=True)

    async def _carry(self, effect: Callable[[], Awaitable[T]]) -> T:
        """Have it take effect; once it is under way nothing that befalls the process hinders it."""
        half, world = self._process.latency / 2, self._process.world
        if half == 0.0:
            return await effect()
        done, answer = anyio.Event(), list[Any]()

        async def travel() -> None:
            world.in_flight += 1
            await anyio.sleep(half)
            try:
                answer.append(await effect())
            except Exception as error:
                answer.append(error)
            world.in_flight -= 1
            await anyio.sleep(half)
            done.set()

        token = PROCESS.set(None)
        world.group.start_soon(travel)
        PROCESS.reset(token)
        await done.wait()
        if isinstance(answer[0], Exception):
            raise answer[0]
        result: T = answer[0]
        return result


class Handle(MemoryLedger):
    """A process's handle on the one ledger; whatever it writes is judged."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.store)
        self.process = process

    async def _through(self, call: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        process = self.process
        await checkpoint()
        half = min(process.latency, SLOWEST_LEDGER) / 2
        if half:
            await anyio.sleep(half)
        if process.dead or process.world.ledger_fault:
            raise LedgerError("the ledger is out of reach")
        answer = await call(*args, **kwargs)
        if half:
            await anyio.sleep(half)
        return answer

    async def open(self, owner_id: str) -> None:
        life = self.process.life
        life.owner_id = owner_id
        self.process.world.truth.lives[owner_id] = life
        await self._through(super().open, owner_id)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        return await self._through(self._commit, writes)

    async def _commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        refusals = await self.store_all(writes)
        for write, refusal in zip(writes, refusals, strict=True):
            if refusal is None:
                self.process.world.truth.written(self.process.life, write)
        return refusals

    async def store_all(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        """Do the writes, once they have reached the ledger."""
        return await super().commit(writes)

    async def get(self, *args: Any) -> Record | None:
        return await self._through(super().get, *args)

    async def find(self, *args: Any) -> Sequence[Record]:
        return await self._through(super().find, *args)

    async def holder(self, *args: Any) -> Record | None:
        return await self._through(super().holder, *args)

    async def unfinished(self, *args: Any, **kwargs: Any) -> Sequence[Record]:
        return await self._through(super().unfinished, *args, **kwargs)

    async def owners(self, *args: Any) -> Collection[str]:
        owners = await self._through(super().owners, *args)
        lives = self.process.world.truth.lives
        return sorted(owners, key=lambda it: lives[it].name)  # the same order each time

    async def absent(self, namespace: str, since: float) -> Sequence[Record]:
        # A ledger that is shared forgets nothing by the clock of one who asks.
        rows = await self._through(super().absent, namespace, since - FORGOTTEN)
        return [row for row in rows if (row.finished_at or since) >= since]

    async def owner_alive(self, *args: Any) -> bool:
        return await self._through(super().owner_alive, *args)

    async def last_seen(self, *args: Any) -> float | None:
        return await self._through(super().last_seen, *args)

    async def dead_for(self, *args: Any) -> float:
        return await self._through(super().dead_for, *args)

    async def upkeep(self, now: float) -> None:
        await self._through(self._upkeep, now)

    async def _upkeep(self, now: float) -> None:
        await super().upkeep(now)
        self.process.life.seen_at = anyio.current_time()

    async def aclose(self) -> None:
        await super().aclose()
        self.process.bury()  # from here on its rows are anybody's
