"""SIGTERM and SIGINT: every task is cancelled, the exit status is right, the handlers are back."""

from __future__ import annotations

import importlib.util
import itertools
import signal
from typing import TYPE_CHECKING, Literal

import anyio
import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.emulator import Emulator, Fault, Script
from tests.families import slow_if
from tests.signals.run import KEY, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.signals.run import Run

TERM, INT = signal.SIGTERM, signal.SIGINT
RUNNERS = [
    "asyncio",
    "anyio",
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
        ),
    ),
]
#: Obeyed, and never answered: the drain is held, and nothing is left running.
HELD = Fault("black_hole_after")
BODIES = {
    "scoped": ("--scoped", "3"),
    "background": ("--background", "3"),
    "both": ("--scoped", "2", "--background", "2"),
    "idle": (),
}
#: A program that nobody ends has this status; see programs/serve.py.
OWN = 7
#: As Python does: 128 + the number by exit(), or killed by the signal itself.
STATUS = {TERM: 128 + TERM, INT: -INT}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(hold=True, duration=0.0)) as running:
        yield running


def number_of(options: tuple[str, ...]) -> int:
    return sum(int(word) for word in options if word.isdecimal())


async def serve(
    emulator: Emulator, numbers: list[signal.Signals], *options: str, hold: Fault | None = None
) -> Run:
    """Run a program, and send it these signals; from the second on while a DELETE is under way."""
    async with program(emulator, "serve.py", *options) as run:
        await run.ready()
        live = number_of(options)
        await emulator.wait_for(lambda state: state["tasks"]["live"] == live)
        if hold is not None:
            emulator.fault("delete", hold)
        first, *others = numbers
        run.kill(first)
        for number in others:
            await emulator.wait_for(lambda state: state["deletes_received"] >= live)
            run.kill(number)
    assert emulator.state()["created"] == live
    return run


@pytest.mark.parametrize(
    "number, body",
    slow_if(
        lambda number, body: number == INT and body != "both",
        itertools.product([TERM, INT], BODIES),
    ),
)
async def test_one_signal(number: signal.Signals, body: str, emulator: Emulator) -> None:
    """A signal cancels every task of an asyncio program, which then ends as it would have."""
    run = await serve(emulator, [number], "--signals", *BODIES[body])
    assert emulator.live == 0
    assert run.status == STATUS[number]
    assert run.end["restored"]
    assert run.end["back"]
    assert run.end["unconfirmed"] == 0
    assert run.end["seconds"] < 5


@pytest.mark.parametrize("number", slow_if(lambda number: number == INT, [TERM, INT]))
@pytest.mark.parametrize("runner", RUNNERS)
async def test_two_signals(number: signal.Signals, runner: str, emulator: Emulator) -> None:
    """A second signal ends a drain that is held: at once, not after the 20 s it was allowed."""
    options = ("--runner", runner, "--signals", *BODIES["both"])
    run = await serve(emulator, [number, number], *options, hold=HELD)
    assert emulator.live == 0  # they were obeyed, which nobody told the program
    assert run.status == STATUS[number]
    assert run.end["restored"]
    assert run.end["back"]
    assert run.end["unconfirmed"] == 4
    assert run.end["seconds"] < 5


@pytest.mark.parametrize("numbers", [[TERM, INT], [INT, TERM]], ids=["term int", "int term"])
async def test_one_signal_and_another(numbers: list[signal.Signals], emulator: Emulator) -> None:
    """Two signals that differ are a second one too; the program dies of the Ctrl-C."""
    run = await serve(emulator, numbers, "--signals", *BODIES["both"], hold=HELD)
    assert emulator.live == 0
    assert run.status == -INT
    assert run.end["back"]
    assert run.end["seconds"] < 5


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("runner", RUNNERS[1:])
async def test_other_runners(number: signal.Signals, runner: str, emulator: Emulator) -> None:
    """A signal does the same under anyio.run, with asyncio's loop and with uvloop's."""
    run = await serve(emulator, [number], "--runner", runner, "--signals", *BODIES["both"])
    assert emulator.live == 0
    assert run.status == STATUS[number]
    assert run.end["restored"]
    assert run.end["back"]


@pytest.mark.parametrize(
    "numbers",
    slow_if(
        lambda numbers: numbers in ([INT], [TERM, TERM]),
        [[TERM], [INT], [TERM, TERM], [INT, INT]],
    ),
    ids=str,
)
@pytest.mark.parametrize("handlers", ["own", "loop"])
async def test_handlers_of_the_program(
    handlers: str, numbers: list[signal.Signals], emulator: Emulator
) -> None:
    """The program's handler is called once a signal, and how the program ends is its own affair."""
    options = ("--signals", "--handlers", handlers, "--background", "3", "--wait", "tasks")
    run = await serve(emulator, numbers, *options, hold=HELD if numbers[1:] else None)
    assert emulator.live == 0
    assert run.status == OWN
    assert run.end["seen"] == [number.name for number in numbers]
    assert run.end["restored"]
    assert run.end["back"]


@pytest.mark.parametrize("handlers", ["own", "loop"])
async def test_a_shutdown_comes_out_of_the_blocks(handlers: str, emulator: Emulator) -> None:
    """Where the program has handlers of its own, its blocks are what raises SupervisorShutdown."""
    options = ("--signals", "--handlers", handlers, "--scoped", "3", "--wait", "tasks")
    run = await serve(emulator, [TERM], *options)
    assert emulator.live == 0
    assert run.end["raised"] == ["SupervisorShutdown"]
    assert run.end["seen"] == ["SIGTERM"]
    assert run.end["back"]


@pytest.mark.parametrize("number", [TERM, INT])
async def test_a_handler_that_exits(number: signal.Signals, emulator: Emulator) -> None:
    """A handler that calls sys.exit() gets its status, after the tasks are cancelled."""
    run = await serve(emulator, [number], "--signals", "--handlers", "exit", *BODIES["both"])
    assert emulator.live == 0
    assert run.status == 3
    assert run.end["seen"] == [number.name]
    assert run.end["unconfirmed"] == 0
    assert run.end["back"]


@pytest.mark.parametrize("runner", RUNNERS)
async def test_without_signals(runner: str, emulator: Emulator) -> None:
    """Without signals=True no handler is touched; Ctrl-C is a cancellation, as Python has it."""
    run = await serve(emulator, [INT], "--runner", runner, *BODIES["both"])
    assert emulator.live == 0
    assert run.status == -INT
    assert run.end["untouched"]
    assert run.end["raised"] == ["CancelledError"]
    assert run.end["unconfirmed"] == 0


async def test_with_signals_they_are_touched(emulator: Emulator) -> None:
    """Negative control: with signals=True the program does see other handlers inside."""
    run = await serve(emulator, [TERM], "--signals", *BODIES["idle"])
    assert not run.end["untouched"]


async def test_a_default_handler_leaves_tasks(emulator: Emulator) -> None:
    """Negative control: without signals=True SIGTERM ends the process, and its tasks run on."""
    async with program(emulator, "serve.py", *BODIES["both"]) as run:
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 4)
        run.kill(TERM)
    assert run.status == -TERM
    assert emulator.live == 4


async def test_a_worker_that_is_interrupted(emulator: Emulator) -> None:
    """A KeyboardInterrupt that hits a worker ends the program, not before the tasks."""
    async with program(emulator, "interrupted.py") as run:
        pass
    assert emulator.live == 0
    assert run.status == -INT
    assert run.end["created"] == emulator.state()["created"] == 3


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    "way", slow_if(lambda way: way == "callback", ["handler", "thread", "callback"])
)
async def test_request_shutdown(way: str, runner: str, emulator: Emulator) -> None:
    """request_shutdown() wakes an idle loop from a handler, a thread or a callback."""
    async with program(emulator, "asks.py", "--runner", runner, "--way", way) as run:
        await run.ready()
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 3)
        run.kill(signal.SIGUSR1)
    assert emulator.live == 0
    assert run.status == 0
    assert run.end == {
        "event": "end",
        "way": way,
        "outcomes": ["cancelled"] * 3,
        "reasons": ["shutdown"] * 3,
        "unconfirmed": 0,
        "refused": True,
    }


@pytest.mark.parametrize("number", slow_if(lambda number: number == INT, [TERM, INT]))
@pytest.mark.parametrize("runner", RUNNERS)
async def test_auto_dies_by_the_signal(
    number: signal.Signals, runner: str, emulator: Emulator
) -> None:
    """With signals="auto" a process that SIGTERM would have killed dies of it, after the drain."""
    options = ("--runner", runner, "--signals", "auto", *BODIES["both"])
    run = await serve(emulator, [number], *options)
    assert emulator.live == 0
    assert run.status == -number
    if number == INT:  # Python's own handler raises, and the body is told by that
        assert run.end["back"]
    else:
        assert [line["event"] for line in run.said] == ["ready"]  # nothing came through the body


@pytest.mark.parametrize("handlers", ["own", "loop"])
async def test_auto_with_handlers_of_the_program(handlers: str, emulator: Emulator) -> None:
    """With signals="auto" the program's handler decides how it ends; the tasks are cancelled."""
    options = ("--signals", "auto", "--handlers", handlers, "--background", "3", "--wait", "tasks")
    run = await serve(emulator, [TERM], *options)
    assert emulator.live == 0
    assert run.status == OWN
    assert run.end["seen"] == ["SIGTERM"]
    assert run.end["restored"]


@pytest.mark.parametrize("signals", [("--signals",), ("--signals", "auto")], ids=["true", "auto"])
async def test_what_is_ignored_is_left_alone(signals: tuple[str, ...], emulator: Emulator) -> None:
    """A signal that was ignored, as SIGINT by a shell's background job, stays so."""
    options = ("--handlers", "ignore", "--background", "3")
    async with program(emulator, "serve.py", *signals, *options) as run:
        await run.ready()
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 3)
        run.kill(TERM)
        run.kill(INT)
        run.kill(signal.SIGUSR1)  # which it does not handle
    assert run.status == -signal.SIGUSR1
    assert emulator.live == 3
    assert emulator.state()["deletes_received"] == 0


@pytest.mark.parametrize("signals", [True, "auto"])
async def test_off_the_main_thread(
    signals: bool | Literal["auto"], emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Python lets nobody handle signals none are; signals=True says so in the log."""

    async def enter() -> None:
        async with Supervisor(
            api_key=KEY, base_url=emulator.url, signals=signals, registry=CollectorRegistry()
        ) as supervisor:
            await supervisor.start("m")

    before = [signal.getsignal(number) for number in (TERM, INT)]
    await anyio.to_thread.run_sync(anyio.run, enter)
    assert [signal.getsignal(number) for number in (TERM, INT)] == before
    assert emulator.live == 0
    assert ("signals.unavailable" in caplog.text) is (signals is True)


@pytest.mark.parametrize("closed", ["the older", "both"])
async def test_supervisors_that_close_in_the_other_order(closed: str, emulator: Emulator) -> None:
    """Two supervisors, the older one closed first: SIGTERM drains what is open, and ends it all."""
    async with program(emulator, "rotation.py", "--closed", closed) as run:
        await run.ready()
        run.kill(TERM)
    assert emulator.live == 0
    assert run.status == (128 + TERM if closed == "the older" else -TERM)


@pytest.mark.parametrize("signals", ["true", "auto"])
async def test_a_signal_to_a_forked_child(signals: str, emulator: Emulator) -> None:
    """A forked child dies of its SIGTERM, and its parent neither notices nor cancels anything."""
    async with program(emulator, "forks.py", "--signals", signals) as run:
        pass
    assert run.status == 0
    assert run.end["child"] == -TERM
    assert run.end["state"] == "running"
    assert run.end["deletes before the end"] == 0
    assert emulator.live == 0
