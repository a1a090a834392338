"""A time-out strikes a test once; what hangs after that ends the test process.

pytest-timeout raises in the event loop, where the test does not get it: it goes on waiting in its
runner, and the fixtures that are to end after it wait for that. Nothing would end them.
"""

from __future__ import annotations

import faulthandler
import os
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that the fixtures of a test may take to end.
TEARDOWN_TIMEOUT = 60.0

#: Where tracebacks go: pytest puts a file in the place of standard error.
_STDERR: Final = os.dup(2)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Write where each thread stands, and exit: pytest-xdist then names the test."""
    faulthandler.dump_traceback_later(TEARDOWN_TIMEOUT, file=_STDERR, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
