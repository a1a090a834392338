"""pytest fixtures: the remote system, a supervisor on it, and a look for what is left running.

In your ``conftest.py``::

    pytest_plugins = ["sigmic_guard.testing.plugin"]

and in your tests::

    @pytest.mark.anyio  # or, with pytest-asyncio, pytest.mark.asyncio
    async def test_a_question_is_answered(sigmic, supervisor, assert_no_orphans):
        sigmic.script("What is 2+2?", duration=0, answer="4")
        assert (await supervisor.run("What is 2+2?")).final_response == "4"

- :func:`sigmic`: a ``FakeSigmic``; :func:`sigmic_options`, to be overridden, has its arguments.
- :func:`sigmic_emulator`: an ``Emulator``, on asyncio.
- :func:`supervisor`: a ``Supervisor`` on ``sigmic``, entered; :func:`supervisor_options`, to be
  overridden, has further arguments.
- :func:`assert_no_orphans`: fails the test if it leaves a task to the supervisor's shutdown.

They need no plugin, but for :func:`supervisor` and :func:`sigmic_emulator`, which need the test's
event loop: anyio's plugin, on asyncio or trio, or pytest-asyncio 1, in strict or auto mode, with
any loop scope. A test that uses ``sigmic`` or ``sigmic_emulator`` fails if a remote task still runs
at its end.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

import pytest

from sigmic_guard.testing import orphans
from sigmic_guard.testing.fake_api import FakeSigmic
from sigmic_guard.testing.supervised import on_asyncio, supervised

try:
    pytest_asyncio: Any = import_module("pytest_asyncio")
except ImportError:
    pytest_asyncio = None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from sigmic_guard.emulator import Emulator
    from sigmic_guard.supervisor import Supervisor

__all__ = [
    "assert_no_orphans",
    "sigmic",
    "sigmic_emulator",
    "sigmic_options",
    "supervisor",
    "supervisor_options",
]

#: The loops of pytest-asyncio that a test may run in.
LOOP_SCOPES: Final = ("function", "class", "module", "package", "session")


# --- the remote system --------------------------------------------------------------------------


@pytest.fixture
def sigmic_options() -> dict[str, Any]:
    """Arguments for the :class:`~sigmic_guard.testing.FakeSigmic` of ``sigmic``: override it."""
    return {}


@pytest.fixture
def sigmic(sigmic_options: dict[str, Any]) -> Iterator[FakeSigmic]:
    """The remote system in memory; no task of it may be live when the test ends.

    It is looked at when the test's event loop may be gone, and its clock with it: a task that
    would have ended by itself since anybody looked last counts as left behind.
    """
    fake = FakeSigmic(**sigmic_options)
    yield fake
    _fail_for_outlived(fake)


@pytest.fixture
def sigmic_emulator(request: pytest.FixtureRequest) -> Emulator:
    """The remote system as a real server on this machine, for the real client; asyncio only.

    No task of it may be live when the test ends.
    """
    emulator: Emulator = _in_the_loop(request, "sigmic_emulator")
    return emulator


# --- the supervisor -----------------------------------------------------------------------------


@pytest.fixture
def supervisor_options() -> dict[str, Any]:
    """Arguments for the :class:`~sigmic_guard.Supervisor` of ``supervisor``: override it.

    With ``base_url`` or ``api_key`` it uses the real client, for example on ``sigmic_emulator``.
    """
    return {}


@pytest.fixture
def supervisor(
    request: pytest.FixtureRequest,
    sigmic: FakeSigmic,  # noqa: ARG001 - the two are here, so that pytest sets them up before
    supervisor_options: dict[str, Any],  # noqa: ARG001
) -> Supervisor:
    """An entered supervisor on ``sigmic``, with a ledger in memory and a registry of its own.

    It shuts down when the test ends, and the test fails if some task's end could not be proven or
    written down then. A test in which that is the point makes a supervisor of its own.
    """
    entered: Supervisor = _in_the_loop(request, "supervisor")
    return entered


@pytest.fixture
def assert_no_orphans(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Fail the test if it leaves a remote task live, or one that ``supervisor`` has to end.

    It is looked for at the end of the test, before the supervisor shuts down, and whenever the
    test calls this: ``assert_no_orphans()``. That looks at what the test uses of ``sigmic``,
    ``sigmic_emulator`` and ``supervisor``, and at what it is given
    (:func:`sigmic_guard.testing.assert_no_orphans`).
    """
    _places(request)
    if _loop_of(request) is not None:
        yield _in_the_loop(request, "assert_no_orphans")
    else:
        with _looking(request) as look:
            yield look


# --- in the event loop of the test --------------------------------------------------------------


@asynccontextmanager
async def _emulator_for(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
    from sigmic_guard.emulator import Emulator  # noqa: PLC0415 - it brings a web server along

    if not on_asyncio():
        pytest.fail(
            f"sigmic_emulator needs asyncio, and {request.node.name} runs on trio: override "
            "anyio_backend to return 'asyncio', or use sigmic",
            pytrace=False,
        )
    async with Emulator() as emulator:
        yield emulator
        _fail_for_outlived(emulator)


@asynccontextmanager
async def _supervisor_for(request: pytest.FixtureRequest) -> AsyncIterator[Supervisor]:
    options: dict[str, Any] = dict(request.getfixturevalue("supervisor_options"))
    if not options.keys() & {"api_key", "base_url"}:
        options.setdefault("client", request.getfixturevalue("sigmic"))
    async with supervised(**options) as entered:
        yield entered
        report = await entered.shutdown()
    if not report.clean or report.unwritten:
        pytest.fail(f"the shutdown of supervisor was not clean: {report}", pytrace=False)


@asynccontextmanager
async def _look_for(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., None]]:
    with _looking(request) as look:
        yield look


@contextmanager
def _looking(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    places = _places(request)

    def look(*more: orphans.Place) -> None:
        __tracebackhide__ = True
        orphans.assert_no_orphans(*places, *more)

    yield look
    if places:
        look()


def _places(request: pytest.FixtureRequest) -> list[Any]:
    names = ("sigmic", "sigmic_emulator", "supervisor")
    return [request.getfixturevalue(name) for name in names if name in request.fixturenames]


def _fail_for_outlived(remote: orphans.Remote) -> None:
    left = orphans.left_at(remote)
    if left:
        pytest.fail(orphans.tell(left, "outlived the test"), pytrace=False)


def _in_the_loop(request: pytest.FixtureRequest, name: str) -> Any:
    """Return what the context manager of this name gives, entered in the event loop of the test."""
    loop = _loop_of(request)
    if loop is None:
        test = request.node.name
        what = f"mark {test}" if _is_async(request) else f"make {test} an `async def`, and mark it"
        pytest.fail(
            f"{name} needs an event loop: {what} with pytest.mark.anyio, or, with pytest-asyncio, "
            "with pytest.mark.asyncio",
            pytrace=False,
        )
    if loop != "anyio" and "anyio_backend" in request.fixturenames:
        pytest.fail(
            f"{name} needs to know whose event loop runs {request.node.name}: it is marked for "
            "anyio's plugin and for pytest-asyncio, by a mark or by the auto mode of one of them",
            pytrace=False,
        )
    return request.getfixturevalue(f"_{name}_in_{loop}")


def _loop_of(request: pytest.FixtureRequest) -> str | None:
    """Tell whose event loop runs the test: a loop scope of pytest-asyncio's, anyio, or none's."""
    if not _is_async(request):
        return None
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and request.config.pluginmanager.has_plugin("asyncio"):
        scope = marker.kwargs.get("loop_scope")
        return scope or str(request.config.getini("asyncio_default_test_loop_scope"))
    return "anyio" if "anyio_backend" in request.fixturenames else None


def _is_async(request: pytest.FixtureRequest) -> bool:
    # Of a test of Hypothesis's it cannot be told: anyio's plugin wraps what is inside.
    return iscoroutinefunction(request.function) or hasattr(request.function, "hypothesis")


def _add_fixtures(
    name: str, manage: Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Any]]
) -> None:
    """Have one fixture for each kind of event loop: who runs it is decided where it is made.

    pytest-asyncio in strict mode takes no fixture but those made with it, each in one loop scope;
    anyio's plugin takes the others.
    """

    def make() -> Callable[[pytest.FixtureRequest], AsyncIterator[Any]]:
        async def fixture(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
            async with manage(request) as entered:
                yield entered

        return fixture

    globals()[f"_{name}_in_anyio"] = pytest.fixture(make())
    for scope in LOOP_SCOPES if pytest_asyncio is not None else ():
        globals()[f"_{name}_in_{scope}"] = pytest_asyncio.fixture(make(), loop_scope=scope)


_add_fixtures("sigmic_emulator", _emulator_for)
_add_fixtures("supervisor", _supervisor_for)
_add_fixtures("assert_no_orphans", _look_for)
