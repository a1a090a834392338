"""Runs a program of ``programs/`` against an emulator, and tells how it ended."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread
from anyio.streams.text import TextReceiveStream

from tests import forked

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator

    from anyio.abc import ByteReceiveStream

    from sigmic_guard.emulator import Emulator

PROGRAMS: Final = Path(__file__).parent / "programs"
KEY: Final = "sigmic_" + "5ec2e7" * 10 + "cafe"
#: What a program says on its way out that left something behind.
NOISE: Final = (
    "never awaited",
    "Unclosed",
    "was destroyed",
    "never retrieved",
    "ResourceWarning",
    "Exception ignored",
    "Future exception",
    KEY[7:],
)
#: Seconds that a program may take in all; far more than any does.
MAX_SECONDS: Final = 45.0


class Run:
    """A program that runs, and then what it said."""

    def __init__(self, process: forked.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self.stderr = ""
        self._ready = anyio.Event()

    @property
    def status(self) -> int | None:
        """Its exit status; minus the signal's number where one ended it."""
        return self.process.returncode

    @property
    def end(self) -> dict[str, Any]:
        """What it said last."""
        assert self.said, self.stderr
        assert self.said[-1]["event"] == "end", (self.said, self.stderr)
        return self.said[-1]

    async def ready(self) -> None:
        """Wait until its tasks are live."""
        await self._ready.wait()
        assert self.said, self.stderr

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def read(self) -> None:
        """Read what it says until it has ended."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._read_lines, self.process.stdout)
            group.start_soon(self._read_errors, self.process.stderr)
        await self.process.wait()

    async def _read_lines(self, stdout: ByteReceiveStream) -> None:
        waiting = ""
        try:
            async for text in TextReceiveStream(stdout):
                *lines, waiting = (waiting + text).split("\n")
                for line in lines:
                    self.said.append(json.loads(line))
                    self._ready.set()
        finally:
            self._ready.set()

    async def _read_errors(self, stderr: ByteReceiveStream) -> None:
        async for text in TextReceiveStream(stderr):
            self.stderr += text

    def check_quiet(self) -> None:
        """Fail if it left something behind, and said so."""
        for noise in NOISE:
            assert noise not in self.stderr, self.stderr


@asynccontextmanager
async def program(emulator: Emulator, name: str, *options: str) -> AsyncIterator[Run]:
    """Start a program; when the block is left it has ended by itself."""
    environment = {
        **os.environ,
        "SIGMIC_API_KEY": KEY,
        "SIGMIC_BASE_URL": emulator.url,
    }
    folder = await to_thread.run_sync(tempfile.TemporaryDirectory)
    environment["SIGMIC_GUARD_LEDGER"] = f"sqlite:///{folder.name}/ledger.db"
    process = await forked.open_process(
        PROGRAMS / name, *options, env=environment, interpreter=("-X", "dev")
    )
    run = Run(process)
    try:
        with folder, anyio.fail_after(MAX_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(run.read)
                yield run
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()
    run.check_quiet()
