"""Forks with a ledger open, ``forks.py PATH``; the child says what it can do with it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio.from_thread import start_blocking_portal

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import SqliteLedger, Write
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATH = sys.argv[1]


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def says(what: str, use: Callable[[], Awaitable[object]]) -> None:
    try:
        say(f"{what}: {await use()}")
    except LedgerError as error:
        say(f"{what}: {error}")


async def in_child(inherited: SqliteLedger, unopened: SqliteLedger) -> None:
    await says("commit", lambda: inherited.commit([Write(make_record("child"), 0)]))
    await says("get", lambda: inherited.get("child"))
    await says("upkeep", lambda: inherited.upkeep(1.0))
    await says("open", lambda: inherited.open("child"))
    await says("aclose", inherited.aclose)
    await says("same file", lambda: unopened.open("child"))
    other = SqliteLedger(f"{PATH}.other")
    await says("other file", lambda: other.open("child"))
    await says("other commit", lambda: other.commit([Write(make_record(), 0)]))
    await other.aclose()


def idle() -> bool:
    """Tell whether the ledger's threads have no call left in their frames."""
    frames = sys._current_frames()
    ours = [each.ident for each in threading.enumerate() if each.name.startswith("sigmic-guard")]
    return {frames[ident or 0].f_code.co_name for ident in ours} == {"_work"}


def main() -> None:
    inherited, unopened = SqliteLedger(PATH), SqliteLedger(PATH)
    with start_blocking_portal() as portal:  # the child is a copy of this thread, without a loop
        portal.call(inherited.open, "parent")
        portal.call(inherited.commit, [Write(make_record("before"), 0)])
        portal.call(inherited.get, "before")
        while not idle():
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            anyio.run(in_child, inherited, unopened)
            del inherited
            gc.collect()
            files = [link.resolve() for link in Path("/dev/fd").iterdir() if link.exists()]
            say(f"database: {Path(PATH) in files}")
            say(f"lock: {Path(f'{PATH}.owners/parent.lock') in files}")
            os._exit(0)
        os.waitpid(child, 0)
        portal.call(inherited.commit, [Write(make_record("after"), 0)])
        say(f"parent: {[row.intent_id for row in portal.call(inherited.unfinished)]}")
        say(f"parent alive: {portal.call(inherited.owner_alive, 'parent')}")
        portal.call(inherited.aclose)


if __name__ == "__main__":
    main()
