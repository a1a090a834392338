"""`make chat` and `make demo` at a terminal: Ctrl-C ends all of it, and shows no traceback."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import pytest

import sigmic_guard
from tests.integrations.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import Process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]

ROOT: Final = Path(__file__).parents[2]
CTRL_C: Final = b"\x03"
#: Makes its standard input its terminal, and becomes a program.
AT_TERMINAL: Final = (
    "import fcntl, os, sys, termios; "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A terminal with one job in its foreground."""

    def __init__(self, fd: int, process: Process) -> None:
        self._fd = fd
        self.process = process
        self.shown = ""

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    async def until(self, words: str) -> None:
        """Read until that is shown."""
        while words not in self.shown:
            assert await self._read(), self.shown

    async def until_left(self) -> None:
        """Read until no process has it any more."""
        while await self._read():
            pass

    async def _read(self) -> bool:
        await anyio.wait_readable(self._fd)
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # so Linux says that nobody has it
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@asynccontextmanager
async def make(*arguments: str, home: Path) -> AsyncIterator[Terminal]:
    """Run make at a terminal, with this interpreter; when the block is left it is gone."""
    inherited = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    environment = {
        **inherited,
        "PYTHONPATH": str(Path(sigmic_guard.__path__[0]).parent),
        "XDG_STATE_HOME": str(home),
        "TMPDIR": str(home),
    }
    variables = ("READY=", f"BIN={Path(sys.executable).parent}")
    ours, theirs = os.openpty()
    try:
        process = await anyio.open_process(
            [sys.executable, "-c", AT_TERMINAL, "make", "-C", str(ROOT), *variables, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    try:
        with anyio.fail_after(50):
            yield Terminal(ours, process)
    finally:
        os.close(ours)  # a hang-up for whatever is left
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def test_ctrl_c_ends_the_chat(tmp_path: Path) -> None:
    """It ends as make does; an open stream comes to its end, and its task is not left."""
    async with make("chat", "PORT=0", home=tmp_path) as terminal:
        await terminal.until("(Ctrl-C ends it)")
        port = int(terminal.shown.partition("http://127.0.0.1:")[2].split()[0])
        async with Client(port) as client:
            await client.post("/tasks", {"message": "Watch the news until I say stop"})
            await client.until(b"No news.")
            terminal.type(CTRL_C)
            await client.to_the_end()
        assert client.complete
        await terminal.until_left()
        assert await terminal.process.wait() == -signal.SIGINT
    assert "Tasks on the emulator: 1; still running: 0" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert list(tmp_path.iterdir()) == []


async def test_ctrl_c_ends_the_demo(tmp_path: Path) -> None:
    """It ends as make does, and takes its processes and its ledgers with it."""
    async with make("demo", home=tmp_path) as terminal:
        await terminal.until("running")
        terminal.type(CTRL_C)
        await terminal.until_left()
        assert await terminal.process.wait() == -signal.SIGINT
    assert "Traceback" not in terminal.shown
    assert list(tmp_path.iterdir()) == []
