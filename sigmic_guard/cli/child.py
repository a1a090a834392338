"""A program under watch: started, told every signal that comes for it, and waited for.

While it runs this process sits in ``sigwait`` and does nothing else, so nothing here can be late,
and no handler races with anything. The program shares our process group: what the kernel sends to
the whole group, as a terminal does on Ctrl-C, it gets by itself, and what stops it stops us too.

Apart from our being its parent, the program runs as if it had been started directly. What its
caller had ignored (``nohup``) stays ignored; no signal is blocked.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: What nobody can catch; what stops a job, which we do with the program; what tells
#: of this process's own children, pipes, limits and faults.
_NOT_PASSED_ON: Final = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGXCPU, signal.SIGXFSZ),
        *(
            signal.SIGSEGV,
            signal.SIGBUS,
            signal.SIGFPE,
            signal.SIGILL,
            signal.SIGTRAP,
            signal.SIGSYS,
        ),
    }
)
PASSED_ON: Final = frozenset(signal.valid_signals()) - _NOT_PASSED_ON
_AWAITED: Final = PASSED_ON | {signal.SIGCHLD}
#: Python ignores these from its start on; whether its caller did is lost.
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
#: What a terminal's keys send, or its size.
_TYPED: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
#: What the kernel sends to a session's leader alone when the terminal hangs up.
_HANG_UP: Final = frozenset({signal.SIGHUP, signal.SIGCONT})

#: Seconds that what else runs in a container may take to end after SIGTERM, and after SIGKILL.
END_TIMEOUT: Final = 1.0


def hold_signals() -> None:
    """Let signals wait from now on; :func:`run` passes on those that waited.

    To be called while there is one thread: those made later hold them as well.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    # Where it is ignored, which may be inherited, the kernel keeps no exit status for us.
    signal.signal(signal.SIGCHLD, lambda *_: None)


def run(
    command: Sequence[str], environment: Mapping[str, str], problem: Callable[[str], None]
) -> int:
    """Run a program to its end; return its exit status, or 128 + the signal that ended it.

    Children that are not ours by birth are waited for as well: those that a container's first
    process, or a child subreaper, is given. As a container's first process we also end what is
    left when the program is gone, since the kernel would end it with us.

    :param command: the program, looked for along ``PATH``, and its arguments.
    :param problem: told in words if a signal cannot be passed on.
    :raises OSError: it cannot be started.
    """
    pid = os.posix_spawnp(
        command[0], list(command), environment, setsigmask=(), setsigdef=_IGNORED_BY_PYTHON
    )
    _release_pipes()
    status = None
    while status is None:
        number, sender = next_signal()
        if number == signal.SIGCHLD:
            status = _collect(pid)
        elif sender != pid and (sender is not None or not _reached(pid, number)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # dead, and soon told of
            except PermissionError:
                problem(f"may not pass signal {number} on to the program")
    if os.getpid() == 1:
        _end_other_processes()
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _release_pipes() -> None:
    """Leave stdin and stdout to the program: their other ends see when it is gone."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd, inheritable=False)
    if nothing > 2:
        os.close(nothing)


def _collect(pid: int) -> int | None:
    """Wait for all children that are dead; return the wait status of this one, if it is."""
    status = None
    with suppress(ChildProcessError):
        while True:
            dead, how = os.waitpid(-1, os.WNOHANG)
            if dead == pid:
                status = how
            if not dead:
                break
    return status


# --- who sent it ------------------------------------------------------------------------------


def _next_signal_with_sender() -> tuple[int, int | None]:
    """Wait for a signal; return it and who sent it, ``None`` for the kernel."""
    info = signal.sigwaitinfo(_AWAITED)
    return info.si_signo, info.si_pid if info.si_code <= 0 else None


def _next_signal_by_guess() -> tuple[int, int | None]:
    """Do the same where the system does not tell: a signal that could be typed was typed."""
    number = signal.sigwait(_AWAITED)
    return number, None if number in _TYPED and _in_foreground() else 0


# Elsewhere there is no sigwaitinfo, or its codes are others.
next_signal = _next_signal_with_sender if sys.platform == "linux" else _next_signal_by_guess


def _in_foreground() -> bool:
    """Tell whether our process group has the terminal."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _reached(pid: int, number: int) -> bool:
    """Tell whether a signal that the kernel sent us has come to the program as well."""
    if number in _HANG_UP and os.getsid(0) == os.getpid():
        return False
    try:
        return os.getpgid(pid) == os.getpgrp()
    except ProcessLookupError:  # dead, and soon told of
        return True


# --- PID 1 ------------------------------------------------------------------------------------


def _end_other_processes() -> None:
    """End all other processes that we can see. One that holds tasks may end them first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(-1, number)
        if _all_gone(within=END_TIMEOUT):
            return


def _all_gone(*, within: float) -> bool:
    """Wait for all children, at most this many seconds."""
    until = time.monotonic() + within
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        left = until - time.monotonic()
        if left <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, left)
