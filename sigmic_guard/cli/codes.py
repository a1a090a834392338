"""What the exit codes mean, and which error leads to which.

::

    0    the task completed, or all that was asked for was done
    1    it did not: the task failed or was cancelled elsewhere, a task was not found, or may still
         run; whoever read the output has gone
    2    the command cannot be right as it stands
    3    nothing to work with: credentials, network, an API that is out of order, a ledger that
         cannot be read or written
    124  the time-out passed; the task was cancelled
    130  Ctrl-C (SIGINT); the task was cancelled
    143  SIGTERM; the task was cancelled

Where a command asks about tasks, 1 is the answer that somebody should look at: ``ps`` found a dead
owner's task, ``reap`` left one that it may end. ``ps --watch`` ends with 0 on Ctrl-C.

``exec`` ends with the status of the program that it ran, 128 + N if signal N ended it. Otherwise::

    2    the command cannot be right as it stands
    125  no usable ledger or credential: the program was not run
    126  the program cannot be run
    127  there is no such program
"""

from __future__ import annotations

from typing import Final

from sigmic_guard.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    LedgerError,
    ProtocolError,
    SigmicGuardError,
    TaskNotFound,
    TaskTimedOut,
    ValidationError,
)

DONE: Final = 0
NOT_DONE: Final = 1
USAGE: Final = 2
CONNECTION: Final = 3
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130
TERMINATED: Final = 143

NOT_STARTED: Final = 125
CANNOT_RUN: Final = 126
NOT_FOUND: Final = 127


def code_of(error: SigmicGuardError) -> int:
    """Return the exit code that says what ``error`` says."""
    match error:
        case TaskTimedOut():
            return TIMED_OUT
        case TaskNotFound():
            return NOT_DONE
        case ConfigurationError() | ValidationError():
            return USAGE
        case ApiError() | ConnectionFailed() | ProtocolError() | LedgerError():
            return CONNECTION
        case _:
            return NOT_DONE
