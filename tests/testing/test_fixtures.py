"""The fixtures that need the test's event loop, under each plugin that may run it."""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

pytest_plugins = ["pytester"]


class Host(NamedTuple):
    """Who runs the tests of a suite, and on how many backends each."""

    ini: str
    mark: str
    args: tuple[str, ...]
    runs: int = 1


NO_ASYNCIO: Final = ("-p", "no:asyncio")
HOSTS: Final = {
    "anyio": Host("", "anyio", NO_ASYNCIO, runs=2),
    "anyio, auto": Host("anyio_mode = auto", "filterwarnings('error')", NO_ASYNCIO, runs=2),
    "anyio beside pytest-asyncio": Host("", "anyio", (), runs=2),
    "pytest-asyncio, strict": Host("asyncio_mode = strict", "asyncio", ()),
    "pytest-asyncio, auto": Host("asyncio_mode = auto", "filterwarnings('error')", ()),
    "pytest-asyncio, module's loop": Host("", "asyncio(loop_scope='module')", ()),
    "pytest-asyncio, session's loop": Host(
        "asyncio_default_test_loop_scope = session", "asyncio", ()
    ),
}
ASYNCIO_ONLY: Final = {name: host for name, host in HOSTS.items() if host.runs == 1}
FORGETS: Final = """
async def test_forgets(supervisor, assert_no_orphans):
    done = await supervisor.start("ended")
    await done.cancel()
    await supervisor.start("forgotten")
"""


#: The others are of the same plugin, and differ in the scope of its loop.
QUICK: Final = {"anyio", "anyio, auto", "pytest-asyncio, strict", "pytest-asyncio, auto"}


@pytest.fixture(
    params=[
        pytest.param(host, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, host in HOSTS.items()
    ]
)
def host(request: pytest.FixtureRequest) -> Host:
    found: Host = request.param
    return found


def run(pytester: pytest.Pytester, host: Host, source: str) -> pytest.RunResult:
    """Run a user's suite, all of whose async tests the host runs."""
    pytester.makeconftest('pytest_plugins = ["sigmic_guard.testing.plugin"]')
    known = "" if host.args == NO_ASYNCIO else "asyncio_default_fixture_loop_scope = function"
    pytester.makeini(f"[pytest]\nfilterwarnings = error\n{known}\n{host.ini}")
    pytester.makepyfile(f"import pytest\npytestmark = pytest.mark.{host.mark}\n{source}")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *host.args)


def test_a_test_is_given_a_supervisor_that_works(pytester: pytest.Pytester, host: Host) -> None:
    """It is open, on the test's own fake, and a new one in the next test; it ends what is left."""
    result = run(
        pytester,
        host,
        """
from sigmic_guard import Supervisor
seen = []

@pytest.fixture
def service(supervisor): return supervisor

@pytest.mark.parametrize("number", [1, 2])
async def test_one(sigmic, service, supervisor, number):
    assert service is supervisor and supervisor not in seen
    seen.append(supervisor)
    assert not sigmic.requests
    sigmic.script("quick", duration=0, answer="42")
    assert (await supervisor.run("quick")).final_response == "42"
    async with supervisor.task("slow"):
        assert len(sigmic.live) == 1
    await supervisor.start("left to the shutdown")
""",
    )
    result.assert_outcomes(passed=2 * host.runs)


def test_what_a_test_leaves_to_the_shutdown_fails_it(pytester: pytest.Pytester, host: Host) -> None:
    """The task is named, once, and one that the test ended is not."""
    result = run(pytester, host, FORGETS)
    result.assert_outcomes(passed=host.runs, errors=host.runs)
    result.stdout.fnmatch_lines(
        ["*AssertionError: 1 remote task left unfinished:*", "*<Task *02 running: 'forgotten'>*"]
    )
    result.stdout.no_fnmatch_line("*'ended'*")


def test_without_the_look_the_shutdown_ends_it_in_silence(
    pytester: pytest.Pytester, host: Host
) -> None:
    """Negative control: it is the fixture that finds it."""
    result = run(pytester, host, FORGETS.replace(", assert_no_orphans", ""))
    result.assert_outcomes(passed=host.runs)


def test_a_test_may_look_in_its_middle(pytester: pytest.Pytester, host: Host) -> None:
    """The call raises while a task runs, and no more as soon as it is ended, however it was."""
    result = run(
        pytester,
        host,
        """
from sigmic_guard.testing import FakeSigmic

async def test_one(sigmic, supervisor, assert_no_orphans):
    sigmic.script("quick", duration=0)
    assert_no_orphans()
    await supervisor.run("quick")
    assert_no_orphans()
    async with supervisor.task("slow"):
        with pytest.raises(AssertionError, match="running: 'slow'"):
            assert_no_orphans()
    assert_no_orphans()
    other = FakeSigmic()
    other.add("elsewhere")
    with pytest.raises(AssertionError, match="running: 'elsewhere'"):
        assert_no_orphans(other)
""",
    )
    result.assert_outcomes(passed=host.runs)


def test_an_unclean_shutdown_fails_the_test(pytester: pytest.Pytester, host: Host) -> None:
    """What it could not prove is told, beside the task that runs on."""
    result = run(
        pytester,
        host,
        """
from sigmic_guard.testing import HANG

@pytest.fixture
def supervisor_options(): return {"grace": 0.01}

async def test_one(sigmic, supervisor):
    await supervisor.start("undead")
    sigmic.always("delete", HANG)
""",
    )
    result.assert_outcomes(passed=host.runs, errors=host.runs)
    result.stdout.fnmatch_lines(["*the shutdown of supervisor was not clean: ShutdownReport(*"])
    result.stdout.fnmatch_lines(["*1 remote task outlived the test:*"])


def test_hypothesis_may_drive_the_test(pytester: pytest.Pytester, host: Host) -> None:
    """On each backend; all its examples have the one supervisor."""
    result = run(
        pytester,
        host,
        """
from hypothesis import HealthCheck, given, settings, strategies as st

@settings(max_examples=3, suppress_health_check=list(HealthCheck), deadline=None, database=None)
@given(number=st.integers())
async def test_one(supervisor, assert_no_orphans, number):
    async with supervisor.task("slow"): pass
""",
    )
    result.assert_outcomes(passed=host.runs)


@pytest.mark.parametrize("host", ASYNCIO_ONLY.values(), ids=ASYNCIO_ONLY)
def test_the_supervisor_may_have_the_real_client(pytester: pytest.Pytester, host: Host) -> None:
    """Options that say where the API is are instead of the fake; the emulator is looked at too."""
    result = run(
        pytester,
        host,
        """
from sigmic_guard.emulator import Script

@pytest.fixture
def supervisor_options(sigmic_emulator):
    return {"base_url": sigmic_emulator.url, "api_key": "sigmic_test"}

async def test_one(supervisor, sigmic_emulator, assert_no_orphans):
    sigmic_emulator.set_script(Script(hold=True))
    async with supervisor.task("slow"):
        with pytest.raises(AssertionError, match="'slow'"):
            assert_no_orphans()
    assert_no_orphans()

async def test_two(supervisor, sigmic_emulator, assert_no_orphans):
    sigmic_emulator.set_script(Script(hold=True))
    await supervisor.start("forgotten")
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*1 remote task left*", "*'forgotten'>*"])


@pytest.mark.parametrize("name", ["supervisor", "sigmic_emulator"])
def test_a_sync_test_is_told_what_it_lacks(
    pytester: pytest.Pytester, host: Host, name: str
) -> None:
    """One sentence, and no traceback."""
    if "asyncio" in host.mark:  # pytest-asyncio warns of such a mark by itself
        host = host._replace(mark="filterwarnings('error')")
    result = run(pytester, host, f"def test_plain({name}): pass")
    result.assert_outcomes(errors=1)
    told = (
        f"{name} needs an event loop: make test_plain an `async def`, and mark it with "
        "pytest.mark.anyio, or, with pytest-asyncio, with pytest.mark.asyncio"
    )
    result.stdout.fnmatch_lines([told])


@pytest.mark.parametrize("args", [(), NO_ASYNCIO], ids=["both plugins", "anyio's"])
def test_a_test_without_a_mark_is_told_which(
    pytester: pytest.Pytester, args: tuple[str, ...]
) -> None:
    """Where no plugin takes every async test."""
    host = Host("", "filterwarnings('error')", args)
    result = run(pytester, host, "async def test_bare(supervisor): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["supervisor needs an event loop: mark test_bare with pytest.*"])


@pytest.mark.parametrize(
    "host", [Host("asyncio_mode = auto", "anyio", ()), Host("anyio_mode = auto", "asyncio", ())]
)
def test_a_test_that_two_plugins_run_is_told_so(pytester: pytest.Pytester, host: Host) -> None:
    """They would make its fixtures in one loop, and run it in another."""
    result = run(pytester, host, "async def test_both(supervisor): pass")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "passed" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(["supervisor needs to know whose event loop runs test_both*"])


def test_the_emulator_says_that_it_needs_asyncio(pytester: pytest.Pytester) -> None:
    """A test that runs on trio as well fails there only."""
    host = HOSTS["anyio"]
    result = run(pytester, host, "async def test_one(sigmic_emulator): pass")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["sigmic_emulator needs asyncio, and test_one?trio? runs on trio*"])


def test_each_test_of_a_mixed_module_has_its_own_host(pytester: pytest.Pytester) -> None:
    """Beside each other: one for anyio's plugin, on two backends, and one for pytest-asyncio."""
    result = run(
        pytester,
        Host("", "filterwarnings('error')", ()),
        """
@pytest.mark.anyio
async def test_of_anyio(supervisor): await supervisor.start("x")
@pytest.mark.asyncio
async def test_of_asyncio(supervisor): await supervisor.start("x")
def test_plain(sigmic, assert_no_orphans): assert_no_orphans()
""",
    )
    result.assert_outcomes(passed=4)


def test_a_sync_test_may_look(pytester: pytest.Pytester) -> None:
    """No loop is needed for the fake, nor for a ledger's file."""
    result = run(
        pytester,
        HOSTS["anyio"],
        """
import anyio
from sigmic_guard import Supervisor

@pytest.mark.parametrize("end", ["cancel", "detach"])
def test_one(sigmic, assert_no_orphans, tmp_path, end):
    async def program():
        async with Supervisor(client=sigmic, ledger=tmp_path / "db", registry=None) as supervisor:
            await supervisor.start("job", on_shutdown=end)
    anyio.run(program)
    assert_no_orphans(tmp_path / "db") if end == "cancel" else None
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_one?detach?*", "*running: 'job'>*"])


@pytest.mark.parametrize("name", ["pytest-asyncio, strict", "pytest-asyncio, auto"])
@pytest.mark.parametrize("maker", ["supervised", "Supervisor"])
def test_a_fixture_of_ones_own(pytester: pytest.Pytester, name: str, maker: str) -> None:
    """It begins and ends in two tasks, and works."""
    result = run(
        pytester,
        HOSTS[name],
        f"""
import pytest_asyncio
from sigmic_guard import Supervisor
from sigmic_guard.testing import supervised

@pytest_asyncio.fixture
async def service(sigmic):
    async with {maker}(client=sigmic, ledger="memory:", registry=None) as supervisor:
        yield supervisor

async def test_one(service):
    await service.start("x")
""",
    )
    result.assert_outcomes(passed=1)
