"""``serve``: a whole program ends with the right status, and leaves no task."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard import ConfigurationError, Supervisor, serve
from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.testing import FakeSigmic
from tests.signals.run import program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(hold=True, duration=0.0)) as running:
        yield running


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_ends_it(emulator: Emulator, number: signal.Signals, status: int) -> None:
    """Its body is cancelled, its tasks are ended, and it says nothing about it."""
    async with program(emulator, "whole.py", "forever") as run:
        await run.ready()
        run.kill(number)
    assert run.status == status
    assert emulator.live == 0
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_it_at_once(
    emulator: Emulator, number: signal.Signals, status: int
) -> None:
    """The drain is held, and what is left of grace is half a second."""
    async with program(emulator, "whole.py", "forever") as run:
        await run.ready()
        emulator.fault("delete", Fault("black_hole_after"))
        run.kill(number)
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        run.kill(number)
    assert run.status == status
    assert "Traceback" not in run.stderr


async def test_what_it_raises_ends_it(emulator: Emulator) -> None:
    """The status is 1, the traceback shows the bug, and no task is left."""
    async with program(emulator, "whole.py", "raise"):
        pass
    async with program(emulator, "whole.py", "raise") as run:
        await run.ready()
    assert run.status == 1
    assert run.stderr.rstrip().endswith("ValueError: a bug")
    assert emulator.live == 0


async def test_what_it_returns_is_returned(emulator: Emulator) -> None:
    """Its tasks are ended as at the end of any supervisor."""
    async with program(emulator, "whole.py", "return") as run:
        await run.ready()
    assert run.status == 5
    assert emulator.live == 0


def options(fake: FakeSigmic) -> dict[str, Any]:
    return {"client": fake, "ledger": "memory:", "registry": None}


def test_it_takes_what_a_supervisor_takes() -> None:
    """It runs where there is no event loop, and gives back what came out."""
    fake = FakeSigmic(duration=0.0, answer="4")

    async def main(supervisor: Supervisor) -> str | None:
        return (await supervisor.run("What is 2+2?")).final_response

    assert serve(main, **options(fake)) == "4"


def test_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def main(_: Supervisor) -> bool:
        return signal.getsignal(signal.SIGTERM) != before[0]

    assert serve(main, **options(FakeSigmic()))
    assert not serve(main, signals=False, **options(FakeSigmic()))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_cannot_be_served_raises_at_once() -> None:
    async def main(_: Supervisor) -> None: ...

    not_a_function: Any = None
    with pytest.raises(ConfigurationError, match="main must be an async function"):
        serve(not_a_function)
    with pytest.raises(ConfigurationError, match="grace"):
        serve(main, grace=-1, **options(FakeSigmic()))
