"""``sigmic-guard exec``: a program under watch, and an end to the tasks that it leaves behind.

All that can go wrong, or takes long, does so before the program starts: then it is not run. When it
is gone there is nothing left to import, and the DELETEs begin at once.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from anyio import create_task_group, fail_after, open_signal_receiver, run

from sigmic_guard.cli import child
from sigmic_guard.cli.codes import CANNOT_RUN, NOT_FOUND, NOT_STARTED, USAGE
from sigmic_guard.cli.terminal import Terminal
from sigmic_guard.errors import ConfigurationError, LedgerError
from sigmic_guard.ledger import default_ledger_url, open_ledger
from sigmic_guard.ledger.urls import sqlite_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio import CancelScope

LEDGER_VARIABLE: Final = "SIGMIC_GUARD_LEDGER"

#: Seconds that opening the ledger may take. Signals wait for that long.
OPENING: Final = 20.0


def execute(
    command: Sequence[str],
    *,
    check_credential: Callable[[], None],
    grace: float,
) -> int:
    """Run the program, end the tasks that it left, and return its exit status.

    :param check_credential: raises ``ConfigurationError`` if there is none to end tasks with.
    :param grace: seconds that ending them may take.
    """
    child.hold_signals()  # before there are threads
    terminal = Terminal()
    terminal.log_here()
    try:
        try:
            check_credential()
        except ConfigurationError as error:
            return _refuse(terminal, error, NOT_STARTED)
        try:
            url = ledger_url()
            run(_open_once, url)
        except ConfigurationError as error:
            return _refuse(terminal, error, USAGE)
        except LedgerError as error:
            return _refuse(terminal, error, NOT_STARTED)
        try:
            status = child.run(command, {**os.environ, LEDGER_VARIABLE: url}, terminal.problem)
        except OSError as error:
            terminal.problem(f"cannot run {command[0]}: {error.strerror}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        except ValueError as error:  # an empty name
            terminal.problem(f"cannot run {command[0]!r}: {error}")
            return NOT_FOUND
        run(partial(_reap, terminal, url, grace=grace))
        return status
    finally:
        terminal.flush()


def _refuse(terminal: Terminal, error: Exception, code: int) -> int:
    terminal.problem(f"{error} (the program was not run)")
    return code


def ledger_url() -> str:
    """Return the URL of the ledger that we share with the program, whatever its folder is.

    :raises ConfigurationError: no ledger has such a URL, or it does not outlive the program.
    """
    url = os.environ.get(LEDGER_VARIABLE) or default_ledger_url()
    path = sqlite_path(url)
    if path is None:
        raise ConfigurationError(
            f"the ledger {url!r} dies with the program, and so does all knowledge of its tasks: "
            f"let {LEDGER_VARIABLE} name a file, or unset it"
        )
    return f"sqlite:///{Path(path).absolute()}"


async def _open_once(url: str) -> None:
    """See that the ledger can be opened.

    :raises LedgerError: it cannot.
    """
    ledger = open_ledger(url)
    try:
        with fail_after(OPENING):
            await ledger.open(uuid4().hex)
            await ledger.aclose()
    except TimeoutError:
        raise LedgerError(f"the ledger {url} did not open within {OPENING:g} s") from None


async def _reap(terminal: Terminal, url: str, *, grace: float) -> None:
    """End the tasks that the program left. A second SIGTERM or SIGINT means it: it stops that."""
    async with create_task_group() as group:
        group.start_soon(_be_hurried, terminal, group.cancel_scope)
        await reap_the_dead(terminal, url, grace=grace)
        group.cancel_scope.cancel()


async def _be_hurried(terminal: Terminal, scope: CancelScope) -> None:
    with open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        try:
            asked = False
            async for _ in signals:
                if asked:
                    scope.cancel()
                asked = True
                terminal.status("ending the tasks that are left; once more leaves them running")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def reap_the_dead(terminal: Terminal, url: str, *, grace: float) -> None:
    """End what dead owners left in the ledger, as far as our credential goes.

    Tasks that could not be proven to have ended within ``grace`` seconds are named on stderr.
    """
