"""Act one: a worker with some hundred tasks gets a SIGTERM."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from demo.counts import Counts
from demo.processes import Emulator, Fault, emulator, worker
from demo.screens import shutdown_details, states
from demo.verdict import Act, judge_shutdown
from sigmic_guard.cli.codes import TERMINATED

if TYPE_CHECKING:
    from demo.display import Display
    from demo.workload import Size

#: What goes wrong. Every k-th request, counted over those that no fault before it has hit.
FAILURES: Final[tuple[Fault, ...]] = (
    {"route": "create", "kind": "lost_answer", "every": 19},
    {"route": "create", "kind": "latency", "every": 5, "seconds": 0.2},
    {"route": "stream", "kind": "cut", "every": 9, "events": 4},
    {"route": "delete", "kind": "latency", "every": 3, "seconds": 0.2},
    {"route": "delete", "kind": "status", "status": 503, "retry_after": 1, "every": 11},
    {"route": "delete", "kind": "reset_before", "every": 13},
    {"route": "delete", "kind": "lost_answer", "every": 17},
)
FAULTS: Final[tuple[Fault, ...]] = (
    *FAILURES,
    # The answer is 200, and the task runs on: only looking again, some times, finds it out.
    {"route": "delete", "kind": "lie", "every": 23, "times": 5},
)
LIES: Final[tuple[Fault, ...]] = ({"route": "delete", "kind": "lie"},)


@dataclass(frozen=True, slots=True)
class Scene:
    """How act one is played."""

    size: Size
    #: URL of the ledger.
    ledger: str
    faults: tuple[Fault, ...] = FAULTS
    #: What the worker takes for the end of a cancellation.
    confirm: str = "terminal"


async def play(scene: Scene, display: Display) -> Act:
    """Play it. The other processes end with it, however it ends."""
    return await _Shutdown(scene, display).play()


class _Shutdown:
    def __init__(self, scene: Scene, display: Display) -> None:
        self._scene = scene
        self._display = display
        self._counts = Counts()
        self._at_signal = Counts()

    async def play(self) -> Act:
        scene, began = self._scene, monotonic()
        self._display.act(scene.size.tasks, states)
        self._display.phase("starting the emulator")
        async with emulator(scene.faults) as server:
            async with server.watched_by(self._display.see):
                exit_code, drained = await self._work(server)
            truth = await server.look(full=True)
        verdict = judge_shutdown(
            self._counts,
            truth,
            met_signal=self._at_signal.alive,
            exit_code=exit_code,
            expected_code=TERMINATED,
        )
        story = (
            f"{scene.size.tasks} tasks in {monotonic() - began:.1f} s. SIGTERM came with "
            f"{self._at_signal.live.get('running', 0)} running; the process ended "
            f"{drained:.1f} s later (exit code {exit_code})."
        )
        return Act(story, verdict, tuple(shutdown_details(self._counts)))

    async def _work(self, server: Emulator) -> tuple[int, float]:
        """Have the worker work; return its exit code, and how long it took from the SIGTERM on."""
        scene, signalled_at = self._scene, 0.0
        arguments = ("-m", "demo.worker", str(scene.size.tasks), scene.confirm)
        async with worker(
            *arguments, url=server.url, ledger=scene.ledger, expected_code=TERMINATED
        ) as process:
            self._display.phase(f"{scene.size.tasks} tasks, at most {scene.size.seats} at once")
            async for report in process.reports():
                self._counts = report.counts
                self._display.show(report.counts)
                if report.steady and not signalled_at:
                    self._at_signal = report.counts
                    self._display.phase(f"SIGTERM, with {scene.size.seats} tasks running")
                    signalled_at = monotonic()
                    process.send_signal(signal.SIGTERM)
            exit_code = await process.exit_code()
        return exit_code, monotonic() - signalled_at
