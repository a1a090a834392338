"""The real command line, as a process, against an emulator in the test's own loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from sigmic_guard.emulator import Emulator, Script
from tests import forked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.books import Books

KEY: Final = "sigmic_" + "c0ffee" * 10 + "cafe"
MODULE: Final = "sigmic_guard.cli"
#: Where nobody listens; a port that was free a moment ago may be another test's by now.
NOBODY: Final = "http://127.0.0.1:9"
#: Seconds that a command may take in all; far more than any does.
MAX_SECONDS: Final = 40.0


@dataclass
class Ended:
    """A command that has ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Its lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    def of_kind(self, kind: str) -> list[Any]:
        """Those of one kind."""
        return [line for line in self.lines if line["kind"] == kind]


@dataclass
class Cli:
    """Starts commands; ``env`` is what they get beside this process's own environment."""

    emulator: Emulator
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a command gets."""
        return {**_INHERITED, **self.env}

    async def start(self, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        """Start a command."""
        options = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, **options}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", MODULE, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            env=self.environment,
            **options,
        )

    async def run(self, *arguments: str) -> Ended:
        """Run a command to its end."""
        return _ended(
            *await forked.run(MODULE, *arguments, env=self.environment, within=MAX_SECONDS)
        )

    async def streaming(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a ``run`` and wait until its answer has begun."""
        process = await self.start("run", "hello", *arguments)
        assert process.stdout is not None
        async with asyncio.timeout(MAX_SECONDS):
            assert await process.stdout.readline()
        return process


async def finish(process: asyncio.subprocess.Process) -> Ended:
    """Wait for the end of a command that wrote into pipes; there is no traceback, nor the key."""
    async with asyncio.timeout(MAX_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return _ended(process.returncode, (out or b"").decode(), (err or b"").decode())


def _ended(code: int, out: str, err: str) -> Ended:
    for text in (out, err):
        assert "Traceback" not in text
        assert KEY[7:] not in text
    return Ended(code, out, err)


_INHERITED: Final = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("SIGMIC_") and name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"}
}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator whose tasks say three lines and run on until they are pushed or cancelled."""
    script = Script(duration=0.05, chunks=("one\n", "two\n", "three"), hold=True)
    async with Emulator(script=script, api_key=KEY) as emulator:
        yield emulator


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    """Where the commands have their ledger; nothing has made it."""
    return tmp_path / "ledger.db"


@pytest.fixture
def cli(emulator: Emulator, ledger_file: Path) -> Cli:
    """Commands that know where the emulator is, have its key, and a ledger of their own."""
    ledger = f"sqlite:///{ledger_file}"
    env = {"SIGMIC_BASE_URL": emulator.url, "SIGMIC_API_KEY": KEY, "SIGMIC_GUARD_LEDGER": ledger}
    return Cli(emulator, env)


@pytest.fixture
def books(cli: Cli, ledger_file: Path) -> Books:
    """The ledger of these commands, for rows that are written by hand."""
    from tests.cli.books import Books  # which needs what stands here

    return Books(ledger_file, cli)
