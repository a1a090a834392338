"""The other processes: started here, ended with the block that started them, and asked."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec

from demo.counts import Report
from demo.verdict import Truth

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import IO

#: Seconds that a process may take to end when it is told to: more than the worker's grace.
END_TIMEOUT: Final = 12.0
#: Seconds between two looks at the emulator.
LOOK_INTERVAL: Final = 0.25

#: What goes wrong, by route; see ``sigmic_guard.emulator.Fault``.
Fault = dict[str, Any]


# --- the emulator ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Emulator:
    """The emulator, in its process."""

    url: str
    http: aiohttp.ClientSession

    async def arm(self, faults: Iterable[Fault]) -> None:
        """Let requests meet these faults from now on."""
        for fault in faults:
            async with self.http.post(f"{self.url}/_emulator/faults", json=fault) as response:
                response.raise_for_status()

    async def disarm(self, route: str) -> None:
        """Let requests to this route meet no faults any more."""
        query = {"route": route}
        async with self.http.delete(f"{self.url}/_emulator/faults", params=query) as response:
            response.raise_for_status()

    async def look(self, *, full: bool = False) -> Truth:
        """Return the truth, with all tasks or only their counts."""
        query = {"full": "1"} if full else {}
        async with self.http.get(f"{self.url}/_emulator/state", params=query) as response:
            return Truth.from_state(await response.json())

    @asynccontextmanager
    async def watched_by(self, see: Callable[[Truth], None]) -> AsyncIterator[None]:
        """Look again and again for as long as the block lasts, and tell what is seen."""

        async def keep_looking() -> None:
            while True:
                see(await self.look())
                await asyncio.sleep(LOOK_INTERVAL)

        looking = asyncio.create_task(keep_looking())
        try:
            yield
        finally:
            looking.cancel()


@asynccontextmanager
async def emulator(faults: Iterable[Fault]) -> AsyncIterator[Emulator]:
    """Run an emulator whose requests meet these faults; it ends with us, however we end."""
    arguments = ("-m", "until_eof", "sigmic_guard.emulator", "--port", "0", "--heartbeat", "5")
    async with _process(*arguments) as process, aiohttp.ClientSession() as http:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if not line.startswith("listening on "):
            raise RuntimeError("the emulator did not start")
        running = Emulator(line.split()[-1], http)
        await running.arm(faults)
        yield running


# --- workers --------------------------------------------------------------------------------------


class Worker:
    """A process that tells its metrics in lines of JSON."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def reports(self) -> AsyncIterator[Report]:
        """Yield its lines, to the last."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield msgspec.json.decode(line, type=Report)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ask(self, line: msgspec.Struct) -> None:
        """Write a line of JSON that it reads."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(line) + b"\n")

    def ask_no_more(self) -> None:
        """Let it read the end of what it is asked."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def exit_code(self) -> int:
        """Wait for its end."""
        return await self._process.wait()


@asynccontextmanager
async def worker(
    *arguments: str, url: str, ledger: str, expected_code: int
) -> AsyncIterator[Worker]:
    """Run a worker of this API and this ledger, never the user's.

    What it wrote on stderr is shown if it ended otherwise than with ``expected_code``.
    """
    environment = {
        "SIGMIC_BASE_URL": url,
        "SIGMIC_API_KEY": "sigmic_demo",
        "SIGMIC_GUARD_LEDGER": ledger,
    }
    with tempfile.TemporaryFile() as complaints:
        async with _process(*arguments, stderr=complaints, **environment) as process:
            yield Worker(process)
        complaints.seek(0)
        if process.returncode != expected_code and (said := complaints.read()):
            print(said.decode(errors="replace"), file=sys.stderr)


@asynccontextmanager
async def _process(
    *arguments: str,
    stderr: IO[bytes] | None = None,
    **environment: str,
) -> AsyncIterator[Process]:
    """Run Python as a process that ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        # A Ctrl-C at the terminal is for us: the worker needs its emulator to the end.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(END_TIMEOUT):
                    await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
