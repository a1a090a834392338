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
    from collections.abc import Iterator

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
def listening() -> Iterator[SignalHandlers]:
    """Listen to the signals of this process, where they would do nothing."""
    before = {number: signal.signal(number, lambda *_: None) for number in (TERM, INT)}
    handlers = SignalHandlers(lambda: None)
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
