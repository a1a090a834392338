"""``sigmic-guard exec``: a program under watch, and an end to the tasks that it leaves behind.

All that can go wrong, or takes long, does so before the program starts: then it is not run. When it
is gone there is nothing left to import, and the DELETEs begin at once.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from anyio import create_task_group, current_time, fail_after, move_on_after, run, sleep

from sigmic_guard.cli import child
from sigmic_guard.cli.codes import CANNOT_RUN, NOT_FOUND, NOT_STARTED, USAGE
from sigmic_guard.cli.terminal import Terminal
from sigmic_guard.errors import ConfigurationError, LedgerError, SigmicGuardError
from sigmic_guard.ledger import (
    LEDGER_VARIABLE,
    CorruptRows,
    chosen_ledger_url,
    open_ledger,
    sqlite_path,
    sqlite_url,
)
from sigmic_guard.ledger.looking import see_dead
from sigmic_guard.lifecycle import REAPABLE, ReapResult, Verdict
from sigmic_guard.watchdog.reaping import Survey, reap, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio import CancelScope


#: Seconds that opening the ledger may take. Signals wait for that long.
OPEN_TIMEOUT: Final = 20.0
#: Seconds beyond the grace for closing the ledger, and for reading what is left in it.
CLOSE_TIMEOUT: Final = 4.0
#: Seconds between two checks for signals, while tasks are ended.
SIGNAL_CHECK_INTERVAL: Final = 0.05

_WORDS: Final = {
    ReapResult.CANCELLED: "cancelled",
    ReapResult.ALREADY_FINISHED: "finished before",
    ReapResult.NOT_FOUND: "not found",
    ReapResult.NEVER_CREATED: "never created",
    ReapResult.RELEASED: "let go",
}
_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


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
    # We say more of them in the end, task by task.
    terminal.leave_out("task.unconfirmed", "shutdown.finished", "orphan.left")
    try:
        try:
            check_credential()
        except ConfigurationError as error:
            return _refuse(terminal, error, NOT_STARTED)
        try:
            path = ledger_path()
            url = sqlite_url(path)
            run(_open_once, url)
        except ConfigurationError as error:
            return _refuse(terminal, error, USAGE)
        except LedgerError as error:
            return _refuse(terminal, error, NOT_STARTED)
        since = time.time()
        try:
            status = child.run(command, {**os.environ, LEDGER_VARIABLE: url}, terminal.problem)
        except OSError as error:
            terminal.problem(f"cannot run {command[0]}: {error.strerror}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        except ValueError as error:  # an empty name
            terminal.problem(f"cannot run {command[0]!r}: {error}")
            return NOT_FOUND
        run(partial(_reap, terminal, path, grace=grace, since=since))
        return status
    finally:
        terminal.flush()


def _refuse(terminal: Terminal, error: Exception, code: int) -> int:
    terminal.problem(f"{error} (the program was not run)")
    return code


def ledger_path() -> str:
    """Return the absolute path of the ledger that we share with the program.

    :raises ConfigurationError: no ledger has such a URL, or it does not outlive the program.
    """
    path = sqlite_path(chosen_ledger_url())
    if path is None:
        raise ConfigurationError(
            f"the ledger 'memory:' dies with the program, and so does all knowledge of its tasks: "
            f"let {LEDGER_VARIABLE} name a file, or unset it"
        )
    return str(Path(path).absolute())


async def _open_once(url: str) -> None:
    """See that the ledger can be opened.

    :raises LedgerError: it cannot.
    """
    ledger = open_ledger(url)
    try:
        with fail_after(OPEN_TIMEOUT):
            await ledger.open(uuid4().hex)
            await ledger.aclose()
    except TimeoutError:
        raise LedgerError(f"the ledger {url} did not open within {OPEN_TIMEOUT:g} s") from None


async def _reap(terminal: Terminal, path: str, *, grace: float, since: float) -> None:
    """End what dead owners left in the ledger, and name what may still run.

    The first SIGTERM or SIGINT that comes meanwhile is for the program, which is gone. A second one
    means us, and stops it.

    :param since: when the program started, in seconds since the epoch.
    """
    left, corrupt = Survey((), {})
    reaped: list[ReapResult] = []
    try:
        with move_on_after(grace + CLOSE_TIMEOUT):
            async with create_task_group() as group:
                group.start_soon(_stop_on_second_signal, terminal, group.cancel_scope)
                until = current_time() + grace
                await see_dead(path)
                _, failures = await reap(path, (await survey(path)).found, until, reaped.append)
                if failures:
                    raise failures[0]
                group.cancel_scope.cancel()
        with fail_after(CLOSE_TIMEOUT):
            left, corrupt = await survey(path)
    except* SigmicGuardError as errors:
        terminal.problem(f"the program's tasks may still run: {_first(errors)}")
    except* TimeoutError:
        terminal.problem("the program's tasks may still run: the ledger does not answer")
    if reaped:
        terminal.status(f"sigmic-guard: {_sum(reaped)}")
    if corrupt:
        terminal.problem(str(CorruptRows(corrupt)))
    for (record, _, _), verdict in left:
        name = record.remote_id or f"with {record.intent_id} in its env"
        if verdict in REAPABLE:
            terminal.problem(
                f"the task {name} is {record.state}, and may still run: "
                "`sigmic-guard reap` tries again"
            )
        elif verdict is Verdict.OTHER_CREDENTIAL and record.created_at >= since:
            terminal.problem(f"the task {name} was made with another credential, and may still run")


def _sum(reaped: Sequence[ReapResult]) -> str:
    """Tell in a line what was done."""
    counts = Counter(reaped)
    told = ", ".join(
        f"{counts[result]} {word}" for result, word in _WORDS.items() if counts[result]
    )
    many = "s" if len(reaped) > 1 else ""
    return f"reaped {len(reaped)} task{many} without a living owner: {told}"


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _stop_on_second_signal(terminal: Terminal, scope: CancelScope) -> None:
    # The signals stay blocked: a handler would have to go again, and then they could end us.
    asked = 0
    while asked < 2:
        await sleep(SIGNAL_CHECK_INTERVAL)
        if signal.sigpending() & _STOP_SIGNALS:
            signal.sigwait(_STOP_SIGNALS)
            asked += 1
            if asked == 1:
                terminal.status("ending the tasks that are left; once more leaves them running")
    scope.cancel()
