"""The process behind ``Supervisor(watchdog=True)``: waits for its parent's death, and then reaps.

Started by :mod:`sigmic_guard.watchdog.parent` and nobody else. What it does then is a
supervisor's ordinary reaping, for at most :data:`PATIENCE`: whoever starts next goes on with what
is left. It owns no task, so nothing is lost if it dies itself.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from anyio import CancelScope, create_task_group, current_time, open_signal_receiver, sleep
from prometheus_client import CollectorRegistry

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import SqliteLedger, open_ledger
from sigmic_guard.lifecycle import Verdict
from sigmic_guard.sigmic.keyring import Keyring
from sigmic_guard.supervisor.face.supervisor import Supervisor
from sigmic_guard.watchdog.parent import BYE, RENEWED, Charge

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger

#: Seconds to try for: longer than most outages, and than ``reattach_within`` usually is.
PATIENCE: Final = 600.0
#: Seconds between two looks at the lock of a parent that hung up: at first, and in the end.
GLANCE: Final = 0.01
LONGEST_GLANCE: Final = 1.0
#: Seconds before a ledger that failed is tried again.
RETRY: Final = 1.0
#: Seconds between two looks for tasks that somebody may still ask for.
LOOK: Final = 5.0
#: Seconds that leaving may take beyond all that.
GRACE: Final = 1.0


def main() -> None:
    """Wait for the end of the standard input, or a word on it."""
    # It ends with its parent, and not before. Our parent blocked these before we were there.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    charge = msgspec.json.decode(sys.stdin.buffer.readline(), type=Charge)
    anyio.run(_warm_up, charge)
    while (word := sys.stdin.buffer.readline()).startswith(RENEWED):
        charge = _renewed(charge, word.removeprefix(RENEWED))
    if word != BYE:
        anyio.run(reap, charge)


def _renewed(charge: Charge, line: bytes) -> Charge:
    """Return the charge with another credential; unchanged if our parent died over the line."""
    try:
        authorization = msgspec.json.decode(line, type=str)
    except msgspec.DecodeError:
        return charge
    return msgspec.structs.replace(charge, authorization=authorization)


async def _warm_up(charge: Charge) -> None:
    """Have everything imported that is needed later, and nothing opened or sent."""
    supervisor(charge, open_ledger("memory:"))


def supervisor(charge: Charge, ledger: Ledger) -> Supervisor:
    """Return what does the work."""
    return Supervisor(
        api_key=Keyring(
            charge.authorization.removeprefix("Bearer "), fingerprint=charge.fingerprint
        ),
        base_url=charge.base_url,
        ledger=ledger,
        namespace=charge.namespace,
        create_timeout=charge.create_timeout,
        registry=CollectorRegistry(),
        grace=GRACE,
    )


async def reap(charge: Charge) -> None:
    """End what the dead owner left."""
    async with create_task_group() as group:
        group.start_soon(_be_hurried, group.cancel_scope, charge.grace)
        while True:
            try:
                await _reap(charge, group.cancel_scope)
                break
            except LedgerError:
                if os.getppid() != charge.parent:
                    _limit(group.cancel_scope)
                await sleep(RETRY)
        group.cancel_scope.cancel()


def _limit(scope: CancelScope, seconds: float = PATIENCE) -> None:
    scope.deadline = min(scope.deadline, current_time() + seconds)


async def _be_hurried(scope: CancelScope, grace: float) -> None:
    """After SIGTERM, which may wait since our parent lived: somebody wants all of us gone."""
    with open_signal_receiver(signal.SIGTERM) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        async for _ in signals:
            _limit(scope, grace)


async def _reap(charge: Charge, scope: CancelScope) -> None:
    ledger = SqliteLedger(charge.ledger)
    async with supervisor(charge, ledger) as reaper:
        glance = GLANCE
        while await ledger.owner_alive(charge.owner_id):
            # The kernel may close the pipe a moment before it drops the lock. Or the parent lives,
            # and has closed the pipe, not knowing what it is: then there is all the time.
            if os.getppid() != charge.parent:
                _limit(scope)
            await sleep(glance)
            glance = min(2 * glance, LONGEST_GLANCE)
        _limit(scope)
        while True:
            report = await reaper.reap()
            if all(row.why != Verdict.WAIT for row in report.left):
                return  # what else is left is out of reach
            await sleep(LOOK)
