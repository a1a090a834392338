"""Hostile defaults for every test; those that need none of it pay for none of it.

- Async tests need no marker. They run on asyncio; ``tests/backends.py`` tells how to choose.
- A blocking call made by ``sigmic_guard`` while an asyncio loop runs in its thread raises.
- A test on asyncio that leaves tasks or sockets behind fails (``tests/leaks.py``).
- A session that leaves a file in the user's state directory fails (``tests/state_directory.py``).
- A test that goes on after its time-out ends its process (``tests/hangs.py``).
- Warnings are errors (pyproject.toml), those out of ``__del__`` included.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

from tests.backends import ASYNCIO, for_anyio
from tests.families import selection
from tests.hangs import (  # noqa: F401 - hooks of pytest's
    pytest_runtest_call,
    pytest_runtest_teardown,
)
from tests.leaks import no_leaks
from tests.state_directory import pytest_configure  # noqa: F401 - a hook of pytest's
from tests.transports import kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


# No test writes into the state directory of whoever runs it, nor reaps what stands there.
os.environ["SIGMIC_GUARD_LEDGER"] = "memory:"

# No test talks to a stranger: processes need not read the system's certificates, which would take
# a fifth of the time in which they start.
os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull

# A slow machine is no counterexample.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")


#: They start processes, which takes most of their time, and one CPython says as much as three.
ONCE = {"cli", "crash", "crash_reattach", "examples", "schedules", "blackbox", "watchdog"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ONCE & set(item.path.relative_to(item.config.rootpath).parts):
            item.add_marker("once")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without looking for garbage meanwhile: there is hardly any."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_sessionstart(session: pytest.Session) -> None:
    selection.note(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "transport" in metafunc.fixturenames:
        metafunc.parametrize("transport", kinds(), indirect=True)
    if "anyio_backend" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("backends")
        names = marker.args if marker else (ASYNCIO,)
        metafunc.parametrize("anyio_backend", names, indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """What anyio's plugin runs this test on. One test, one loop, and one clock if it is virtual."""
    return for_anyio(request.param)


@pytest.fixture(scope="session", autouse=True)
def blocking_calls_raise() -> Iterator[None]:
    """Raise ``BlockingError`` where our code blocks a running asyncio loop.

    Looks at sleeps, locks, files, sockets and SQLite with a frame of ours anywhere in the stack;
    at nothing in other threads, nor under trio.
    """
    with blockbuster_ctx("sigmic_guard"):
        yield


@pytest.fixture(scope="session", autouse=True)
def imports_are_no_garbage() -> None:
    """Take what is imported by now out of the collections that `leaves_nothing_behind` makes."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check what a test leaves behind, when all its other fixtures are gone."""
    if "anyio_backend" not in request.fixturenames:
        yield
        return
    on_asyncio = request.getfixturevalue("anyio_backend")[0] == "asyncio"
    if on_asyncio and not request.node.get_closest_marker("may_leak"):
        request.getfixturevalue("_no_leaks")
    yield
    # Now, so that pytest blames this test and no later one for coroutines never awaited.
    gc.collect()
    gc.freeze()  # what outlives a test is looked at once


@pytest.fixture
async def _no_leaks(anyio_backend: object) -> AsyncIterator[None]:
    async with no_leaks():
        yield
