"""The helper process: waits for its parent's death, and then reaps.

Started by :mod:`sigmic_guard.watchdog.process` and nobody else. It reaps as any supervisor does,
for at most :data:`REAP_TIMEOUT`: whoever starts next goes on with what is left. It owns no task, so
nothing is lost if it dies itself.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from anyio import CancelScope, create_task_group, current_time, open_signal_receiver, sleep

from sigmic_guard.ledger import SqliteLedger, open_ledger
from sigmic_guard.lifecycle import Verdict
from sigmic_guard.sigmic.keyring import Keyring
from sigmic_guard.watchdog.messages import EXIT, NEW_CREDENTIAL, HelperConfig
from sigmic_guard.watchdog.reaping import reaping_session, retry_ledger_errors

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger
    from sigmic_guard.supervisor import Supervisor

#: Seconds to try for: longer than most outages, and than ``reattach_within`` usually is.
REAP_TIMEOUT: Final = 600.0
#: Seconds between two looks at the lock of a parent that hung up: at first, and in the end.
LOCK_CHECK_INTERVAL: Final = 0.01
MAX_LOCK_CHECK_INTERVAL: Final = 1.0
#: Seconds between two rounds while somebody may still ask for a task by its key.
RECHECK_INTERVAL: Final = 5.0


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
    session(config, open_ledger("memory:"))


def session(config: HelperConfig, ledger: Ledger) -> Supervisor:
    """Return what reaps."""
    keyring = Keyring(config.authorization.removeprefix("Bearer "), fingerprint=config.fingerprint)
    return reaping_session(
        ledger,
        base_url=config.base_url,
        namespace=config.namespace,
        keyring=keyring,
        create_timeout=config.create_timeout,
    )


async def reap(config: HelperConfig) -> None:
    """End what the dead owner left."""
    async with create_task_group() as group:
        group.start_soon(_limit_on_sigterm, group.cancel_scope, config.grace)
        await retry_ledger_errors(partial(_reap, config, group.cancel_scope))
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
    # Our parent may live, and have closed the pipe, not knowing what it is: then there is no hurry.
    if os.getppid() != config.parent:
        _limit(scope)
    ledger = SqliteLedger(config.ledger)
    async with session(config, ledger) as supervisor:
        interval = LOCK_CHECK_INTERVAL
        # The kernel may close the pipe a moment before it drops the lock.
        while await ledger.owner_alive(config.owner_id):
            if os.getppid() != config.parent:
                _limit(scope)
            await sleep(interval)
            interval = min(2 * interval, MAX_LOCK_CHECK_INTERVAL)
        _limit(scope)
        while True:
            report = await supervisor.reap()
            if all(row.why != Verdict.WAIT for row in report.left):
                return  # what else is left is out of reach
            await sleep(RECHECK_INTERVAL)
