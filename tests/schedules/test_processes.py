"""Never the wrong one: a real process that is stopped, robbed of its lock file, forked and killed.

The other process is the test's own. Its rounds follow one another without a pause, and its clock is
days ahead: whatever there was to wait for is over.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from prometheus_client import CollectorRegistry

import sigmic_guard
from sigmic_guard import ReapReport, ReapResult, Supervisor
from sigmic_guard.emulator import Emulator, Script
from sigmic_guard.ledger import SqliteLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import Process

KEY: Final = "sigmic_" + "0dd5ea" * 10 + "cafe"
OWNER: Final = Path(__file__).parent / "programs" / "owner.py"
ROUNDS: Final = 20
DAYS: Final = 3 * 86400.0


class Other:
    """The other process: its supervisor, and how long it has been waiting."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._later = 0.0

    async def reap(self) -> ReapReport:
        """Look for orphans, days later."""
        self._later += DAYS
        clock = SimpleNamespace(time=lambda: time.time() + self._later, monotonic=time.monotonic)
        with patch("sigmic_guard.supervisor.ground.clock.time", clock):
            return await self._supervisor.reap()


@dataclass
class Owner:
    """The process whose tasks are at stake."""

    process: Process
    said: BufferedByteReceiveStream
    ledger: Path
    ids: set[str]

    async def says(self) -> dict[str, Any]:
        """Read its next line."""
        answer: dict[str, Any] = json.loads(await self.said.receive_until(b"\n", 1 << 16))
        return answer

    async def tell(self, command: str) -> dict[str, Any]:
        """Have it do something, and wait until it has."""
        assert self.process.stdin is not None
        await self.process.stdin.send(command.encode() + b"\n")
        return await self.says()

    def stop(self) -> None:
        """SIGSTOP, until it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        told = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        assert told is not None

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, until it is dead."""
        self.process.kill()
        await self.process.wait()

    def lock_file(self) -> Path:
        """Return the path of its lock file."""
        with closing(sqlite3.connect(self.ledger)) as shell:
            sql = "SELECT owner_id FROM owners WHERE pid=?"
            [(owner_id,)] = shell.execute(sql, (self.process.pid,)).fetchall()
        path = Path(f"{self.ledger}.owners") / f"{owner_id}.lock"
        assert path.exists()
        return path


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(duration=0.0, hold=True)) as emulator:
        yield emulator


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def owner(emulator: Emulator, ledger: Path) -> AsyncIterator[Owner]:
    async with owning(emulator, ledger) as owner:
        yield owner


@asynccontextmanager
async def owning(emulator: Emulator, ledger: Path) -> AsyncIterator[Owner]:
    environment = os.environ | {
        "PYTHONPATH": str(Path(sigmic_guard.__path__[0]).parent),
        "SIGMIC_API_KEY": KEY,
        "SIGMIC_BASE_URL": emulator.url,
        "SIGMIC_GUARD_LEDGER": f"sqlite:///{ledger}",
    }
    process = await anyio.open_process(
        [sys.executable, str(OWNER)], stdin=subprocess.PIPE, stderr=None, env=environment
    )
    assert process.stdout is not None
    try:
        with anyio.fail_after(40):
            owner = Owner(process, BufferedByteReceiveStream(process.stdout), ledger, set())
            owner.ids |= set((await owner.says())["ids"])
            assert set(emulator.state()["live_ids"]) == owner.ids
            yield owner
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


@asynccontextmanager
async def other(
    emulator: Emulator, ledger: Path, make: type[SqliteLedger] = SqliteLedger
) -> AsyncIterator[Other]:
    supervisor = Supervisor(
        api_key=KEY, base_url=emulator.url, ledger=make(ledger), registry=CollectorRegistry()
    )
    async with supervisor:
        yield Other(supervisor)


async def leaves_alone(other: Other, owner: Owner, emulator: Emulator) -> None:
    """Check that many rounds find nothing to do."""
    for _ in range(ROUNDS):
        report = await other.reap()
        assert not report.reaped
        assert report.clean
    assert set(emulator.state()["live_ids"]) == owner.ids
    assert emulator.count(route="delete") == 0


async def ends_all(other: Other, ids: set[str], emulator: Emulator) -> None:
    """Check that one round ends the tasks of the dead."""
    report = await other.reap()
    assert {row.id for row in report.reaped} == ids
    assert {row.result for row in report.reaped} == {ReapResult.CANCELLED}
    assert emulator.live == 0
    assert emulator.count(route="delete") == len(ids)


async def test_stopped(emulator: Emulator, ledger: Path, owner: Owner) -> None:
    """A stopped process keeps its tasks, goes on, and is reaped when it is dead."""
    async with other(emulator, ledger) as reaper:
        await leaves_alone(reaper, owner, emulator)
        owner.stop()
        await leaves_alone(reaper, owner, emulator)
        owner.go_on()
        [finished, *_] = sorted(owner.ids)
        emulator.complete(finished)
        assert (await owner.tell(f"wait {finished}")) == {"outcome": "completed"}
        owner.ids.remove(finished)
        await leaves_alone(reaper, owner, emulator)
        await owner.kill()
        await ends_all(reaper, owner.ids, emulator)


async def test_goes_on_to_its_end(emulator: Emulator, ledger: Path, owner: Owner) -> None:
    """Continued, it ends its own tasks, and nobody else ever touches them."""
    async with other(emulator, ledger) as reaper:
        owner.stop()
        await leaves_alone(reaper, owner, emulator)
        owner.go_on()
        assert await owner.tell("") == {"end": True}
        assert await owner.process.wait() == 0
        assert (await reaper.reap()).clean
    assert emulator.live == 0
    assert emulator.count(route="delete") == len(owner.ids)


async def test_its_lock_file_is_cleaned_away(
    emulator: Emulator, ledger: Path, owner: Owner
) -> None:
    """Without its lock file it lives all the same: a missing file proves nothing."""
    async with other(emulator, ledger) as reaper:
        owner.stop()
        path = owner.lock_file()
        path.unlink()
        await leaves_alone(reaper, owner, emulator)
        owner.go_on()
        await leaves_alone(reaper, owner, emulator)
        await owner.tell("upkeep")
        assert path.exists()
        await owner.kill()
        await ends_all(reaper, owner.ids, emulator)


async def test_survived_by_a_child(emulator: Emulator, ledger: Path, owner: Owner) -> None:
    """A child that was forked from it does not keep it alive."""
    async with other(emulator, ledger) as reaper, a_child_of(owner, "fork"):
        await leaves_alone(reaper, owner, emulator)
        await owner.kill()
        await ends_all(reaper, owner.ids, emulator)


@asynccontextmanager
async def a_child_of(owner: Owner, command: str) -> AsyncIterator[None]:
    """Have it fork; the child lives as long as the block."""
    child = (await owner.tell(command))["child"]
    try:
        yield
        os.kill(child, 0)  # it lived on
    finally:
        os.kill(child, signal.SIGKILL)


# --- and if it were otherwise -----------------------------------------------------------------


async def test_control_a_child_that_inherits(
    emulator: Emulator, ledger: Path, owner: Owner
) -> None:
    """A child that kept the lock would keep the dead alive: that is what the fork test sees."""
    async with other(emulator, ledger) as reaper:
        async with a_child_of(owner, "fork, and let it inherit"):
            await owner.kill()
            await leaves_alone(reaper, owner, emulator)
        while not (report := await reaper.reap()).reaped:  # as soon as the kernel has ended it
            assert report.clean
        assert emulator.live == 0


class Guessing(SqliteLedger):
    """Takes for dead whoever was not seen for a minute."""

    async def upkeep(self, now: float) -> None:
        self.now = now
        await super().upkeep(now)

    async def owner_alive(self, owner_id: str) -> bool:
        return self.now - (await self.last_seen(owner_id) or 0.0) < 60.0


async def test_control_guessing(emulator: Emulator, ledger: Path, owner: Owner) -> None:
    """A ledger that guesses by time is caught: it ends the tasks of the stopped."""
    async with other(emulator, ledger, Guessing) as reaper:
        owner.stop()
        with pytest.raises(AssertionError):
            await leaves_alone(reaper, owner, emulator)
        assert emulator.live == 0
