"""``Process``: one boot of a process, over a remote system and a store that outlive it.

When it dies nothing of it has an effect any more: what its supervisor still asks for stays within
it, and its owner is dead for everybody else. It can be held just before a request takes effect, or
just before it hears the answer, and die there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from prometheus_client import CollectorRegistry

from sigmic_guard import ConnectionFailed, Supervisor, TaskNotFound
from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.lifecycle import Record
from sigmic_guard.testing import FakeSigmic
from sigmic_guard.testing.fake_faults import Gate
from tests.supervisor.lab import Lab

T = TypeVar("T")


class MortalClient(FakeSigmic):
    """Another client of the same remote system."""

    def __init__(self, fake: FakeSigmic) -> None:
        vars(self).update(vars(fake))
        self.alive = True
        self._before: dict[str, Gate] = {}
        self._after: dict[str, Gate] = {}

    def hold(self, method: str, *, answer: bool = False) -> Gate:
        """Hold its requests, or their answers, but nobody else's."""
        gates = self._after if answer else self._before
        gate = gates[method] = Gate()
        return gate

    def die(self) -> None:
        self.alive = False
        for gate in (*self._before.values(), *self._after.values()):
            gate.open()

    async def _request(
        self, method: str, task_id: str | None, timeout: float, effect: Callable[[], T]
    ) -> T:
        if method in self._before:
            await self._before[method].hold()
        if method == "delete" and not self.alive:
            return cast("T", True)  # and has no effect; so that the dead are quick to leave
        self._live_on(method)
        answer = await super()._request(method, task_id, timeout, effect)
        if method in self._after:
            await self._after[method].hold()
        self._live_on(method)
        return answer

    def _live_on(self, method: str) -> None:
        if self.alive:
            return
        if method == "create":
            raise ConnectionFailed("dead", sent=False)
        raise TaskNotFound("dead", code="NOT_FOUND", status=404)


class MortalLedger(MemoryLedger):
    """A handle of somebody who can die."""

    alive = True

    def die(self) -> None:
        self.alive = False
        self.store.owners.discard(self._owner_id or "")

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        return await super().commit(writes) if self.alive else [None] * len(writes)

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        return await super().owners(namespace) if self.alive else []

    async def get(self, intent_id: str) -> Record | None:
        return await super().get(intent_id) if self.alive else None

    async def upkeep(self, now: float) -> None:
        if self.alive:
            await super().upkeep(now)


class Process:
    """A supervisor that can be stopped dead.

    :param client: of the remote system; default: the lab's.
    :param options: what ``Supervisor`` takes.
    """

    def __init__(
        self, lab: Lab, store: MemoryStore, *, client: FakeSigmic | None = None, **options: Any
    ) -> None:
        self.client = MortalClient(client or lab.fake)
        self.ledger = MortalLedger(store)
        self.registry = CollectorRegistry()
        self.supervisor = Supervisor(
            client=self.client, ledger=self.ledger, registry=self.registry, **options
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.supervisor)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def flush(self) -> None:
        """Wait until everything that it knows is in the ledger."""
        assert self.supervisor._core is not None
        await self.supervisor._core.outbox.flush()

    async def die(self, *, flush: bool = True) -> None:
        """Be killed: by default just after the last row was written."""
        if flush:
            await self.flush()
        self.ledger.die()
        self.client.die()


async def left_by_the_dead(lab: Lab, store: MemoryStore, message: str = "m", **options: Any) -> str:
    """Have a process create a task and die; return the task's id."""
    terms: dict[str, Any] = {"key": "k", "on_crash": "reattach"} | options
    async with Process(lab, store) as dead:
        task = await dead.supervisor.start(message, **terms)
        await dead.die()
    return task.id


def reaped(lab: Lab) -> dict[str, int]:
    """``orphans_reaped_total`` by what came of them, zeros left out."""
    return {labels["how"]: count for labels, count in lab._samples("orphans_reaped_total")}
