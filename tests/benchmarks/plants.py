"""Mistakes that the benchmarks have to find: each is planted in a contestant's process."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import anyio

from sigmic_guard import Supervisor
from sigmic_guard.supervisor.ground.roster import Roster
from sigmic_guard.supervisor.ground.timer import Timer
from sigmic_guard.supervisor.work.canceller import Canceller


def sleep_in_the_canceller() -> None:
    """Each DELETE waits for a third of a second before it is sent."""
    delete = Canceller._delete

    async def slow(self: Canceller, *args: Any, **options: Any) -> Any:
        await anyio.sleep(0.33)
        return await delete(self, *args, **options)

    Canceller._delete = slow  # type: ignore[method-assign]


def quadratic_sweep() -> None:
    """Each alarm looks at all that are set."""
    at = Timer.at

    def looking(self: Timer, when: float, call: Any, *args: Any) -> Any:
        def late(*args: Any) -> None:
            assert sum(alarm[0] >= 0 for alarm in self._heap) >= 0
            call(*args)

        return at(self, when, late, *args)

    Timer.at = looking  # type: ignore[method-assign]


def collector_pause() -> None:
    """A whole collection is made now and again, of a process that keeps a lot."""
    kept = [[index] for index in range(1_500_000)]
    apply, count = Roster.apply, 0

    def collecting(self: Roster, *args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count % 5000 == 0 and kept:
            gc.collect()
        return apply(self, *args, **options)

    Roster.apply = collecting  # type: ignore[method-assign]


def write_at_home() -> None:
    """Whoever enters a supervisor leaves a file at home."""
    enter = Supervisor.__aenter__

    async def writing(self: Supervisor) -> Supervisor:
        (Path.home() / "left").write_text("x")
        return await enter(self)

    Supervisor.__aenter__ = writing  # type: ignore[method-assign, assignment]


def write_elsewhere() -> None:
    """Whoever enters a supervisor writes to a file that is neither at home nor left there."""
    enter = Supervisor.__aenter__

    async def writing(self: Supervisor) -> Supervisor:
        elsewhere = Path(f"/tmp/left-{time.time_ns()}")
        elsewhere.write_text("x")
        elsewhere.unlink()
        return await enter(self)

    Supervisor.__aenter__ = writing  # type: ignore[method-assign, assignment]


def forgotten_delete() -> None:
    """The client takes every tenth DELETE for done, and sends nothing."""
    from sigmic_guard.sigmic import SigmicClient

    delete, count = SigmicClient.delete, 0

    async def forgetful(self: SigmicClient, *args: Any, **options: Any) -> bool:
        nonlocal count
        count += 1
        return True if count % 10 == 0 else await delete(self, *args, **options)

    SigmicClient.delete = forgetful  # type: ignore[method-assign]


def delete_twice() -> None:
    """The client sends every tenth DELETE twice."""
    from sigmic_guard.sigmic import SigmicClient

    delete, count = SigmicClient.delete, 0

    async def eager(self: SigmicClient, *args: Any, **options: Any) -> bool:
        nonlocal count
        count += 1
        if count % 10 == 0:
            await delete(self, *args, **options)
        return await delete(self, *args, **options)

    SigmicClient.delete = eager  # type: ignore[method-assign]
