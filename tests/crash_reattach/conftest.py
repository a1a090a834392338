"""Real processes that are killed and started again, over an emulator and a SQLite ledger."""

from __future__ import annotations

import json
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from sigmic_guard.emulator import Emulator, Script
from tests import forked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import ByteReceiveStream

PROGRAM: Final = Path(__file__).parent / "program.py"
KEY: Final = "sigmic_" + "c0ffee" * 10 + "cafe"
#: Seconds that a program may take in all; far more than any does.
MAX_SECONDS: Final = 45.0


class Run:
    """One process that asks for the key."""

    def __init__(self, process: forked.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self.errors = ""
        self._more = anyio.Event()
        self._over = False

    @property
    def text(self) -> str:
        """What the events that it read had to say."""
        return "".join(line.get("text", "") for line in self.said)

    @property
    def events(self) -> list[str]:
        """The kinds of these."""
        return [line["event"] for line in self.said]

    async def until(self, told: Callable[[Run], object]) -> None:
        """Wait until what it said is enough."""
        while not told(self):
            assert not self._over, (self.said, self.errors)
            await self._more.wait()

    async def kill(self) -> None:
        """Kill it, and wait until it is dead."""
        self.process.send_signal(signal.SIGKILL)
        assert await self.process.wait() == -signal.SIGKILL

    async def end(self) -> dict[str, Any]:
        """Wait for its end, and return what it said last."""
        assert await self.process.wait() == 0, (self.said, self.errors)
        await self.until(lambda run: "end" in run.events)
        assert "Traceback" not in self.errors, self.errors
        last = self.said[-1]
        assert last["event"] == "end", self.said
        return {name: value for name, value in last.items() if name != "event"}

    async def listen(self) -> None:
        """Read what it says until it is gone."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._read_errors, self.process.stderr)
            await self._read_lines(self.process.stdout)
        self._over = True
        self._more.set()

    async def _read_lines(self, stdout: ByteReceiveStream) -> None:
        waiting = ""
        async for text in TextReceiveStream(stdout):
            *lines, waiting = (waiting + text).split("\n")
            self.said += map(json.loads, lines)
            more, self._more = self._more, anyio.Event()
            more.set()

    async def _read_errors(self, stderr: ByteReceiveStream) -> None:
        async for text in TextReceiveStream(stderr):
            self.errors += text


class Stage:
    """A remote system, and a ledger that outlives every process."""

    def __init__(self, emulator: Emulator, ledger: Path) -> None:
        self.emulator = emulator
        self.ledger = ledger

    @property
    def environment(self) -> dict[str, str]:
        """What a program finds both by."""
        inherited = {name: value for name, value in os.environ.items() if "SIGMIC" not in name}
        return {
            **inherited,
            "SIGMIC_API_KEY": KEY,
            "SIGMIC_BASE_URL": self.emulator.url,
            "SIGMIC_GUARD_LEDGER": f"sqlite:///{self.ledger}",
        }

    @asynccontextmanager
    async def process(
        self,
        how: str,
        on_crash: str = "reattach",
        on_shutdown: str = "cancel",
        *,
        clock: tuple[float, float] = (0.0, 0.0),
    ) -> AsyncIterator[Run]:
        """Start a process; it does not outlive the block.

        :param clock: by how many seconds its wall clock is ahead, before it is ready, and then.
        """
        arguments = [how, on_crash, on_shutdown, *map(str, clock)]
        process = await forked.open_process(
            PROGRAM, *arguments, env=self.environment, interpreter=("-W", "error")
        )
        run = Run(process)
        try:
            with anyio.fail_after(MAX_SECONDS):
                async with anyio.create_task_group() as group:
                    group.start_soon(run.listen)
                    yield run
                    if process.returncode is None:
                        process.kill()
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()

    async def killed(
        self, how: str, on_crash: str = "reattach", *, clock: tuple[float, float] = (0.0, 0.0)
    ) -> str:
        """Have a process killed in the middle of its task; return the task's id."""
        async with self.process(how, on_crash, clock=clock) as run:
            await self.is_in_the_middle(run, how)
            await run.kill()
        [task_id] = self.emulator.state()["live_ids"]
        return str(task_id)

    async def deployed(self, how: str, on_shutdown: str = "reattach") -> str:
        """Have a process told to leave in the middle of its task; return the task's id."""
        async with self.process(how, "cancel", on_shutdown) as run:
            await self.is_in_the_middle(run, how)
            [task_id] = self.emulator.state()["live_ids"]
            run.process.send_signal(signal.SIGTERM)
            assert await run.process.wait() == 128 + signal.SIGTERM, run.errors
        assert "Traceback" not in run.errors, run.errors
        return str(task_id)

    async def is_in_the_middle(self, run: Run, how: str) -> None:
        """Wait until a process has its task, and has begun to read what it says."""
        await self.emulator.wait_for(lambda state: state["tasks"]["total"])
        if how == "task":
            await run.until(lambda run: run.text == "Hello")
        elif how == "start":
            await run.until(lambda run: "task" in run.events)
        else:
            await self.emulator.wait_for(lambda _: self.emulator.count(route="stream"))

    def check(self, *, posts: int = 1) -> None:
        """Fail unless so many creates came, and one of them had an effect that is over."""
        assert self.emulator.count(route="create") == posts
        assert len(self.emulator.tasks) == 1
        assert self.emulator.live == 0


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Tasks there say Hello, and then what they are told when they are completed by hand."""
    async with Emulator(script=Script(duration=0.0, hold=True, chunks=("Hello",))) as emulator:
        yield Stage(emulator, tmp_path / "ledger.db")
