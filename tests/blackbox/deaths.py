"""Processes to be killed, the folder that they leave, and the command line that looks at it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.ledger import open_ledger
from tests.blackbox.lab import KEY, SOON, until
from tests.blackbox.server import Server
from tests.blackbox.world import Plan, World

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 30.0  # seconds that anything may take on a busy machine


@dataclass
class Home:
    """The folder of one user, and the environment of his programs."""

    path: Path
    server: Server
    key: str = KEY
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def ledger(self) -> str:
        return f"sqlite:///{self.path}/ledger.db"

    @property
    def env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.path),
            "PYTHONPATH": str(ROOT),
            "SIGMIC_API_KEY": self.key,
            "SIGMIC_BASE_URL": self.server.url,
            "SIGMIC_GUARD_LEDGER": self.ledger,
            **self.more,
        }

    def command(self, *args: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "sigmic_guard.cli", *args)

    async def call(self, *args: str, **env: str) -> Called:
        """``sigmic-guard ARGS``, to its end."""
        return await called(*self.command(*args), env=self.env | env)

    async def rows(self, *args: str) -> list[dict[str, Any]]:
        """What ``sigmic-guard ps --json`` tells."""
        told = (await self.call("ps", "--json", *args)).rows
        return [row for row in told if row["kind"] == "row"]

    async def known(self, *ids: str) -> None:
        """Wait until the ledger has these ids: `start` does not wait for that."""
        ledger = open_ledger(self.ledger)
        await ledger.open(f"{random.getrandbits(128):032x}")
        try:
            async with asyncio.timeout(MAX_SECONDS):
                for each in ids:
                    while not await ledger.find(each):
                        await asyncio.sleep(0)
        finally:
            await ledger.aclose()


@dataclass
class Called:
    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


async def called(*command: str, env: dict[str, str], cwd: Path = ROOT) -> Called:
    process = await asyncio.create_subprocess_exec(
        *command, env=env, cwd=cwd, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(MAX_SECONDS):
            out, err = await process.communicate()
    finally:
        await kill(process)
    assert process.returncode is not None
    return Called(process.returncode, out.decode(), err.decode())


async def kill(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
        await process.wait()


class Mortal:
    """A process with a supervisor; see ``mortal.py``."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pid = process.pid
        self.greeting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[Any]] = {0: self.greeting}
        self._numbers = itertools.count(1)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            number, answer = json.loads(line)
            self._waiting.pop(number).set_result(answer)
        for future in self._waiting.values():
            future.cancel()

    def tell(self, verb: str, **arguments: Any) -> asyncio.Future[Any]:
        assert self.process.stdin is not None
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps([number, verb, arguments]).encode() + b"\n")
        return self._waiting[number]

    def post(self, verb: str, **arguments: Any) -> None:
        """Tell, and never look at the answer."""
        self.tell(verb, **arguments).add_done_callback(lambda _: None)

    async def ask(self, verb: str, **arguments: Any) -> Any:
        async with asyncio.timeout(MAX_SECONDS):
            return await self.tell(verb, **arguments)

    async def start(self, message: str = "x", **options: Any) -> list[str]:
        ids = await self.ask("start", message=message, **options)
        assert isinstance(ids, list), ids
        return ids

    async def kill(self) -> None:
        """SIGKILL, and see that it is gone."""
        await kill(self.process)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def leave(self) -> int:
        """End as programs end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(MAX_SECONDS):
            return await self.process.wait()

    async def close(self) -> None:
        await kill(self.process)
        await self._reader


@asynccontextmanager
async def mortal(home: Home, **options: Any) -> AsyncIterator[Mortal]:
    """A process that has entered its supervisor, or told in ``greeting`` why it has not."""
    command = (sys.executable, "-m", "tests.blackbox.mortal", json.dumps(options))
    process = await asyncio.create_subprocess_exec(
        *command, env=home.env, cwd=home.path, stdin=PIPE, stdout=PIPE
    )
    made = Mortal(process)
    try:
        async with asyncio.timeout(MAX_SECONDS):
            await asyncio.shield(made.greeting)
        yield made
    finally:
        await made.close()


async def corpse(home: Home, message: str = "x", times: int = 1, **options: Any) -> list[str]:
    """The ids of live tasks whose owner was killed."""
    async with mortal(home) as process:
        ids = await process.start(message, times=times, **options)
        if home.env["SIGMIC_GUARD_LEDGER"] == home.ledger:
            await home.known(*ids)
        await process.kill()
    return ids


async def gone(server: Server, *ids: str, within: float = SOON) -> None:
    """Wait until the server says of all these tasks that they live no more."""
    await until(lambda: not set(server.world.live) & set(ids), within=within)


def held() -> World:
    return World(Plan(end="hold"), plans={"quick": Plan()})


@asynccontextmanager
async def stage(path: Path, **options: Any) -> AsyncIterator[Home]:
    async with Server(world=held()) as server:
        yield Home(path, server, **options)


def heir(home: Home, **options: Any) -> Supervisor:
    """A supervisor in this process, as the next start would make it."""
    options.setdefault("registry", CollectorRegistry())
    return Supervisor(
        api_key=options.pop("api_key", home.key),
        base_url=options.pop("base_url", home.server.url),
        ledger=options.pop("ledger", home.ledger),
        grace=options.pop("grace", 4),
        **options,
    )
