"""One owner of a ledger, as a process: ``owner.py PATH OWNER_ID WHAT [NUMBER]``.

It says in lines what it did, and waits for the end of its input where it has to wait.
"""

from __future__ import annotations

import os
import sys

import anyio
import msgspec

from sigmic_guard.ledger import SqliteLedger, Write, owners
from sigmic_guard.testing.records import make_record

PATH, OWNER, WHAT = sys.argv[1:4]


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def hold(ledger: SqliteLedger) -> None:
    """Be alive."""
    await ledger.commit([Write(make_record(OWNER, owner_id=OWNER), 0)])
    await ledger.upkeep(5.0)
    say("ready")
    await anyio.to_thread.run_sync(sys.stdin.read)


async def keep_committing(ledger: SqliteLedger) -> None:
    """Commit batches of ten rows, and name each batch once it is durable."""
    for batch in range(int(sys.argv[4])):
        rows = [make_record(f"{OWNER}.{batch}.{i}", owner_id=OWNER) for i in range(10)]
        assert not any(await ledger.commit([Write(row, 0) for row in rows]))
        say(batch)


async def take(ledger: SqliteLedger) -> None:
    """Take the orphans that nobody else takes, one by one."""
    orphans = await ledger.unfinished(owner_id="dead")
    say("ready")
    await anyio.to_thread.run_sync(sys.stdin.read)
    won = 0
    for row in orphans:
        taken = msgspec.structs.replace(row, owner_id=OWNER, version=row.version + 1)
        won += await ledger.commit([Write(taken, row.version)]) == [None]
    say(won)


async def fork(ledger: SqliteLedger) -> None:
    """Have a child that goes on living."""
    if os.fork() == 0:
        say("ready")  # it has closed what it inherited
        sys.stdin.read()
        os._exit(0)
    await anyio.sleep_forever()


async def fork_careless(ledger: SqliteLedger) -> None:
    """The same, with a child that keeps what it inherited."""
    owners._held.clear()
    await fork(ledger)


async def main() -> None:
    ledger = SqliteLedger(PATH)
    await ledger.open(OWNER)
    await globals()[WHAT](ledger)
    await ledger.aclose()
    say("closed")


if __name__ == "__main__":
    anyio.run(main)
