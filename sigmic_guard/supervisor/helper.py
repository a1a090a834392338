"""The process behind ``Supervisor(watchdog=True)``: waits for its parent's death, and then reaps.

Run as ``python -m sigmic_guard.supervisor.helper``, by :mod:`sigmic_guard.supervisor.watchdog` and
nobody else.
"""

from __future__ import annotations

import signal
import sys
from typing import Final

import anyio
import msgspec
from anyio import move_on_after, sleep
from prometheus_client import CollectorRegistry

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import open_ledger
from sigmic_guard.supervisor.supervisor import Supervisor
from sigmic_guard.supervisor.watchdog import BYE, Charge

#: Seconds to try for: longer than most outages, shorter than anybody would look for this process.
PATIENCE: Final = 600.0
#: Seconds between two looks at an owner whose pipe is closed and whose lock is not gone yet.
PAUSE: Final = 0.02
#: Seconds before a ledger that failed is tried again.
RETRY: Final = 1.0


def main() -> None:
    """Wait for the end of the standard input."""
    for ours in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ours, signal.SIG_IGN)  # it ends with its parent, and not before
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return  # the parent died before it had anything to lose
    charge = msgspec.json.decode(line, type=Charge)
    if sys.stdin.buffer.read() != BYE:
        anyio.run(reap, charge)


async def reap(charge: Charge) -> None:
    """End what the dead owner left."""
    with move_on_after(PATIENCE):
        await _until_dead(charge)
        supervisor = Supervisor(
            api_key=charge.authorization.removeprefix("Bearer "),
            base_url=charge.base_url,
            ledger=charge.ledger,
            namespace=charge.namespace,
            registry=CollectorRegistry(),
        )
        async with supervisor:
            while True:
                try:
                    await supervisor.reap()
                except LedgerError:
                    await sleep(RETRY)
                else:
                    return


async def _until_dead(charge: Charge) -> None:
    """Wait until the owner's lock is gone; the kernel may close the pipe a moment before."""
    while True:
        ledger = open_ledger(charge.ledger)
        try:
            await ledger.open(f"helper-of-{charge.owner_id}")
            # No event tells of a lock in another process.
            while await ledger.owner_alive(charge.owner_id):  # noqa: ASYNC110
                await sleep(PAUSE)
        except LedgerError:
            await sleep(RETRY)
        else:
            return
        finally:
            await ledger.aclose()


if __name__ == "__main__":
    main()
