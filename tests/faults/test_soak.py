"""200 tasks at once while every route fails at random."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sigmic_guard import SigmicGuardError, Supervisor, TaskPolicy
from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.emulator.faults import ROUTES
from tests.backends import ASYNCIO, UVLOOP
from tests.faults.witness import KEY, echo, secret_options
from tests.observe.sums import add_up

if TYPE_CHECKING:
    from tests.faults.witness import Witness

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(150),
    pytest.mark.usefixtures("transport"),
]

TASKS = 200
ASK = Script(duration=0.05, approval="shell")
#: What may happen to any request, but for what is a stated residual: a server's false word.
FAULTS = [
    Fault("latency", seconds=0.1, probability=0.1),
    Fault("latency", seconds=1.0, probability=0.03),
    Fault("status", status=503, retry_after=0.05, probability=0.05, message=echo(secrets=False)),
    Fault("status", status=429, retry_after=0.1, probability=0.05, message=echo(secrets=False)),
    Fault("html", probability=0.03),
    Fault("reset_before", probability=0.03),
    Fault("reset_mid", probability=0.03),
    Fault("reset_after", probability=0.03),
    Fault("lost_answer", probability=0.03),
    Fault("black_hole", probability=0.02),
    Fault("black_hole_after", probability=0.02),
    Fault("malformed", probability=0.02),
    Fault("truncated", probability=0.02),
    Fault("empty", probability=0.02),
    Fault("refused_200", probability=0.02),
    Fault("redirect", location="http://127.0.0.1:9/", probability=0.02),
    Fault("oversize", size=2**17, probability=0.01),
]


class Crowd:
    """People who use one supervisor, each in another way."""

    def __init__(self, supervisor: Supervisor, witness: Witness, chance: random.Random) -> None:
        self._supervisor = supervisor
        self._witness = witness
        self._chance = chance
        self.endings: dict[str, int] = {}

    async def use(self, number: int) -> None:
        """Use a task, whatever comes of it."""
        ways = [self._read, self._leave, self._run, self._wait, self._cancel, self._follow_up]
        timeout = self._chance.uniform(0.2, 5.0)
        ending = "ok"
        try:
            await ways[number % len(ways)](f"message {number}", timeout)
        except SigmicGuardError as error:
            ending = type(error).__name__
            self._witness.catch(error)
        self.endings[ending] = self.endings.get(ending, 0) + 1

    async def _read(self, message: str, timeout: float) -> None:
        async with self._supervisor.task(message, timeout=timeout, **secret_options()) as task:
            async for event in task.events():
                if event.type == "tool_call" and event.data["status"] == "awaiting_approval":
                    await task.approve(event.data["callId"])

    async def _leave(self, message: str, timeout: float) -> None:
        async with self._supervisor.task(message, timeout=timeout):
            await anyio.sleep(0.05)

    async def _run(self, message: str, timeout: float) -> None:
        await self._supervisor.run(message, timeout=timeout, **secret_options())

    async def _wait(self, message: str, timeout: float) -> None:
        task = await self._supervisor.start(message, timeout=timeout)
        await task.wait()

    async def _cancel(self, message: str, timeout: float) -> None:
        task = await self._supervisor.start(message)
        await anyio.sleep(timeout / 10)
        await task.cancel()

    async def _follow_up(self, message: str, timeout: float) -> None:
        async with self._supervisor.task(message, timeout=timeout) as task:
            await task.result()
            await task.send(f"{message}, again")
            await task.result()


def half_of_them_ended(state: dict[str, Any]) -> bool:
    return int(state["tasks"]["total"] - state["tasks"]["live"]) >= TASKS // 2


@pytest.mark.backends(ASYNCIO, UVLOOP)
@pytest.mark.parametrize("seed", [1, 2])
async def test_random_faults(seed: int, in_a_hurry: None, witness: Witness) -> None:
    """No task is left, none was created twice, the sums agree, and no secret was shown."""
    chance = random.Random(seed)
    async with Emulator(
        script=Script(duration=0.3), heartbeat=0.1, seed=seed, api_key=KEY
    ) as emulator:
        emulator.script_for(lambda message: int(message.split()[-1]) % 6 == 0, ASK)
        emulator.script_for(
            lambda message: int(message.split()[-1]) % 6 in {1, 4}, Script(hold=True, duration=0.0)
        )
        for route in ROUTES:
            for fault in FAULTS:
                emulator.fault(route, fault)
        emulator.fault("stream", Fault("cut", probability=0.2))
        emulator.fault("stream", Fault("silent", probability=0.1))
        supervisor = Supervisor(
            api_key=KEY,
            base_url=emulator.url,
            create_timeout=2.0,
            grace=40.0,
            policy=TaskPolicy(confirm="terminal"),
            registry=witness.registry,
        )
        async with supervisor:
            crowd = Crowd(supervisor, witness, chance)
            async with anyio.create_task_group() as group:
                for number in range(TASKS):
                    group.start_soon(crowd.use, number)
                await emulator.wait_for(half_of_them_ended)
                supervisor.request_shutdown()
        report = await supervisor.shutdown()
        told = f"{crowd.endings}\n{report}\n{emulator.state()}\n{list(report.unconfirmed)}"
        assert sum(crowd.endings.values()) == TASKS, told
        assert report.clean, told
        assert emulator.live == 0, told
        assert not emulator.state()["duplicates"], told
        totals = add_up(witness.registry)
        assert (totals.started, totals.finished, totals.live) == (TASKS, TASKS, 0), told
        assert emulator.state()["created"] > TASKS / 2
        assert crowd.endings["ok"] > TASKS / 4, told
        assert emulator.count() > 3 * TASKS
