"""A ledger whose rows are written by hand, and commands that look into it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sigmic_guard.ledger import SqliteLedger, Write
from sigmic_guard.lifecycle import State
from sigmic_guard.sigmic.credentials import Credential
from sigmic_guard.testing.records import make_record
from tests import forked
from tests.cli.conftest import KEY, MAX_SECONDS, MODULE, Cli

if TYPE_CHECKING:
    from pathlib import Path

    from sigmic_guard.lifecycle import Record

#: An owner that nobody has ever heard of is dead.
DEAD = "dead-owner"
#: What control characters there are to fear: a title, a cleared screen, and a forged line.
WILD = "a\x1b]0;title\x07b\x1b[2J\u009b2J\nc\rd"


@dataclass
class Books:
    """A ledger in a file."""

    file: Path
    cli: Cli

    async def write(self, *records: Record) -> None:
        """Write rows, as somebody who has left."""
        ledger = SqliteLedger(self.file)
        await ledger.open(uuid4().hex)
        assert await ledger.commit([Write(row, 0) for row in records]) == [None] * len(records)
        await ledger.aclose()

    async def add(self, intent_id: str = "intent-1", **fields: Any) -> Record:
        """Write the row of a task that a dead owner left running, unless ``fields`` differ."""
        basic: dict[str, Any] = {
            "base_url": self.cli.emulator.url,
            "credential_fingerprint": Credential(KEY).fingerprint,
            "owner_id": DEAD,
            "state": State.RUNNING,
            "remote_id": f"remote of {intent_id}",
            "created_at": time.time() - 90.0,
        }
        record = make_record(intent_id, **(basic | fields))
        await self.write(record)
        return record

    async def read(self) -> dict[str, Record]:
        """Return the unfinished rows by intent id."""
        ledger = SqliteLedger(self.file)
        await ledger.open(uuid4().hex)
        rows = await ledger.unfinished()
        await ledger.aclose()
        return {row.intent_id: row for row in rows}

    async def row(self, intent_id: str = "intent-1") -> Record:
        """Return one row, finished or not."""
        ledger = SqliteLedger(self.file)
        await ledger.open(uuid4().hex)
        record = await ledger.get(intent_id)
        await ledger.aclose()
        assert record is not None
        return record


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below the folder, but for what SQLite itself puts beside a database."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


async def on_a_terminal(cli: Cli, *arguments: str) -> tuple[int | None, str]:
    """Run a command on a pseudo-terminal; return its exit code and what was shown."""
    ours, theirs = os.openpty()
    process = await forked.open_process(MODULE, *arguments, env=cli.environment, output=theirs)
    os.close(theirs)
    shown = b""
    try:
        while data := await asyncio.to_thread(os.read, ours, 4096):
            shown += data
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(ours)
    async with asyncio.timeout(MAX_SECONDS):
        code = await process.wait()
        await process.aclose()
    return code, shown.decode().replace("\r\n", "\n")
