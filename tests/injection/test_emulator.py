"""Over real HTTP, wherever the caller is ended, no remote task is left, and the caller is told."""

from __future__ import annotations

import itertools

import pytest

from tests.backends import ASYNCIO, UVLOOP
from tests.families import slow_if
from tests.injection import uses
from tests.injection.injections import Injection
from tests.injection.stepper import Moment
from tests.injection.sweep import Case, Program, sweep
from tests.injection.uses import Stage, Use
from tests.injection.worlds import open_world

TWICE = {Injection.NATIVE_TWICE, Injection.NATIVE_BOTH_AT_ONCE}


async def hold(case: Case) -> None:
    """Sweep, and fail unless everything held after every single run."""
    async with open_world("emulator") as world:
        swept = await sweep(world, case)
    assert swept.failures == []
    assert swept.runs >= 3


@pytest.mark.parametrize(
    "use, injection",
    slow_if(
        lambda use, injection: injection in TWICE and use not in {uses.PLAIN, uses.RUN},
        itertools.product(uses.ALL, [i for i in Injection if i is not Injection.EVERY_TASK]),
    ),
    ids=str,
)
async def test_the_whole_program_is_hit_at_each_step(use: Use, injection: Injection) -> None:
    """The supervisor's own block is swept as well as the task's."""
    await hold(Case(use, injection, program=uses.with_the_supervisor))


@pytest.mark.parametrize("use", [uses.PLAIN, uses.WAIT, uses.RUN], ids=str)
async def test_every_task_of_the_program_is_hit_at_each_step(use: Use) -> None:
    """Whoever cancels all tasks of the loop hits the workers, and they are replaced."""
    await hold(Case(use, Injection.EVERY_TASK, program=uses.with_the_supervisor))


@pytest.mark.parametrize("injection", [Injection.SCOPE, Injection.NATIVE, Injection.SHUTDOWN])
async def test_a_sweep_hits_every_stage(injection: Injection) -> None:
    """Both blocks are hit while they are being left, not their bodies alone."""
    async with open_world("emulator") as world:
        swept = await sweep(world, Case(uses.PLAIN, injection, program=uses.with_the_supervisor))
    assert swept.failures == []
    assert {Stage.ENTERING, Stage.BODY, Stage.LEAVING, Stage.CLOSING} <= set(swept.hits)


@pytest.mark.slow
@pytest.mark.backends(ASYNCIO, UVLOOP)
@pytest.mark.parametrize("program", [uses.alone, uses.with_the_supervisor])
@pytest.mark.parametrize("moment", ["suspended", "resuming"])
@pytest.mark.parametrize("injection", list(Injection))
@pytest.mark.parametrize("use", uses.ALL, ids=str)
async def test_the_full_product(
    use: Use, injection: Injection, moment: Moment, program: Program
) -> None:
    """Each use, each injection, at both ends of each suspension, the supervisor in or around."""
    await hold(Case(use, injection, moment, program))
