"""A ledger where the system sets limits, ``limits.py PATH WHAT``; it says what it is told."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import anyio

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import SqliteLedger, Write, statements
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from collections.abc import Awaitable

PATH = Path(sys.argv[1])


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def says(use: Awaitable[object]) -> None:
    try:
        say(await use)
    except LedgerError as error:
        say(error)


def be_nobody() -> None:
    """Root may write anywhere; nobody else may."""
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)


async def read_only_folder() -> None:
    be_nobody()
    ledger = SqliteLedger(PATH)
    await says(ledger.open("owner-1"))
    PATH.parent.chmod(0o700)
    await says(ledger.open("owner-1"))
    await ledger.aclose()


async def read_only_file() -> None:
    be_nobody()
    ledger = SqliteLedger(PATH)
    await ledger.open("owner-1")
    await ledger.aclose()
    PATH.chmod(0o400)
    await says(ledger.open("owner-1"))
    PATH.chmod(0o600)
    await says(ledger.open("owner-1"))
    await ledger.aclose()


async def no_room() -> None:
    """A limit on the size of files is as near as one comes to a full disk without being root."""
    ledger = SqliteLedger(PATH)
    await ledger.open("owner-1")
    await ledger.commit([Write(make_record("before"), 0)])
    size = Path(f"{PATH}-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, before[1]))
    batch = [Write(make_record(f"{number}", last_error="x" * 1000), 0) for number in range(100)]
    for _ in range(2):
        await says(ledger.commit(batch))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    say(set(await ledger.commit(batch)))
    say(len(await ledger.unfinished()))
    await ledger.aclose()


async def stuck() -> None:
    """A disk that never answers, as the writing thread sees it."""
    ledger = SqliteLedger(PATH)
    await ledger.open("owner-1")
    vars(statements)["_write"] = lambda *_: Event().wait()
    with anyio.move_on_after(0.01):
        await ledger.commit([Write(make_record(), 0)])
    with anyio.move_on_after(0.01):
        await ledger.commit([Write(make_record(), 0)])
    say(await ledger.unfinished())
    with anyio.move_on_after(0.01):
        await ledger.aclose()
    say("left")


if __name__ == "__main__":
    anyio.run(globals()[sys.argv[2]], backend=sys.argv[3])
