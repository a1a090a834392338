"""Processes on one ledger file and one emulator: started, killed, and cleared up after."""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
from collections import Counter
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.emulator import Emulator, Script
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.supervisor.ground.marking import MARKER
from tests.crash import victim
from tests.observe.sums import add_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator
    from multiprocessing.context import ForkServerProcess

#: Seconds after which a create that was lost is proven absent, by who creates nothing itself: what
#: the dead sent has come by then, for it stood in a socket's buffer when they died.
HEIRS_TIMEOUT: Final = 0.1

# A process is forked from one that has imported everything, and has no threads.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["sigmic_guard", "tests.crash.victim"])


class Scene:
    """An emulator, and the ledger's file."""

    def __init__(self, emulator: Emulator, path: Path) -> None:
        self.emulator = emulator
        self.path = str(path)

    @asynccontextmanager
    async def process(
        self, target: Callable[..., None], *arguments: Any
    ) -> AsyncIterator[ForkServerProcess]:
        """Start a process; it is gone at the end."""
        process = _forks.Process(
            target=target, args=(self.emulator.url, self.path, *arguments), daemon=True
        )
        process.start()
        try:
            yield process
        finally:
            process.kill()
            await ended(process)
            process.close()

    async def kill_after(
        self, requests: int, number: int, *, target: Callable[..., None] = victim.in_a_hurry
    ) -> None:
        """Let a process hurry, and kill it as soon as the emulator has seen so many requests."""
        least = self.emulator.count() + requests
        async with self.process(target, number) as process:
            await self.emulator.wait_for(lambda state: sum(state["requests"].values()) >= least)
            process.kill()
            assert await ended(process) == -signal.SIGKILL

    async def recover(self, *keys: str, within: float = victim.MAX_SECONDS) -> None:
        """Let one more process live, that ends what is left.

        :param keys: it asks for these before.
        :param within: seconds that it may take.
        """
        registry = CollectorRegistry()
        supervisor = Supervisor(
            api_key=victim.KEY,
            base_url=self.emulator.url,
            ledger=SqliteLedger(self.path),
            create_timeout=victim.CREATE_TIMEOUT if keys else HEIRS_TIMEOUT,
            registry=registry,
        )
        with anyio.fail_after(within):
            async with supervisor:
                for key in keys:
                    said = f"claimed by {key}"
                    task = await supervisor.start(said, key=key, on_crash="reattach")
                    await task.cancel()
                report = await supervisor.reap()
                assert report.clean, report.left
        assert add_up(registry).live == 0

    def knows(self, remote_id: str) -> bool:
        """Tell whether the ledger has a row of this task."""
        return any(row[1] == remote_id for row in self._rows())

    def _rows(self) -> list[tuple[str, str | None, str, float | None]]:
        if not Path(self.path).exists():
            return []  # its process died before it had opened it
        with closing(sqlite3.connect(self.path)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name='tasks'").fetchall():
                return []
            sql = "SELECT intent_id, remote_id, state, finished_at FROM tasks"
            return connection.execute(sql).fetchall()

    def problems(self, may_live: Collection[str] = ()) -> list[str]:
        """Hold the ledger's rows against the truth.

        :param may_live: messages.
        """
        return list(self._problems(may_live))

    def _problems(self, may_live: Collection[str]) -> Iterator[str]:
        tasks = list(self.emulator.tasks.values())
        for task in tasks:
            if task.live and task.message not in may_live:
                yield f"{task.message!r} is live"
        for message, copies in self.emulator.state()["duplicates"].items():
            yield f"{message!r} was created {copies} times"
        for mark, copies in Counter(task.env.get(MARKER, "") for task in tasks).items():
            if mark and copies > 1:
                yield f"{copies} tasks were created for {mark}"
        by_mark = {task.env.get(MARKER, task.id): task for task in tasks}
        rows = self._rows()
        for intent_id, remote_id, state, finished_at in rows:
            found = self.emulator.tasks.get(remote_id or "") or by_mark.get(intent_id)
            status = "never_created" if found is None else found.status
            if finished_at is None or state not in {status, "detached"}:
                yield f"a task is {status}, and its row {state}, finished at {finished_at}"
        unknown = by_mark.keys() - {row[0] for row in rows} - {row[1] for row in rows}
        for mark in unknown:
            if by_mark[mark].message not in may_live:
                yield f"nothing is known of {by_mark[mark].message!r}"


async def ended(process: ForkServerProcess) -> int | None:
    """Wait for a process's end; return its exit code."""
    await anyio.wait_readable(process.sentinel)
    process.join()
    return process.exitcode


@asynccontextmanager
async def open_scene(folder: Path) -> AsyncIterator[Scene]:
    """Open an emulator whose tasks run on unless their message says how they end."""
    async with Emulator(script=Script(duration=0.0, hold=True)) as emulator:
        emulator.script_for(lambda said: said.endswith("completes"), Script(duration=0.01))
        emulator.script_for("completed", Script(duration=0.01))
        emulator.script_for("asked again", Script(duration=0.01))
        emulator.script_for("failed", Script(duration=0.01, fail="the agent failed"))
        yield Scene(emulator, folder / "ledger.db")
