"""A time-out strikes a test once; what hangs after that ends the test process.

pytest-timeout raises wherever the main thread is: in an event loop, or in trio's own workings. The
test may not get it, and goes on waiting; so may the fixtures that are to end after it, or the loop
may be broken for good. Nothing would end them.
"""

from __future__ import annotations

import faulthandler
import os
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that a test may take beyond its time-out, and that its fixtures may take to end.
PATIENCE = 60.0

#: Where tracebacks go: pytest puts a file in the place of standard error.
_STDERR: Final = os.dup(2)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Write where each thread stands, and exit: pytest-xdist then names the test."""
    yield from _bounded(_timeout(item) + PATIENCE)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Do the same."""
    yield from _bounded(PATIENCE)


def _bounded(seconds: float) -> Iterator[None]:
    faulthandler.dump_traceback_later(seconds, file=_STDERR, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _timeout(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0])
    return float(item.config.getoption("timeout") or item.config.getini("timeout"))
