"""One life of a process: it takes steps, and at one of them it stops dead.

A step is a point between two things that the world outside can tell apart: just before and just
after a ledger's commit, a request that is about to go out, is out, took effect, was answered. After
the last step nothing that the process does reaches its ledger or the network, nothing is answered,
and its owner is dead. What is left of it in memory is thrown away without a word.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from anyio import Event, sleep, sleep_forever

from sigmic_guard.ledger import MemoryLedger, SqliteLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sigmic_guard import Supervisor
    from sigmic_guard.ledger import Ledger, Refusal, Write
    from sigmic_guard.lifecycle import Record


class Life:
    """Counts the steps of a process, and ends it.

    :param dies_at: the number of its last step, from 0; ``None``: it lives on.
    """

    def __init__(self, dies_at: int | None = None) -> None:
        self._dies_at = dies_at
        #: What it was at, step by step.
        self.steps: list[str] = []
        self.alive = True
        self.died = Event()

    def mark(self, what: str) -> bool:
        """Come to a step; ``True`` if the process lives on."""
        if self.alive:
            if len(self.steps) == self._dies_at:
                self.alive = False
                self.died.set()
            self.steps.append(what)
        return self.alive

    async def step(self, what: str) -> None:
        """Come to a step; nobody who died there returns."""
        if not self.mark(what):
            await sleep_forever()

    async def go_on(self) -> None:
        """Return what is read to the living alone."""
        if not self.alive:
            await sleep_forever()


class MortalLedger:
    """A ledger as the process sees it, whose every write is two steps.

    :param inner: the store's own handle.
    :param delay: the next of the seconds that a commit takes, before its effect and after it.
    :param books: gets each row that was written, as it is after that.
    """

    def __init__(
        self, inner: Ledger, life: Life, delay: Callable[[], float], books: dict[str, Record]
    ) -> None:
        self.inner = inner
        self._life = life
        self._delay = delay
        self._books = books

    async def open(self, owner_id: str) -> None:
        await self._life.step("opening the ledger")
        await self.inner.open(owner_id)
        await self._life.step("having opened the ledger")

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        what = ", ".join(f"{write.record.state}" for write in writes)
        await self._life.step(f"committing {what}")
        await sleep(self._delay())
        await self._life.go_on()
        refusals = await self.inner.commit(writes)
        for write, refusal in zip(writes, refusals, strict=True):
            if refusal is None:
                self._books[write.record.intent_id] = write.record
        await sleep(self._delay())
        await self._life.step(f"having committed {what}")
        return refusals

    async def upkeep(self, now: float) -> None:
        await self._life.step("doing the upkeep")
        await self.inner.upkeep(now)
        await self._life.step("having done the upkeep")

    async def aclose(self) -> None:
        await self._life.step("closing the ledger")
        await self.inner.aclose()
        await self._life.step("having closed the ledger")

    async def get(self, intent_id: str) -> Record | None:
        row = await self.inner.get(intent_id)
        await self._life.go_on()
        return row

    async def find(self, identifier: str) -> Sequence[Record]:
        rows = await self.inner.find(identifier)
        await self._life.go_on()
        return rows

    async def holder(self, namespace: str, key: str) -> Record | None:
        row = await self.inner.holder(namespace, key)
        await self._life.go_on()
        return row

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        rows = await self.inner.unfinished(namespace, owner_id=owner_id, remote_id=remote_id)
        await self._life.go_on()
        return rows

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        owners = await self.inner.owners(namespace)
        await self._life.go_on()
        return owners

    async def absent(self, namespace: str, since: float) -> Sequence[Record]:
        rows = await self.inner.absent(namespace, since)
        await self._life.go_on()
        return rows

    async def owner_alive(self, owner_id: str) -> bool:
        alive = await self.inner.owner_alive(owner_id)
        await self._life.go_on()
        return alive

    async def last_seen(self, owner_id: str) -> float | None:
        seen = await self.inner.last_seen(owner_id)
        await self._life.go_on()
        return seen

    async def dead_for(self, owner_id: str) -> float:
        passed = await self.inner.dead_for(owner_id)
        await self._life.go_on()
        return passed


async def bury(ledger: Ledger) -> None:
    """Let the owner be dead as the kernel would: it left no word, and nothing is open any more."""
    if isinstance(ledger, MemoryLedger):
        await ledger.aclose()  # which leaves no word
        return
    assert isinstance(ledger, SqliteLedger)
    session = ledger._session
    if session is None:
        return  # it had closed, or not opened

    def drop_the_lock() -> None:
        if session.lock is not None:
            session.lock.release(left=False)
            session.lock = None

    await session.writer.thread.run(drop_the_lock)
    await ledger.aclose()


def throw_away(supervisor: Supervisor) -> None:
    """Stop all that a dead process has running, so that whoever waits for it is let go."""
    if supervisor._core is not None:
        with suppress(AttributeError):  # it died before it had any
            supervisor._session.workers.stop()
        supervisor._session.begin_drain().abort()
