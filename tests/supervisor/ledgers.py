"""Ledgers that misbehave, and one that remembers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anyio import sleep_forever

from sigmic_guard import LedgerError
from sigmic_guard.ledger import MemoryLedger, Refusal, Write


class HangingLedger(MemoryLedger):
    """Hangs once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.hang = False
        self.hang_on_close = False

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        if self.hang:
            await sleep_forever()
        return await super().commit(writes)

    async def aclose(self) -> None:
        if self.hang or self.hang_on_close:
            await sleep_forever()
        await super().aclose()


class FailingLedger(MemoryLedger):
    """Fails each commit for which ``wrong`` says so."""

    def __init__(self, wrong: Callable[[Sequence[Write]], bool]) -> None:
        super().__init__()
        self.wrong = wrong
        self.failures = 0

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        if self.wrong(writes):
            self.failures += 1
            raise LedgerError("the disk is full")
        return await super().commit(writes)


class RefusingLedger(MemoryLedger):
    """Refuses all that ``why`` gives a reason for."""

    def __init__(self, why: Callable[[Write], Refusal | None]) -> None:
        super().__init__()
        self.why = why

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        verdicts = [self.why(write) for write in writes]
        good = [write for write, verdict in zip(writes, verdicts, strict=True) if verdict is None]
        done = iter(await super().commit(good))
        return [verdict if verdict is not None else next(done) for verdict in verdicts]
