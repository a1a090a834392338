"""What it costs to remember: a task's intent, its id and its end, on the disk.

Ours is the ledger in SQLite at synchronous=FULL behind the supervisor's outbox, which waits for
the intents. aiosqlite is used as one would: a commit each, at NORMAL. The file is the least that
can be done: lines appended by a thread, with one fdatasync for all that wait. Latency is that of
the intent, after which the POST may be sent.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec

from benchmarks.core.appended import AppendedFile
from benchmarks.core.model import OURS, Case, Goal, Plot, Row
from benchmarks.core.site import Clock, Unsound, callers
from benchmarks.core.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.core.site import Site

AIOSQLITE, FILE = "aiosqlite, NORMAL", "file, fdatasync"
_COLUMNS: Final = 23


async def measure(
    site: Site,
    intent: Callable[[int], Awaitable[object]],
    rest: Callable[[int], Awaitable[object]],
    end: Callable[[], Awaitable[object]],
) -> Mapping[str, float]:
    """Write so many tasks by so many callers, to the last row."""
    number = site["n"]
    taken: list[float] = []
    numbers = iter(range(number))

    async def one() -> None:
        index = next(numbers)
        began = perf_counter()
        await intent(index)
        taken.append(perf_counter() - began)
        await rest(index)

    with Clock() as clock:
        await callers(site["callers"], (one for _ in range(number)))
        await end()
    return {
        "each": clock.seconds / number * 1e6,
        "cpu": clock.cpu / number * 1e6,
        "p50": percentile(taken, 0.5) * 1000,
        "p99": percentile(taken, 0.99) * 1000,
    }


async def ours(site: Site) -> Mapping[str, float]:
    from sigmic_guard.ledger import SqliteLedger
    from sigmic_guard.lifecycle import Record, State, TaskPolicy
    from sigmic_guard.observe import Observers
    from sigmic_guard.supervisor.ground.lifetime import Lifetime
    from sigmic_guard.supervisor.ground.outbox import Outbox
    from sigmic_guard.supervisor.ground.timer import Timer

    but, now = msgspec.structs.replace, time.time()
    owner = uuid4().hex
    intents = [
        Record(
            intent_id=uuid4().hex,
            namespace="default",
            base_url="https://sigmic.example/api",
            credential_fingerprint="0123456789abcdef",
            owner_id=owner,
            policy=TaskPolicy(timeout=60.0),
            created_at=now,
            deadline_at=now + 60,
        )
        for _ in range(site["n"])
    ]
    ledger = SqliteLedger(Path(site.folder) / "ledger.db")
    await ledger.open(owner)

    def raised(where: str, bug: Exception) -> None:
        raise Unsound(f"{where}: {bug!r}")

    outbox = Outbox(ledger, Observers([]), Lifetime(), Timer(raised))
    worker = asyncio.create_task(outbox.write_rows())

    async def intent(index: int) -> None:
        await outbox.commit(intents[index], timeout=60)

    async def rest(index: int) -> None:
        first = intents[index]
        running = but(first, version=3, state=State.RUNNING, remote_id=str(uuid4()), posted_at=now)
        outbox.add(first, running)
        await asyncio.sleep(0)
        done = but(running, version=5, state=State.COMPLETED, finished_at=now + 1)
        outbox.add(running, done)

    result = await measure(site, intent, rest, outbox.empty)
    worker.cancel()
    await ledger.aclose()
    return result


async def with_aiosqlite(site: Site) -> Mapping[str, float]:
    import aiosqlite

    names = [f"c{index}" for index in range(_COLUMNS - 2)]
    async with aiosqlite.connect(Path(site.folder) / "aiosqlite.db") as database:
        await database.execute("PRAGMA journal_mode=WAL")
        await database.execute("PRAGMA synchronous=NORMAL")
        columns = ", ".join(names)
        await database.execute(
            f"CREATE TABLE tasks (intent_id TEXT PRIMARY KEY, finished_at REAL, {columns})"
        )
        row = ["x" * 16] * len(names)
        insert = f"INSERT INTO tasks VALUES (?, NULL{', ?' * len(names)})"  # noqa: S608

        async def intent(index: int) -> None:
            await database.execute(insert, (str(index), *row))
            await database.commit()

        async def rest(index: int) -> None:
            await database.execute(
                "UPDATE tasks SET c0 = ? WHERE intent_id = ?", (str(uuid4()), str(index))
            )
            await database.commit()
            await database.execute(
                "UPDATE tasks SET finished_at = 1 WHERE intent_id = ?", (str(index),)
            )
            await database.commit()

        return await measure(site, intent, rest, database.commit)


async def appended(site: Site) -> Mapping[str, float]:
    file = AppendedFile(Path(site.folder) / "rows")
    line = b"x" * 300 + b"\n"

    async def rest(_: int) -> None:
        file.append(line)
        await asyncio.sleep(0)
        file.append(line)

    return await measure(site, lambda _: file.commit(line), rest, file.aclose)


def cases(quick: bool) -> list[Case]:
    who = (OURS, AIOSQLITE, FILE)
    sizes = ((64, 1_500),) if quick else ((1, 500), (64, 10_000), (256, 20_000))
    return [
        Case(
            label=f"{count} caller{'s' if count > 1 else ''}",
            numbers={"callers": count, "n": number},
            contestants=who,
        )
        for count, number in sizes
    ]


ROW = Row(
    name="ledger",
    title="intent, id and end of a task, on the disk",
    headline="each",
    contestants={OURS: ours, AIOSQLITE: with_aiosqlite, FILE: appended},
    cases=cases,
    goals=tuple(
        goal
        for case in ("64 callers", "256 callers")
        for goal in (
            Goal(
                text="time at FULL against aiosqlite's at NORMAL",
                case=case,
                measure="each",
                over=AIOSQLITE,
                at_most=1 / 6,
            ),
            Goal(
                text="p99 against an appended file's",
                case=case,
                measure="p99",
                over=FILE,
                at_most=2.0,
            ),
        )
    ),
    plots=(
        Plot(measure="each", title="Intent, id and end of a task, µs"),
        Plot(measure="p99", title="Until an intent is durable, p99 in ms"),
    ),
)
