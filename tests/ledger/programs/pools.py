"""Has children of all kinds with a ledger open, ``pools.py PATH``, and says what is left of it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

import anyio
from anyio import to_thread

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import MemoryLedger, SqliteLedger, Write
from sigmic_guard.testing.records import make_record

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which this is about

PATH = sys.argv[1]
FORK = multiprocessing.get_context("fork")
FILE, MEMORY = SqliteLedger(PATH), MemoryLedger()


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def _use(ledger: SqliteLedger | MemoryLedger) -> str:
    try:
        with anyio.fail_after(10):
            await ledger.unfinished()
    except LedgerError as error:
        return str(error)
    return "nothing happened"


def use_both() -> list[str]:
    """Use what was inherited."""
    return [anyio.run(_use, ledger) for ledger in (FILE, MEMORY)]


def leave() -> None:
    """End as a function does that multiprocessing calls."""


def hold() -> None:
    """Wait for the parent to terminate this."""
    while True:
        multiprocessing.Event().wait()


def have_children() -> None:
    with ProcessPoolExecutor(2, mp_context=FORK) as pool:
        for told in pool.submit(use_both).result(30):
            say(f"child: {told}")
    process = FORK.Process(target=leave)
    process.start()
    process.join()
    process = FORK.Process(target=hold)
    process.start()
    process.terminate()
    process.join()
    for end in os._exit, sys.exit:
        child = os.fork()
        if child == 0:
            try:
                end(0)
            finally:
                os._exit(0)
        os.waitpid(child, 0)


async def main() -> None:
    await FILE.open("parent")
    await MEMORY.open("parent")
    await FILE.commit([Write(make_record(owner_id="parent"), 0)])
    await to_thread.run_sync(have_children)
    say("ready")
    await to_thread.run_sync(sys.stdin.read)
    say(f"rows: {[row.intent_id for row in await FILE.unfinished()]}")
    await FILE.aclose()


if __name__ == "__main__":
    anyio.run(main)
