"""The sweeps on a remote system in memory: the same steps each time, and on trio too."""

from __future__ import annotations

import asyncio
import itertools

import anyio
import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import SupervisorShutdown
from tests.backends import ASYNCIO, TRIO_VIRTUAL, UVLOOP
from tests.families import slow_if
from tests.injection import uses
from tests.injection.injections import Injection, cancel_every_task
from tests.injection.stepper import Moment, Stepper
from tests.injection.sweep import Case, Program, sweep
from tests.injection.uses import Use
from tests.injection.worlds import open_world

PROGRAMS = pytest.mark.parametrize("program", [uses.alone, uses.with_the_supervisor])
MOMENTS = pytest.mark.parametrize("moment", ["suspended", "resuming"])
USES = pytest.mark.parametrize("use", uses.ALL, ids=str)


async def hold(case: Case, world_name: str = "fake") -> None:
    """Sweep, and fail unless everything held after every single run."""
    async with open_world(world_name) as world:
        swept = await sweep(world, case)
    assert swept.failures == []
    assert swept.runs >= 3


@pytest.mark.parametrize(
    "injection, moment, program",
    slow_if(
        # All three hit suspended programs over HTTP as well, and one moment says how two follow.
        lambda injection, moment, program: (
            (moment == "suspended" and program is uses.with_the_supervisor)
            or (
                injection is not Injection.NATIVE and moment == "resuming" and program is uses.alone
            )
        ),
        itertools.product(
            [Injection.NATIVE, Injection.NATIVE_TWICE, Injection.NATIVE_BOTH_AT_ONCE],
            ["suspended", "resuming"],
            [uses.alone, uses.with_the_supervisor],
        ),
    ),
)
@USES
async def test_native_cancellations(
    use: Use, injection: Injection, moment: Moment, program: Program
) -> None:
    """One ``Task.cancel()``, or two, at each step."""
    await hold(Case(use, injection, moment, program))


@pytest.mark.backends(TRIO_VIRTUAL)
@PROGRAMS
@MOMENTS
@pytest.mark.parametrize("injection", [Injection.SCOPE, Injection.SHUTDOWN])
@USES
async def test_scopes_and_shutdowns(
    use: Use, injection: Injection, moment: Moment, program: Program
) -> None:
    """What anyio has on both loops: a scope around the caller, and a shutdown of the supervisor."""
    await hold(Case(use, injection, moment, program))


@pytest.mark.parametrize(
    "moment, program",
    slow_if(
        lambda moment, program: (moment == "suspended") is (program is uses.with_the_supervisor),
        itertools.product(["suspended", "resuming"], [uses.alone, uses.with_the_supervisor]),
    ),
)
@pytest.mark.parametrize("injection", [Injection.SCOPE, Injection.SHUTDOWN])
@USES
async def test_scopes_and_shutdowns_on_asyncio(
    use: Use, injection: Injection, moment: Moment, program: Program
) -> None:
    """The same where each step of the caller is one of asyncio's."""
    await hold(Case(use, injection, moment, program))


@pytest.mark.backends(TRIO_VIRTUAL)
@pytest.mark.parametrize(
    "world, program, injection",
    slow_if(
        lambda world, program, injection: (
            (program is uses.alone) is (injection is Injection.SHUTDOWN)
            or (world != "lagging" and program is uses.alone)
        ),
        itertools.product(
            ["lagging", "swapped", "behind a gateway"],
            [uses.alone, uses.with_the_supervisor],
            [Injection.SCOPE, Injection.SHUTDOWN],
        ),
    ),
)
@USES
async def test_answers_that_say_nothing(
    use: Use, world: str, injection: Injection, program: Program
) -> None:
    """Where reads lag behind writes, tell of another task, or a gateway answers for the API."""
    await hold(Case(use, injection, "suspended", program), world)


@pytest.mark.backends(TRIO_VIRTUAL)
@pytest.mark.parametrize("injection", [Injection.SCOPE, Injection.SHUTDOWN])
@pytest.mark.parametrize("world", ["a gateway answers for it", "its clock steps"])
@pytest.mark.parametrize("use", [*uses.ALL, uses.TIMED], ids=str)
async def test_answers_and_a_clock_that_mislead(use: Use, world: str, injection: Injection) -> None:
    """Where a gateway hides what took effect, or the wall clock is set again and again."""
    await hold(Case(use, injection, "suspended", uses.with_the_supervisor), world)


@pytest.mark.slow
@pytest.mark.backends(ASYNCIO)
@MOMENTS
@pytest.mark.parametrize("world", ["a gateway answers for it", "its clock steps"])
@pytest.mark.parametrize("use", [*uses.ALL, uses.TIMED], ids=str)
async def test_the_same_in_real_time(use: Use, world: str, moment: Moment) -> None:
    """By the cancellations of asyncio."""
    await hold(Case(use, Injection.NATIVE, moment, uses.with_the_supervisor), world)


@pytest.mark.slow
@PROGRAMS
@pytest.mark.parametrize("world", ["lagging a little", "swapped"])
@pytest.mark.parametrize("injection", [Injection.NATIVE, Injection.NATIVE_TWICE])
@USES
async def test_answers_that_say_nothing_in_real_time(
    use: Use, injection: Injection, world: str, program: Program
) -> None:
    """The same, by the cancellations of asyncio."""
    await hold(Case(use, injection, "suspended", program), world)


@pytest.mark.backends(ASYNCIO, UVLOOP)
@pytest.mark.slow
@PROGRAMS
@MOMENTS
@USES
async def test_every_task(use: Use, moment: Moment, program: Program) -> None:
    """The workers are hit along with the caller, at each of the caller's steps."""
    await hold(Case(use, Injection.EVERY_TASK, moment, program))


@pytest.mark.backends(ASYNCIO, UVLOOP)
@PROGRAMS
@pytest.mark.parametrize("injection", [Injection.NATIVE, Injection.EVERY_TASK])
@pytest.mark.parametrize("use", [uses.BRIEF, uses.CANCEL], ids=str)
async def test_each_turn_of_the_loop(use: Use, injection: Injection, program: Program) -> None:
    """The workers are hit at each of their own steps: in the middle of a POST, and of a DELETE."""
    await hold(Case(use, injection, "turn", program))


@pytest.mark.backends(ASYNCIO, UVLOOP)
async def test_a_worker_that_is_struck_before_it_began_shuts_the_supervisor_down() -> None:
    """The code around is told with an error: nobody cancelled it, so it raises no cancellation."""
    spared = asyncio.all_tasks()
    async with open_world("fake") as world:
        supervisor = world.supervisor(CollectorRegistry(), 30.0)

        async def caller() -> None:
            async with supervisor.task("work"):
                pass

        async def stepped() -> None:
            # At its second step the block is left: the worker that ends the task has just been
            # started.
            await Stepper(caller(), lambda: cancel_every_task(spared), at=2)

        with pytest.raises(SupervisorShutdown, match="its own asyncio tasks"):
            async with supervisor:
                task = asyncio.create_task(stepped())
                await anyio.sleep_forever()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not world.live
