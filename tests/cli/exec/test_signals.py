"""Signals reach the program once, whoever sends them; it begins with none blocked or handled."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
import termios
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from tests.cli.exec.watch import PROGRAMS, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.exec.watch import Watch

TELLS = program("tells.py")
#: Ignored in whatever posix_spawn() started: glibc's own two.
OF_THE_LIBRARY = 0b11 << 31
#: Python ignores these by itself.
OF_PYTHON = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
#: All that somebody may send to a program, but for SIGUSR2, which ends ours.
MEANT = {
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR1, signal.SIGALRM),
    *(signal.SIGTERM, signal.SIGCONT, signal.SIGURG, signal.SIGVTALRM, signal.SIGPROF),
    *(signal.SIGWINCH, signal.SIGIO),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
}


def told(lines: IO[bytes]) -> int:
    """Return the next number that the program says."""
    line = lines.readline()
    assert line, "the program has ended"
    return int(line)


def rest(process: Any) -> list[int]:
    """Return what the program said until its end, by SIGUSR2."""
    process.send_signal(signal.SIGUSR2)
    numbers = [int(line) for line in process.stdout]
    assert numbers.pop() == signal.SIGUSR2
    assert process.wait() == 7
    return numbers


def test_each_signal_is_passed_on_once(watch: Watch) -> None:
    """Every signal that is meant for a program reaches it, once, realtime ones included."""
    with watch.start(*TELLS) as process:
        told(process.stdout)
        for number in sorted(MEANT):
            process.send_signal(number)
            assert told(process.stdout) == number
        assert rest(process) == []


@pytest.mark.slow
def test_a_signal_that_the_program_sent_is_not_sent_back(watch: Watch) -> None:
    """What the program sends to its whole group, and so to us, does not come back to it."""
    script = (
        "import os, signal, sys; queued = signal.SIGRTMIN;"  # a second one would not melt into it
        "signal.pthread_sigmask(signal.SIG_BLOCK, [queued]);"
        "os.kill(0, queued); signal.sigwait([queued]);"
        "os.write(1, b'sent\\n'); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with watch.start(sys.executable, "-c", script, *TELLS, start_new_session=True) as process:
        assert process.stdout.readline() == b"sent\n"
        told(process.stdout)
        assert rest(process) == []


def test_signals_before_the_program_wait_for_it(watch: Watch) -> None:
    """A SIGTERM that comes while we get ready ends the program, or us before it was run."""
    with watch.start("sleep", "1000") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait() in {128 + signal.SIGTERM, -signal.SIGTERM}


def ignored_here() -> int:
    """Return the mask of what our own caller had ignored, as SIGHUP where CI is under nohup."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return mask & ~OF_THE_LIBRARY & ~OF_PYTHON


def test_the_program_begins_with_a_clean_slate(watch: Watch) -> None:
    """No signal is blocked or ignored in the program, though we do both and Python does one."""
    ended = watch.run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    masks = {
        name: int(mask, 16) for name, mask in re.findall(r"(\w+):\s+(\w+)", ended.stdout.decode())
    }
    assert masks["SigBlk"] == 0
    assert masks["SigIgn"] & ~OF_THE_LIBRARY == ignored_here()


def test_nohup_holds_for_the_program(watch: Watch) -> None:
    """A signal that the caller had ignored is ignored in the program: ``nohup`` works."""
    ignore = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with watch.start("grep", "SigIgn", "/proc/self/status", before=ignore) as process:
        mask = int(process.stdout.read().split()[1], 16)
    assert mask & ~OF_THE_LIBRARY == ignored_here() | 1 << signal.SIGHUP - 1


@pytest.mark.slow
def test_a_caller_that_ignores_its_children_hinders_nobody(watch: Watch) -> None:
    """Under a caller that had SIGCHLD ignored, the status is the program's all the same."""
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    with watch.start("sh", "-c", "exit 3", before=(sys.executable, "-c", ignore)) as process:
        assert process.wait() == 3


# --- terminals --------------------------------------------------------------------------------


@contextmanager
def at_terminal(watch: Watch, how: str, *command: str) -> Iterator[tuple[Any, IO[bytes]]]:
    """Start the command at a terminal of its own; yield its process and the other end."""
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    before = (sys.executable, str(PROGRAMS / "terminal.py"), how)
    with (
        os.fdopen(ours, "wb", buffering=0) as keyboard,
        watch.start(*command, before=before, stdin=theirs) as process,
    ):
        os.close(theirs)
        yield process, keyboard


def type_both(process: Any, keyboard: IO[bytes]) -> None:
    """Type Ctrl-C, and then Ctrl-\\; a second of the one would be told before the other."""
    for key, number in ((b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)):
        keyboard.write(key)
        assert told(process.stdout) == number


@pytest.mark.parametrize("how", ["leader", "job"])
def test_ctrl_c_arrives_once(watch: Watch, how: str) -> None:
    """Each Ctrl-C and Ctrl-\\ at the terminal reaches the program once, and not by us as well."""
    with at_terminal(watch, how, *TELLS) as (process, keyboard):
        watch_pid = parent(told(process.stdout))
        os.kill(watch_pid, signal.SIGINT)
        assert told(process.stdout) == signal.SIGINT
        for _ in range(20):
            type_both(process, keyboard)


@pytest.mark.slow
def test_ctrl_c_reaches_a_program_that_has_left_our_group(watch: Watch) -> None:
    """A program in a process group of its own gets the terminal's Ctrl-C from us."""
    with at_terminal(watch, "leader", *TELLS, "own-group") as (process, keyboard):
        told(process.stdout)
        keyboard.write(b"\x03")
        assert told(process.stdout) == signal.SIGINT
        assert rest(process) == []


def test_a_hang_up_reaches_the_program(watch: Watch) -> None:
    """The terminal's hang-up, which the kernel tells the session's leader alone, is passed on."""
    with at_terminal(watch, "leader", *TELLS) as (process, keyboard):
        told(process.stdout)
        keyboard.close()
        assert {told(process.stdout), told(process.stdout)} == {signal.SIGHUP, signal.SIGCONT}
        assert rest(process) == []


@pytest.mark.slow
def test_job_control(watch: Watch) -> None:
    """Ctrl-Z stops us together with the program, and both go on together."""
    with at_terminal(watch, "job", *TELLS) as (process, keyboard):
        pid = told(process.stdout)
        keyboard.write(b"\x1a")
        assert process.stdout.readline() == b"stopped\n"
        assert state(parent(pid)) == "T"
        keyboard.write(b"\n")
        assert told(process.stdout) == signal.SIGCONT
        os.kill(parent(pid), signal.SIGUSR2)
        assert [line for line in process.stdout if line != b"%d\n" % signal.SIGCONT] == [
            b"%d\n" % signal.SIGUSR2,
            b"ended 7\n",
        ]


@pytest.mark.slow
def test_where_the_system_tells_no_senders(watch: Watch) -> None:
    """Without ``sigwaitinfo`` a Ctrl-C at the terminal arrives once too, and other signals do."""
    guess = (
        "import os, sys; from sigmic_guard.cli import child;"
        "child.next_signal = child._next_signal_by_guess; child.hold_signals();"
        "sys.exit(child.run(sys.argv[1:], os.environ, print))"
    )
    watch.exec = (sys.executable, "-c", guess)
    with at_terminal(watch, "job", *TELLS) as (process, keyboard):
        watch_pid = parent(told(process.stdout))
        for _ in range(20):
            type_both(process, keyboard)
        os.kill(watch_pid, signal.SIGTERM)
        assert told(process.stdout) == signal.SIGTERM


def stat(pid: int) -> list[str]:
    """Return what the kernel says of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def parent(pid: int) -> int:
    """Return a process's parent."""
    return int(stat(pid)[1])


def state(pid: int) -> str:
    """Return a process's state."""
    return stat(pid)[0]
