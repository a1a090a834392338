"""What starts the emulator and the worker, sends the SIGTERM, and has the last word."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec

from sigmic_guard.cli.codes import DONE, INTERRUPTED, NOT_DONE, TERMINATED
from sigmic_guard.cli.demo.counts import Counts, Report
from sigmic_guard.cli.demo.display import Display, last_screen
from sigmic_guard.cli.demo.verdict import Truth, Verdict, judge
from sigmic_guard.cli.demo.workload import Size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import IO

#: Seconds after which the demo gives up.
PATIENCE: Final = 120.0
#: Seconds that a process may take to end when it is told to: more than the worker's grace.
GOODBYE: Final = 12.0
#: Seconds between two looks at the emulator.
PERIOD: Final = 0.25

#: What goes wrong, by route; see ``sigmic_guard.emulator.Fault``. Every k-th request, counted over
#: those that no fault before it has hit.
FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"route": "create", "kind": "lost_answer", "every": 19},
    {"route": "create", "kind": "latency", "every": 5, "seconds": 0.2},
    {"route": "stream", "kind": "cut", "every": 9, "events": 4},
    {"route": "delete", "kind": "latency", "every": 3, "seconds": 0.2},
    {"route": "delete", "kind": "status", "status": 503, "retry_after": 1, "every": 11},
    {"route": "delete", "kind": "reset_before", "every": 13},
    {"route": "delete", "kind": "lost_answer", "every": 17},
    # The answer is 200, and the task runs on: only looking again finds it out.
    {"route": "delete", "kind": "lie", "every": 23, "times": 5},
)
LIES: Final[tuple[dict[str, Any], ...]] = ({"route": "delete", "kind": "lie"},)


@dataclass(frozen=True, slots=True)
class Scene:
    """How the demo is played."""

    size: Size
    faults: tuple[dict[str, Any], ...] = FAULTS
    #: What the worker takes for the end of a cancellation.
    confirm: str = "terminal"


def main(*, tasks: int, svg: Path | None, lie: bool) -> int:
    """Play the demo and return the exit code.

    :param lie: the negative control: each DELETE lies, and is believed.
    """
    size = Size(tasks)
    scene = Scene(size, LIES, "accepted") if lie else Scene(size)
    try:
        return asyncio.run(_main(scene, svg))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _main(scene: Scene, svg: Path | None) -> int:
    """Play it; on SIGTERM, end the other processes first."""
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None
    loop.add_signal_handler(signal.SIGTERM, me.cancel, _TERMINATED)
    display = Display(scene.size.tasks)
    try:
        with display:
            verdict, counts, story = await _Stage(scene, display).play()
    except asyncio.CancelledError as cancelled:
        if cancelled.args == (_TERMINATED,):
            return TERMINATED
        raise
    except TimeoutError:
        display.phase(f"not done within {PATIENCE:g} s")
        return NOT_DONE
    display.finish(last_screen(counts, verdict, story), svg)
    return DONE if verdict.good else NOT_DONE


_TERMINATED: Final = "SIGTERM"


class _Stage:
    """One play."""

    def __init__(self, scene: Scene, display: Display) -> None:
        self._scene = scene
        self._display = display
        self._counts = Counts()
        self._truth: Truth | None = None
        self._at_signal = Counts()

    async def play(self) -> tuple[Verdict, Counts, str]:
        """Return the verdict, the supervisor's last counts, and what happened in a sentence.

        :raises TimeoutError: it takes too long. The other processes have been ended.
        """
        began = monotonic()
        async with asyncio.timeout(PATIENCE):
            self._display.phase("starting the emulator")
            arguments = ("-m", "sigmic_guard.emulator", "--port", "0", "--heartbeat", "5")
            async with _process(*arguments) as emulator, aiohttp.ClientSession() as http:
                url = await _url(emulator)
                for fault in self._scene.faults:
                    async with http.post(f"{url}/_emulator/faults", json=fault) as response:
                        response.raise_for_status()
                looking = asyncio.create_task(self._keep_looking(http, url))
                try:
                    exit_code, drained = await self._work(url)
                finally:
                    looking.cancel()
                truth = await _look(http, url, full=True)
        verdict = judge(
            self._counts,
            truth,
            met_signal=self._at_signal.alive,
            exit_code=exit_code,
            expected_code=TERMINATED,
        )
        story = (
            f"{self._scene.size.tasks} tasks in {monotonic() - began:.1f} s. SIGTERM came with "
            f"{self._at_signal.live.get('running', 0)} running; the process ended "
            f"{drained:.1f} s later (exit code {exit_code})."
        )
        return verdict, self._counts, story

    async def _work(self, url: str) -> tuple[int, float]:
        """Have the worker work; return its exit code, and how long it took from the SIGTERM on."""
        size, signalled_at = self._scene.size, 0.0
        arguments = ("-m", "sigmic_guard.cli.demo.worker", str(size.tasks), self._scene.confirm)
        environment = {"SIGMIC_BASE_URL": url, "SIGMIC_API_KEY": "sigmic_demo"}
        with tempfile.TemporaryFile() as complaints:
            async with _process(*arguments, stderr=complaints, **environment) as worker:
                self._display.phase(f"{size.tasks} tasks, at most {size.seats} at once")
                assert worker.stdout is not None
                async for line in worker.stdout:
                    report = msgspec.json.decode(line, type=Report)
                    self._counts = report.counts
                    self._display.show(report.counts, self._truth)
                    if report.steady and not signalled_at:
                        self._at_signal = report.counts
                        self._display.phase(f"SIGTERM, with {size.seats} tasks running")
                        signalled_at = monotonic()
                        worker.send_signal(signal.SIGTERM)
                exit_code = await worker.wait()
            complaints.seek(0)
            if exit_code != TERMINATED and (said := complaints.read().decode(errors="replace")):
                print(said, file=sys.stderr)
        return exit_code, monotonic() - signalled_at

    async def _keep_looking(self, http: aiohttp.ClientSession, url: str) -> None:
        while True:
            self._truth = await _look(http, url)
            await asyncio.sleep(PERIOD)


async def _look(http: aiohttp.ClientSession, url: str, *, full: bool = False) -> Truth:
    query = "?full=1" if full else ""
    async with http.get(f"{url}/_emulator/state{query}") as response:
        return Truth.from_state(await response.json())


async def _url(emulator: asyncio.subprocess.Process) -> str:
    """Return the URL that the emulator prints when it listens."""
    assert emulator.stdout is not None
    line = (await emulator.stdout.readline()).decode()
    if not line.startswith("listening on "):
        raise RuntimeError("the emulator did not start")
    return line.split()[-1]


@asynccontextmanager
async def _process(
    *arguments: str, stderr: IO[bytes] | None = None, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python as a process that ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **environment},
        # A Ctrl-C at the terminal is for us: the worker needs its emulator to the end.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(GOODBYE):
                    await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
