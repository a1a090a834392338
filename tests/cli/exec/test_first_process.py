"""As a container's first process, or a child subreaper, it waits for whatever is left to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.exec.container import CONTAINER, child_of, needs_container
from tests.cli.exec.watch import program

if TYPE_CHECKING:
    from tests.cli.exec.watch import Watch

SUBREAPER = (*program("subreaper.py"),)


FIRSTS = [
    pytest.param(SUBREAPER, id="subreaper"),
    pytest.param(CONTAINER, id="pid 1", marks=needs_container),
]


def watch_of(process: subprocess.Popen[bytes], before: tuple[str, ...]) -> int:
    """Return the watch's pid as we see it."""
    if before == SUBREAPER:
        return process.pid
    return child_of(process.pid)


@pytest.mark.parametrize("before", FIRSTS)
@pytest.mark.slow
def test_adopted_zombies_are_waited_for(watch: Watch, before: tuple[str, ...]) -> None:
    """A dead process whose parent has gone does not stay in the process table."""
    with watch.start(*program("orphans.py"), before=before) as process:
        assert process.stdout.readline() == b"ready\n"
        os.kill(watch_of(process, before), signal.SIGWINCH)
        assert process.stdout.read() == b"adopted=True left=False\n"
        assert process.wait() == 0


@needs_container
def test_signals_reach_the_program_from_the_first_process(watch: Watch) -> None:
    """As PID 1, which the kernel spares every signal without a handler, it passes them on."""
    with watch.start(*program("tells.py"), before=CONTAINER) as process:
        process.stdout.readline()
        pid = watch_of(process, CONTAINER)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            os.kill(pid, number)
            assert int(process.stdout.readline()) == number
        assert process.wait() == 7


LINGERS = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if os.fork():
    os._exit(3)
os.setsid()
os.write(1, b"up\\n")
signal.sigwait([signal.SIGTERM])
os.write(1, b"told\\n")
if "stubborn" in sys.argv:
    signal.pause()
os.write(1, b"ended\\n")
"""


@needs_container
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.slow
def test_what_the_program_leaves_is_ended(watch: Watch, *, stubborn: bool) -> None:
    """As PID 1 it ends what outlives the program, kindly and then not, and returns its status."""
    words = ["stubborn"] if stubborn else []
    with watch.start(sys.executable, "-c", LINGERS, *words, before=CONTAINER) as process:
        said = process.stdout.read()  # to the end: nobody has it open any more
        assert process.wait() == 3
    assert said == b"up\ntold\n" + (b"" if stubborn else b"ended\n")
