"""An emulator, a ledger, and processes that die on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.streams.text import TextReceiveStream

import sigmic_guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteReceiveStream, Process

    from sigmic_guard.emulator import Emulator

PROGRAM: Final = Path(__file__).parent / "programs" / "victim.py"
KEY: Final = "sigmic_" + "d06" * 20 + "cafe"
#: Seconds that anything may take in all; far more than it does.
MAX_SECONDS: Final = 40.0


class Victim:
    """A process that is to die, and what it said."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: dict[str, list[Any]] = {}
        self.errors = ""
        #: Everybody has closed its standard output and error.
        self.silent = anyio.Event()
        self._more = anyio.Event()

    async def hear(self, name: str, times: int = 1) -> Any:
        """Wait until it says a word, or has said it so often; return what it said then."""
        while len(self.said.get(name, ())) < times:
            assert not self.silent.is_set(), (self.said, self.errors)
            await self._more.wait()
        return self.said[name][times - 1]

    async def kill(self) -> None:
        """Kill it, and wait until it is dead."""
        self.process.send_signal(signal.SIGKILL)
        assert await self.process.wait() == -signal.SIGKILL

    async def listen(self) -> None:
        """Read what it says until nobody can say anything."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with anyio.create_task_group() as group:
            group.start_soon(self._read_errors, self.process.stderr)
            await self._read_lines(self.process.stdout)
        self.silent.set()
        self._more.set()

    async def _read_lines(self, stdout: ByteReceiveStream) -> None:
        waiting = ""
        async for text in TextReceiveStream(stdout):
            *lines, waiting = (waiting + text).split("\n")
            for line in lines:
                for name, value in json.loads(line).items():
                    self.said.setdefault(name, []).append(value)
            more, self._more = self._more, anyio.Event()
            more.set()

    async def _read_errors(self, stderr: ByteReceiveStream) -> None:
        async for text in TextReceiveStream(stderr):
            self.errors += text


class Stage:
    """Where they live."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.emulator = emulator
        self.folder = folder

    @property
    def ledger(self) -> str:
        """Its URL."""
        return f"sqlite:///{self.folder / 'ledger.db'}"

    @property
    def environment(self) -> dict[str, str]:
        """What a victim finds everything by."""
        inherited = {name: value for name, value in os.environ.items() if "SIGMIC" not in name}
        return {
            **inherited,
            "PYTHONPATH": str(Path(sigmic_guard.__path__[0]).parent),
            "SIGMIC_API_KEY": KEY,
            "SIGMIC_BASE_URL": self.emulator.url,
            "SIGMIC_GUARD_LEDGER": self.ledger,
        }

    @asynccontextmanager
    async def victim(self, how: str = "kill", number: int = 3) -> AsyncIterator[Victim]:
        """Start a victim; neither it nor what it started outlives the block."""
        process = await anyio.open_process(
            [sys.executable, "-W", "error", str(PROGRAM), how, str(number)],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.folder,
            start_new_session=True,
        )
        victim = Victim(process)
        try:
            with anyio.fail_after(MAX_SECONDS):
                async with anyio.create_task_group() as group:
                    group.start_soon(victim.listen)
                    yield victim
                    end(process.pid, *victim.said.get("helper", ()), *victim.said.get("child", ()))
        finally:
            end(process.pid, *victim.said.get("helper", ()), *victim.said.get("child", ()))
            with anyio.CancelScope(shield=True):
                await process.aclose()
        assert "Traceback" not in victim.errors, victim.errors

    async def ended(self, number: int) -> None:
        """Wait until so many tasks have been, and all of them have ended."""
        await self.emulator.wait_for(
            lambda state: state["created"] >= number and not state["tasks"]["live"], timeout=20.0
        )


def end(*pids: int) -> None:
    """Kill processes that may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def gone(pid: int) -> None:
    """Wait for the end of a process that need not be ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(fd)
    finally:
        os.close(fd)


def state_of(pid: int) -> str:
    """Return the letter of its state; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while we read
        return ""


def lives(pid: int) -> bool:
    """Tell whether there is such a process, and it has not ended."""
    return state_of(pid) not in {"", "Z"}
