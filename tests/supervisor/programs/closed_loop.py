"""Closes an event loop with a supervisor open in it, ``closed_loop.py LOOP LEDGER WHAT``.

LOOP is asyncio, uvloop or trio; LEDGER is ``memory:`` or a URL; WHAT is who comes then: ``reap``,
which is another supervisor of this process, or ``watchdog``. What came of it is said in lines.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from threading import Thread

import anyio
from anyio import to_thread
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.emulator import Emulator, Script
from sigmic_guard.ledger import Ledger, MemoryLedger, MemoryStore, open_ledger
from sigmic_guard.testing import FakeSigmic
from tests.observe.sums import add_up

LOOP, LEDGER, WHAT = sys.argv[1:4]
#: Seconds for what takes about one.
MAX_SECONDS = 20.0

store, registry, left = MemoryStore(), CollectorRegistry(), list[Supervisor]()


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def ledger() -> Ledger:
    return MemoryLedger(store) if LEDGER == "memory:" else open_ledger(LEDGER)


async def leave(supervisor: Supervisor) -> None:
    """Enter it, start three tasks, and go away."""
    left.append(supervisor)  # as a notebook's cell does
    await supervisor.__aenter__()
    for _ in range(3):
        await supervisor.start("left behind")
    assert supervisor._core is not None
    await supervisor._core.outbox.flush()


def run_and_close(supervisor: Supervisor) -> None:
    """Do that in a loop of its own, in this thread, and close the loop."""
    if LOOP == "trio":
        try:
            anyio.run(leave, supervisor, backend="trio")
        except BaseException as error:  # trio's own complaint of a nursery that was not left
            say("trio:", type(error).__name__)
        return
    if LOOP == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.run_until_complete(leave(supervisor))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()


async def reap() -> None:
    """Let another supervisor come."""
    fake = FakeSigmic()
    dead = Supervisor(client=fake, ledger=ledger(), registry=registry)
    await to_thread.run_sync(run_and_close, dead)
    add_up(registry)
    async with Supervisor(client=fake, ledger=ledger(), registry=registry) as heir:
        report = await heir.reap()
        say("reaped:", sorted(str(row.result) for row in report.reaped), report.clean)
        add_up(registry)
    say("live:", len(fake.live))
    say("sums:", *add_up(registry)[:3])


async def be_watched() -> None:
    """Let the watchdog's helper come."""
    async with Emulator(script=Script(hold=True)) as emulator:
        dead = Supervisor(
            api_key="sigmic_test",
            base_url=emulator.url,
            ledger=LEDGER,
            registry=registry,
            watchdog=True,
        )
        await to_thread.run_sync(run_and_close, dead)
        await emulator.wait_for(lambda _: emulator.live == 0, timeout=MAX_SECONDS)
        await to_thread.run_sync(threads)  # the helper goes when it has seen the ends
        say("live:", emulator.live, "deletes:", emulator.count(route="delete"))


def threads() -> None:
    """Wait for the end of all threads of ours."""
    for thread in threading.enumerate():
        if thread.name.startswith("sigmic-guard"):
            thread.join(MAX_SECONDS)
    ours = [each.name for each in threading.enumerate() if each.name.startswith("sigmic-guard")]
    say("threads:", ours)


def main() -> None:
    thread = Thread(target=anyio.run, args=(be_watched if WHAT == "watchdog" else reap,))
    thread.start()
    thread.join()
    if WHAT == "reap":
        threads()


if __name__ == "__main__":
    main()
