"""Runs the service of ``programs/`` under a host, as a real process on a real socket.

Another host is one more entry in :data:`HOSTS`.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import pytest
from anyio import to_thread
from anyio.streams.text import TextReceiveStream

import sigmic_guard
from tests.integrations.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from anyio.abc import ByteReceiveStream, Process

    from sigmic_guard.emulator import Emulator

PROGRAMS: Final = Path(__file__).parent / "programs"
KEY: Final = "sigmic_" + "5ec2e7" * 10 + "cafe"
#: Seconds that the service is given, and that its exit may take beyond that.
GRACE: Final = 8.0
BEYOND: Final = 1.0
#: Seconds for a whole test; far more than any takes.
MAX_SECONDS: Final = 35.0

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL


@dataclass(frozen=True)
class Host:
    """A server, and how it is known to go.

    :ivar arguments: after ``python -m``; ``{port}``, ``{app}`` and its ``{folder}`` are put in.
    :ivar codes: its normal exit codes, by the signals that end it in order.
    :ivar impatient: further arguments, with which it does not wait for ever for its clients.
    :ivar graceful: seconds that it gives them then, or gives its workers.
    :ivar waits_for_clients: whether it waits for those that do not read, without a bound.
    :ivar workers: processes that serve.
    :ivar websockets: whether it serves any.
    :ivar tells_websockets: whether the frame that closes a websocket arrives before the connection
        is closed.
    """

    arguments: tuple[str, ...]
    codes: Mapping[signal.Signals, int] = field(default_factory=lambda: {TERM: 0, INT: 0})
    impatient: tuple[str, ...] = ()
    graceful: float = 0.0
    waits_for_clients: bool = False
    workers: int = 1
    websockets: bool = True
    tells_websockets: bool = True


HOSTS: Final = {
    # The two that are no hosts: a program that listens by itself. It speaks no websockets; one is
    # a connection that ends with its group, as each of its connections does.
    "asyncio.run": Host(("plain", "run", "{port}"), {TERM: 143, INT: 130}, websockets=False),
    "serve": Host(("plain", "serve", "{port}"), {TERM: 143, INT: 130}, websockets=False),
    "uvicorn": Host(
        ("uvicorn", "--port", "{port}", "{app}"),
        {TERM: -TERM, INT: 0},  # it raises the signal again, once it is done
        impatient=("--timeout-graceful-shutdown", "3"),
        graceful=3,
    ),
    "uvicorn --workers": Host(
        ("uvicorn", "--workers", "2", "--port", "{port}", "{app}"),
        impatient=("--timeout-graceful-shutdown", "3"),
        graceful=3,
        workers=2,
    ),
    "uvicorn --reload": Host(
        ("uvicorn", "--reload", "--reload-dir", "{folder}", "--port", "{port}", "{app}"),
        impatient=("--timeout-graceful-shutdown", "3"),
        graceful=3,
    ),
    "hypercorn -w 0": Host(
        ("hypercorn", "-w", "0", "--bind", "127.0.0.1:{port}", "{app}"),
        waits_for_clients=sys.version_info >= (3, 12),  # as asyncio.Server.wait_closed() does there
    ),
    "granian": Host(
        (
            *("granian", "--interface", "asgi", "--workers-kill-timeout", "10"),
            *("--port", "{port}", "{app}"),
        ),
        graceful=10,
        tells_websockets=False,
    ),
    "gunicorn, uvicorn worker": Host(
        (
            *("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "10"),
            *("--bind", "127.0.0.1:{port}", "{app}"),
        ),
        graceful=10,
        codes={TERM: 0},  # on SIGINT its workers get SIGQUIT, and then SIGKILL
    ),
    "aiohttp.web": Host(("aiohttp_service", "{port}")),
    "gunicorn, aiohttp worker": Host(
        (
            *("gunicorn", "-k", "aiohttp.GunicornWebWorker", "--graceful-timeout", "10"),
            *("--bind", "127.0.0.1:{port}", "aiohttp_service:app"),
        )
    ),
    "gunicorn -k asgi": Host(
        (
            *("gunicorn", "-k", "asgi", "--graceful-timeout", "10"),
            *("--bind", "127.0.0.1:{port}", "{app}"),
        ),
        graceful=10,
        codes={TERM: 0},  # SIGINT cuts everything off
    ),
}


class Service:
    """A host that runs, and then what it said."""

    def __init__(self, process: Process, port: int, host: Host) -> None:
        self.process = process
        self.port = port
        self.host = host
        self.log = ""
        self._signalled = 0.0
        self.ended = anyio.Event()
        #: Seconds from the first signal to the exit.
        self.took = 0.0

    def client(self) -> Client:
        return Client(self.port)

    def kill(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to its main process, or to each of its processes."""
        self._signalled = self._signalled or time.monotonic()
        (os.killpg if group else os.kill)(self.process.pid, number)

    def kill_all(self) -> None:
        """Leave no process of it, as ``kill -9`` does."""
        with suppress(ProcessLookupError):
            self.kill(signal.SIGKILL, group=True)

    async def ready(self) -> None:
        """Wait until it takes connections: no two hosts say that alike."""
        while not self.ended.is_set():
            if self.log.count("the service is ready") == self.host.workers:
                with suppress(OSError):
                    async with self.client():
                        return
            await anyio.sleep(0.02)
        pytest.fail(self.log)

    async def until_said(self, words: str, times: int) -> None:
        """Wait until it has said that so often."""
        while self.log.count(words) < times:
            assert not self.ended.is_set(), self.log
            await anyio.sleep(0.02)

    async def read(self) -> None:
        """Read what it says until it has ended."""
        async with anyio.create_task_group() as group:
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                group.start_soon(self._read, stream)
        await self.process.wait()
        self.took = time.monotonic() - self._signalled
        self.ended.set()

    async def _read(self, stream: ByteReceiveStream) -> None:
        async for text in TextReceiveStream(stream, errors="replace"):
            self.log += text

    @property
    def memory(self) -> int:
        """Bytes of its main process that are resident now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def check_end(self, number: signal.Signals) -> None:
        """Fail unless it ended in time, with its normal code, and without a complaint."""
        assert self.process.returncode == self.host.codes[number], self.log
        assert self.took < GRACE + BEYOND, self.log
        assert "Traceback" not in self.log, self.log
        assert "ERROR" not in self.log, self.log
        assert self.log.count("shutdown.begun") == self.host.workers, self.log


def _ports() -> Iterator[int]:
    """Every port below those that systems give to whoever binds none, from a random one on."""
    ports = range(15_000, 30_000)
    first = random.randrange(len(ports))
    return itertools.cycle([*ports[first:], *ports[:first]])


#: Of this test process; another one is hardly ever at the same place.
PORTS = _ports()


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody gets who has not chosen it."""
    for port in PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


@asynccontextmanager
async def service(
    emulator: Emulator,
    host: Host,
    *options: str,
    ledger: Path | None = None,
    without: str = "",
    app: str = "service:app",
    folder: Path = PROGRAMS,
    patience: float = MAX_SECONDS,
) -> AsyncIterator[Service]:
    """Start the service; when the block is left its process is gone."""
    scratch = await to_thread.run_sync(tempfile.TemporaryDirectory)
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(sigmic_guard.__path__[0]).parent), str(folder)]),
        "PYTHONUNBUFFERED": "1",
        "SIGMIC_API_KEY": KEY,
        "SIGMIC_BASE_URL": emulator.url,
        "SIGMIC_GUARD_LEDGER": f"sqlite:///{ledger or Path(scratch.name) / 'ledger.db'}",
        "GRACE": str(GRACE),
        "WITHOUT": without,
    }
    values = {"port": port, "app": app, "folder": folder}
    arguments = [argument.format(**values) for argument in (*host.arguments, *options)]
    process = await anyio.open_process(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    it = Service(process, port, host)
    try:
        with scratch, anyio.fail_after(patience):
            async with anyio.create_task_group() as group:
                group.start_soon(it.read)
                await it.ready()
                yield it
                it.kill_all()
    finally:
        it.kill_all()
        with anyio.CancelScope(shield=True):
            await process.aclose()
