"""Act two: a service with live tasks, and creates in flight, gets a SIGKILL, and starts again."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Final

from demo.counts import Counts
from demo.processes import Emulator, Fault, Worker, emulator, worker
from demo.screens import death_details, orphans
from demo.service import Order
from demo.shutdown import FAILURES
from demo.verdict import Act, Killed, judge_death

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from demo.display import Display

#: From when the creates are to hang on: half of them have their effect, the others never will.
HANG: Final[tuple[Fault, ...]] = (
    {"route": "create", "kind": "black_hole_after", "every": 2},
    {"route": "create", "kind": "black_hole"},
)
#: Seconds that a create may take: more than the service has to live.
LONG_CREATE_TIMEOUT: Final = 60.0
#: The next start sends none. What it looks for was sent before it began, and so long after that it
#: takes for proven that a create had no effect.
SHORT_CREATE_TIMEOUT: Final = 1.0

#: How tasks go: one never ends; some end though nobody has their id, or waits for them.
HELD: Final = ({"hold": True, "duration": 2.0},)
SOME_SHORT: Final = (*HELD, *HELD, {"duration": 0.2}, {"duration": 0.2})


@dataclass(frozen=True, slots=True)
class Scene:
    """How act two is played."""

    #: Tasks that are live at the kill.
    live: int
    #: Creates that are in flight, fewer than the supervisor sends at once.
    in_flight: int
    #: URL of the ledger.
    ledger: str

    @classmethod
    def of(cls, tasks: int, ledger: str) -> Scene:
        """Return the act that fits a first one with so many tasks."""
        live = tasks // 2
        return cls(live, min(max(live // 8, 4), 48), ledger)

    @property
    def posts(self) -> int:
        """How many POSTs there are in all."""
        return self.live + self.in_flight

    @property
    def expected(self) -> Killed:
        """What the service is to leave behind."""
        return Killed(
            live=self.live,
            in_flight=self.in_flight,
            effective=self.in_flight // 2,
            exit_code=-signal.SIGKILL,
        )


async def play(scene: Scene, display: Display) -> Act:
    """Play it. The other processes end with it, however it ends."""
    return await _Death(scene, display).play()


class _Death:
    def __init__(self, scene: Scene, display: Display) -> None:
        self._scene = scene
        self._display = display
        self._counts = Counts()

    async def play(self) -> Act:
        self._display.act(self._scene.live + self._scene.in_flight, orphans)
        self._display.phase("starting another emulator")
        async with emulator(FAILURES) as server:
            async with server.watched_by(self._display.see):
                killed = await self._live_and_die(server)
                await server.disarm("create")
                restarted_at = time()
                exit_code = await self._start_again(server)
            truth = await server.look(full=True)
        verdict = judge_death(
            self._counts, truth, killed, expected=self._scene.expected, exit_code=exit_code
        )
        last = truth.last_cancelled_at
        seconds = last - restarted_at if last is not None else None
        story = (
            f"SIGKILL came with {killed.live} running and {killed.in_flight} creates in flight. "
            f"The next start reaped {sum(self._counts.reaped.values())} (exit code {exit_code})."
        )
        details = death_details(self._counts, truth, killed, seconds=seconds)
        return Act(story, verdict, tuple(details))

    async def _live_and_die(self, server: Emulator) -> Killed:
        """Have a service start its tasks, and kill it with some of its creates in flight."""
        scene, hanging, live, in_flight = self._scene, False, 0, 0
        async with self._service(server, LONG_CREATE_TIMEOUT, -signal.SIGKILL) as process:
            self._display.phase(f"{scene.live} more tasks")
            process.ask(Order(scene.live, HELD))
            async for report in process.reports():
                self._display.show(report.counts)
                states = report.counts.live
                live = states.get("running", 0)
                in_flight = states.get("creating", 0) + states.get("unknown", 0)
                if live < scene.live:
                    continue
                if not hanging:
                    hanging = True
                    await server.disarm("create")
                    await server.arm(HANG)
                    process.ask(Order(scene.in_flight, SOME_SHORT))
                elif in_flight >= scene.in_flight and (await server.look()).posts >= scene.posts:
                    self._display.phase(
                        f"SIGKILL, with {live} tasks running and {in_flight} creates in flight"
                    )
                    process.send_signal(signal.SIGKILL)
                    break
            exit_code = await process.exit_code()
        created = (await server.look()).created
        return Killed(live=live, in_flight=in_flight, effective=created - live, exit_code=exit_code)

    async def _start_again(self, server: Emulator) -> int:
        """Start the service again, which reaps, and is asked for nothing more."""
        async with self._service(server, SHORT_CREATE_TIMEOUT, 0) as process:
            self._display.phase("the next start, on the same ledger")
            process.ask_no_more()
            async for report in process.reports():
                self._counts = report.counts
                self._display.show(report.counts)
            return await process.exit_code()

    def _service(
        self, server: Emulator, create_timeout: float, expected_code: int
    ) -> AbstractAsyncContextManager[Worker]:
        return worker(
            *("-m", "demo.service", f"{create_timeout}"),
            url=server.url,
            ledger=self._scene.ledger,
            expected_code=expected_code,
        )
