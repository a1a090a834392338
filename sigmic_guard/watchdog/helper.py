"""The helper process: waits for its parent's death, and then reaps.

Started by :mod:`sigmic_guard.watchdog.process` and nobody else. It reaps as any supervisor does,
for at most :data:`REAP_TIMEOUT`: whoever starts next goes on with what is left. It owns no task, so
nothing is lost if it dies itself.
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
from sigmic_guard.supervisor import Supervisor
from sigmic_guard.watchdog.messages import EXIT, NEW_CREDENTIAL, HelperConfig

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger

#: Seconds to try for: longer than most outages, and than ``reattach_within`` usually is.
REAP_TIMEOUT: Final = 600.0
#: Seconds between two looks at the lock of a parent that hung up: at first, and in the end.
LOCK_CHECK_INTERVAL: Final = 0.01
MAX_LOCK_CHECK_INTERVAL: Final = 1.0
#: Seconds before a ledger that failed is tried again.
LEDGER_RETRY_DELAY: Final = 1.0
#: Seconds between two rounds while somebody may still ask for a task by its key.
RECHECK_INTERVAL: Final = 5.0
#: Seconds that leaving may take beyond all that.
GRACE: Final = 1.0


def main() -> None:
    """Wait for the end of the standard input, or for the last message on it."""
    # It ends with its parent, and not before. Our parent blocked these before we were there.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=HelperConfig)
    anyio.run(_warm_up, config)
    while (line := sys.stdin.buffer.readline()).startswith(NEW_CREDENTIAL):
        config = _renewed(config, line.removeprefix(NEW_CREDENTIAL))
    if line != EXIT:
        anyio.run(reap, config)


def _renewed(config: HelperConfig, line: bytes) -> HelperConfig:
    """Return the config with another credential; unchanged if our parent died over the line."""
    try:
        authorization = msgspec.json.decode(line, type=str)
    except msgspec.DecodeError:
        return config
    return msgspec.structs.replace(config, authorization=authorization)


async def _warm_up(config: HelperConfig) -> None:
    """Import everything that is needed later; open and send nothing."""
    supervisor(config, open_ledger("memory:"))


def supervisor(config: HelperConfig, ledger: Ledger) -> Supervisor:
    """Return what does the work."""
    return Supervisor(
        api_key=Keyring(
            config.authorization.removeprefix("Bearer "), fingerprint=config.fingerprint
        ),
        base_url=config.base_url,
        ledger=ledger,
        namespace=config.namespace,
        create_timeout=config.create_timeout,
        registry=CollectorRegistry(),
        grace=GRACE,
    )


async def reap(config: HelperConfig) -> None:
    """End what the dead owner left."""
    async with create_task_group() as group:
        group.start_soon(_limit_on_sigterm, group.cancel_scope, config.grace)
        while True:
            try:
                await _reap(config, group.cancel_scope)
                break
            except LedgerError:
                if os.getppid() != config.parent:
                    _limit(group.cancel_scope)
                await sleep(LEDGER_RETRY_DELAY)
        group.cancel_scope.cancel()


def _limit(scope: CancelScope, seconds: float = REAP_TIMEOUT) -> None:
    scope.deadline = min(scope.deadline, current_time() + seconds)


async def _limit_on_sigterm(scope: CancelScope, grace: float) -> None:
    """After SIGTERM, which may wait since our parent lived: somebody wants all of us gone."""
    with open_signal_receiver(signal.SIGTERM) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        async for _ in signals:
            _limit(scope, grace)


async def _reap(config: HelperConfig, scope: CancelScope) -> None:
    ledger = SqliteLedger(config.ledger)
    async with supervisor(config, ledger) as reaper:
        interval = LOCK_CHECK_INTERVAL
        while await ledger.owner_alive(config.owner_id):
            # The kernel may close the pipe a moment before it drops the lock. Or the parent lives,
            # and has closed the pipe, not knowing what it is: then there is all the time.
            if os.getppid() != config.parent:
                _limit(scope)
            await sleep(interval)
            interval = min(2 * interval, MAX_LOCK_CHECK_INTERVAL)
        _limit(scope)
        while True:
            report = await reaper.reap()
            if all(row.why != Verdict.WAIT for row in report.left):
                return  # what else is left is out of reach
            await sleep(RECHECK_INTERVAL)
