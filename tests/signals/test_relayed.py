"""A SIGTERM that our parent passes on is the request that the parent got, not impatience."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.supervisor.face import signals
from sigmic_guard.supervisor.face.signals import SignalHandlers
from tests.signals.run import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TERM, INT = signal.SIGTERM, signal.SIGINT
RULE: Final = {
    "the parent passes it on": (True, [TERM, TERM], False),
    "its parent as well": (True, [TERM, TERM, TERM], False),
    "Ctrl-C, passed on as SIGTERM": (True, [INT, TERM], False),
    "Ctrl-C twice": (True, [INT, INT], True),
    "Ctrl-C after SIGTERM": (True, [TERM, INT], True),
    "passed on, and then Ctrl-C": (True, [TERM, TERM, INT], True),
    "nobody passes anything on": (False, [TERM, TERM], True),
    "nobody, of two kinds": (False, [INT, TERM], True),
    "once": (False, [TERM], False),
}


@contextmanager
def listening(
    stood_before: Callable[[int], object] = lambda _: None,
    received: Callable[[], None] = lambda: None,
) -> Iterator[SignalHandlers]:
    """Listen to the signals of this process, where they would do nothing."""
    before = {
        number: signal.signal(number, lambda number, _: stood_before(number))
        for number in (TERM, INT)
    }
    handlers = SignalHandlers(received)
    try:
        handlers.install()
        yield handlers
    finally:
        handlers.restore()
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("relays, numbers, impatient", RULE.values(), ids=RULE)
def test_who_asks_twice(
    relays: bool,
    numbers: list[signal.Signals],
    impatient: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in a hurry, unless its second signal may be the first one, passed on."""
    monkeypatch.setattr(signals, "_handles", lambda pid, number: relays)
    with listening() as handlers:
        for number in numbers:
            signal.raise_signal(number)
        assert handlers.impatient is impatient


@pytest.mark.parametrize("first, then", [(INT, TERM), (TERM, INT)], ids=["INT", "TERM"])
def test_one_that_interrupts_another(first: signal.Signals, then: signal.Signals) -> None:
    """What stood there before gets both in the order in which they came."""
    seen: list[int] = []

    def interrupted() -> None:
        if not interruptions:
            interruptions.append(then)
            signal.raise_signal(then)

    interruptions: list[int] = []
    with listening(seen.append, interrupted):
        signal.raise_signal(first)
    assert seen == [first, then]


def test_one_that_interrupts_what_stood_there_before() -> None:
    """It may be busy, or block: who is in a hurry is not kept waiting."""
    seen: list[str] = []

    def stood_before(number: int) -> None:
        seen.append(f"begin {number}")
        if number == INT:
            signal.raise_signal(TERM)
        seen.append(f"end {number}")

    with listening(stood_before):
        signal.raise_signal(INT)
    assert seen == ["begin 2", "begin 15", "end 15", "end 2"]


def test_one_that_interrupts_another_whose_handler_raises() -> None:
    """Neither is lost."""
    seen: list[int] = []

    def stood_before(number: int) -> None:
        seen.append(number)
        if len(seen) == 1:
            signal.raise_signal(TERM)
            raise ZeroDivisionError

    with listening(stood_before):
        with pytest.raises(ZeroDivisionError):
            signal.raise_signal(INT)
        assert seen == [INT, TERM]
        signal.raise_signal(TERM)
        assert seen == [INT, TERM, TERM]


def test_a_parent_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had started it may pass signals on, past a parent that the first one has ended."""
    monkeypatch.setattr(signals, "_handles", lambda pid, number: False)
    with listening() as handlers:
        signal.raise_signal(TERM)
        monkeypatch.setattr(os, "getppid", lambda: 1)
        signal.raise_signal(TERM)
        assert not handlers.impatient


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is taken for granted")
def test_who_handles_a_signal() -> None:
    """A process that has a handler, or waits for it; not one that ignores it, or dies of it."""
    number, here = signal.SIGUSR2, os.getpid()
    before = signal.getsignal(number)
    try:
        signal.signal(number, lambda *_: None)
        assert signals._handles(here, number)
        for action in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(number, action)
            assert not signals._handles(here, number)
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        assert signals._handles(here, number)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.signal(number, before)
    assert signals._handles(2**30, number)  # of which nothing can be seen


async def test_a_worker_whose_parent_passes_it_on() -> None:
    """It gets SIGTERM twice in the middle of its drain, which goes on for as long as it needs."""
    async with Emulator(script=Script(hold=True, duration=0.0)) as emulator:
        options = ("--signals", "--handlers", "own", "--background", "3", "--wait", "tasks")
        async with program(emulator, "relays.py", *options) as run:
            await run.ready()
            await emulator.wait_for(lambda state: state["tasks"]["live"] == 3)
            # Longer than is left to a drain in a hurry.
            emulator.fault("delete", Fault("latency", seconds=1.5, times=3))
            os.kill(run.said[0]["worker"], TERM)
            await emulator.wait_for(lambda state: state["deletes_received"] == 3)
            run.kill(TERM)
        assert emulator.live == 0
    assert set(run.end["seen"]) == {"SIGTERM"}
    assert run.end["unconfirmed"] == 0
