"""Ledgers that are wrong in one thing each; ``test_ledger_suite.py`` says what finds them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from sigmic_guard.ledger import MemoryLedger, MemoryStore, Refusal, Write
from sigmic_guard.lifecycle import Record, State

# --- rows, batches and keys ---------------------------------------------------------------------


class IgnoresExpected(MemoryLedger):
    """Last write wins."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        rows = self.store.rows
        stored = [(record, rows.get(record.intent_id)) for record, _ in writes]
        return await super().commit(
            [Write(record, row.version if row else 0) for record, row in stored]
        )


class LosesTheTail(MemoryLedger):
    """Says that it did all of a batch, and did a thousand."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        done = await super().commit(writes[:1000])
        return [*done, *[None] * (len(writes) - 1000)]


class StopsAtARefusal(MemoryLedger):
    """Takes a refusal for the end of the batch."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        results: list[Refusal | None] = []
        for write in writes:
            results += await super().commit([write])
            if results[-1] is not None:
                break
        return results + [None] * (len(writes) - len(results))


class IgnoresKeys(MemoryLedger):
    """Knows no key."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        self.store.keys.clear()
        return await super().commit(writes)


class KeepsKeys(MemoryLedger):
    """Never gives a key back."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        before = dict(self.store.keys)
        results = await super().commit(writes)
        self.store.keys.update(before)
        return results


class MixesNamespaces(MemoryLedger):
    """Gives the rows of all namespaces."""

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        return await super().unfinished(None, owner_id=owner_id, remote_id=remote_id)


class OnlyItsOwn(MemoryLedger):
    """Hides what other owners left."""

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        return await super().unfinished(namespace, owner_id=self._owner_id, remote_id=remote_id)


class ForgetsAField(MemoryLedger):
    """Has no column for the last error."""

    async def get(self, intent_id: str) -> Record | None:
        row = await super().get(intent_id)
        return row and msgspec.structs.replace(row, last_error=None)


class EverybodyLives(MemoryLedger):
    """Never finds an orphan."""

    async def owner_alive(self, owner_id: str) -> bool:
        await super().owner_alive(owner_id)
        return True


class NobodyLives(MemoryLedger):
    """Takes every task for an orphan."""

    async def owner_alive(self, owner_id: str) -> bool:
        await super().owner_alive(owner_id)
        return False


class StaysOpen(MemoryLedger):
    """Writes after it was closed."""

    def _check_open(self) -> None:
        pass


class Alone(MemoryLedger):
    """Shares nothing with its neighbours."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__()


# --- writes that are repeated -------------------------------------------------------------------


class KnowsNoRepeat(MemoryLedger):
    """Takes a repeat for somebody else's write."""

    def _write(self, record: Record, expected: int) -> Refusal | None:
        stored = self.store.rows.get(record.intent_id)
        if (stored.version if stored else 0) != expected:
            return Refusal.CONFLICT
        return super()._write(record, expected)


class RepeatsByVersion(MemoryLedger):
    """Takes whatever has the stored version for a repeat."""

    def _write(self, record: Record, expected: int) -> Refusal | None:
        stored = self.store.rows.get(record.intent_id)
        if stored and stored.version == record.version:
            return None
        return super()._write(record, expected)


class RepeatsThePast(MemoryLedger):
    """Takes whatever is older than the stored row for a repeat."""

    def _write(self, record: Record, expected: int) -> Refusal | None:
        stored = self.store.rows.get(record.intent_id)
        if stored and stored.version > record.version:
            return None
        return super()._write(record, expected)


class FreesTheKeyAgain(MemoryLedger):
    """Frees a finished row's key, whoever has it."""

    def _write(self, record: Record, expected: int) -> Refusal | None:
        if record.finished_at is not None and record.key is not None:
            self.store.keys.pop((record.namespace, record.key), None)
        return super()._write(record, expected)


# --- questions ----------------------------------------------------------------------------------


class FindsNoRemoteId(MemoryLedger):
    """Looks a row up by its intent id only."""

    async def find(self, identifier: str) -> Sequence[Record]:
        return [row for row in await super().find(identifier) if row.intent_id == identifier]


class FindsTheFirst(MemoryLedger):
    """Takes a remote id for unique."""

    async def find(self, identifier: str) -> Sequence[Record]:
        return (await super().find(identifier))[:1]


class FindsParts(MemoryLedger):
    """Is content with a part of an id."""

    async def find(self, identifier: str) -> Sequence[Record]:
        rows = await self.unfinished()
        return [row for row in rows if identifier in f"{row.intent_id} {row.remote_id}"]


class FindsWhatWas(MemoryLedger):
    """Shows a finished row as it was before it finished."""

    def _write(self, record: Record, expected: int) -> Refusal | None:
        if record.finished_at is not None:
            return None
        return super()._write(record, expected)


class HolderOfAnyNamespace(MemoryLedger):
    """Takes keys for unique."""

    async def holder(self, namespace: str, key: str) -> Record | None:
        return next((row for row in await self.unfinished() if row.key == key), None)


class HolderStaysAsItWas(MemoryLedger):
    """Shows the holder of a key as it was when it took the key."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.first: dict[tuple[str, str], Record] = {}

    async def holder(self, namespace: str, key: str) -> Record | None:
        row = await super().holder(namespace, key)
        return row and self.first.setdefault((namespace, key), row)


class HolderMayHaveFinished(MemoryLedger):
    """Gives the last row that had the key."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.last: dict[tuple[str, str], Record] = {}

    def _write(self, record: Record, expected: int) -> Refusal | None:
        refusal = super()._write(record, expected)
        if refusal is None and record.key is not None:
            self.last[record.namespace, record.key] = record
        return refusal

    async def holder(self, namespace: str, key: str) -> Record | None:
        await super().holder(namespace, key)
        return self.last.get((namespace, key))


class UnfinishedOfAnybody(MemoryLedger):
    """Does not look at the owner."""

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        return await super().unfinished(namespace, remote_id=remote_id)


class UnfinishedOfAnyTask(MemoryLedger):
    """Does not look at the remote id."""

    async def unfinished(
        self,
        namespace: str | None = None,
        *,
        owner_id: str | None = None,
        remote_id: str | None = None,
    ) -> Sequence[Record]:
        return await super().unfinished(namespace, owner_id=owner_id)


class ForgetsOwners(MemoryLedger):
    """Names the living owners only."""

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        return {owner for owner in await super().owners(namespace) if await self.owner_alive(owner)}


class OwnersByRow(MemoryLedger):
    """Names an owner once for each of its rows."""

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        return [row.owner_id for row in await self.unfinished(namespace)]


class OwnersOfAnyTime(MemoryLedger):
    """Names whoever has owned a row."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.known: set[str] = set()

    async def owners(self, namespace: str | None = None) -> Collection[str]:
        self.known |= set(await super().owners(namespace))
        return self.known


class RefusedIsAbsent(MemoryLedger):
    """Takes a refused create for one that was lost."""

    def _write(self, record: Record, expected: int) -> Refusal | None:
        refusal = super()._write(record, expected)
        if record.state is State.NEVER_CREATED:
            self.store.absent[record.intent_id] = record
        return refusal


class FoundIsAbsent(MemoryLedger):
    """Takes whatever was lost once for absent."""

    def _write(self, record: Record, expected: int) -> Refusal | None:
        refusal = super()._write(record, expected)
        if record.lost_at is not None and record.finished_at is not None:
            self.store.absent[record.intent_id] = record
        return refusal


class AbsentAfter(MemoryLedger):
    """Leaves out what was proven at the very time that is asked for."""

    async def absent(self, namespace: str, since: float) -> Sequence[Record]:
        rows = await super().absent(namespace, since)
        return [row for row in rows if row.finished_at != since]


class ForgetsAbsences(MemoryLedger):
    """Throws all finished rows away at once."""

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        self.store.absent.clear()


# --- owners -------------------------------------------------------------------------------------


class WakesTheDead(MemoryLedger):
    """Announces everybody of whom it knows."""

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        self.store.owners |= self.store.last_seen.keys()


class KillsTheIdle(MemoryLedger):
    """Takes an owner for dead that gave no sign of life for a day."""

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        seen = self.store.last_seen
        self.store.owners = {it for it in self.store.owners if seen.get(it, 0.0) > now - 86_400}


class PrunesByAge(MemoryLedger):
    """Throws old rows away, finished or not."""

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        for row in await self.unfinished():
            if row.created_at < now - 7 * 86_400:
                del self.store.rows[row.intent_id]


class BuriesTheDead(MemoryLedger):
    """Throws a dead owner's rows away."""

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        for row in await self.unfinished():
            if row.owner_id not in self.store.owners:
                del self.store.rows[row.intent_id]


class NeverSaw(MemoryLedger):
    """Keeps no sign of life."""

    async def last_seen(self, owner_id: str) -> float | None:
        await super().last_seen(owner_id)
        return None


class SeesAllAtOnce(MemoryLedger):
    """Keeps one sign of life for all."""

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        self.store.last_seen = dict.fromkeys(self.store.last_seen, now)


class ForgetsTheDead(MemoryLedger):
    """Drops a dead owner's sign of life while its row still needs it."""

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        for owner_id in self.store.last_seen.keys() - self.store.owners:
            del self.store.last_seen[owner_id]


class SawEverybody(MemoryLedger):
    """Takes an owner that it never saw for one of 1970."""

    async def last_seen(self, owner_id: str) -> float | None:
        return await super().last_seen(owner_id) or 0.0


class DeadSinceItsSign(MemoryLedger):
    """Takes the difference of two wall clocks for time that passed."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.now = 0.0

    async def upkeep(self, now: float) -> None:
        await super().upkeep(now)
        self.now = now

    async def dead_for(self, owner_id: str) -> float:
        return self.now + await super().dead_for(owner_id)


class SeesTheLivingDead(MemoryLedger):
    """Does not ask whether the owner lives."""

    async def dead_for(self, owner_id: str) -> float:
        return 1.0 + await super().dead_for(owner_id)
