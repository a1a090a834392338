"""The test harness itself: what it promises to catch, it catches."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import hypothesis
import hypothesis.strategies as st
import pytest
import trio
from blockbuster import BlockingError

import sigmic_guard
from tests.backends import ASYNCIO, TRIO, TRIO_VIRTUAL, UVLOOP
from tests.leaks import no_leaks


async def test_asyncio_is_the_default(anyio_backend_name: str) -> None:
    assert anyio_backend_name == "asyncio"
    assert anyio.get_cancelled_exc_class() is asyncio.CancelledError


@pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL, TRIO)
async def test_a_test_runs_on_each_backend_it_names(request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    if name.startswith("trio"):
        assert anyio.get_cancelled_exc_class() is trio.Cancelled
    else:
        assert type(asyncio.get_running_loop()).__module__.startswith(name)


@pytest.mark.backends(TRIO_VIRTUAL)
@pytest.mark.parametrize("run", [1, 2])
async def test_virtual_time_starts_anew_and_jumps(run: int) -> None:
    began, virtual = time.monotonic(), anyio.current_time()
    await anyio.sleep(3600)
    assert anyio.current_time() == pytest.approx(3600 + virtual)
    assert virtual < 1
    assert time.monotonic() - began < 60


@pytest.fixture
async def opened_in_the_loop() -> object:
    return anyio.Event()  # raises outside of a loop


@pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL)
async def test_async_fixtures_share_the_loop(opened_in_the_loop: anyio.Event) -> None:
    opened_in_the_loop.set()
    await opened_in_the_loop.wait()


@pytest.mark.backends(ASYNCIO, UVLOOP, TRIO_VIRTUAL)
@hypothesis.given(number=st.integers())
async def test_hypothesis_drives_async_tests(number: int) -> None:
    await anyio.sleep(0.001)
    assert number == int(str(number))


def code_of_ours(source: str) -> dict[str, object]:
    """Run source that claims to be a file of the package."""
    folder = Path(sigmic_guard.__path__[0])
    namespace: dict[str, object] = {}
    exec(compile(source, str(folder / "made_up.py"), "exec"), namespace)
    return namespace


async def test_blocking_calls_of_ours_raise() -> None:
    with pytest.raises(BlockingError, match="sleep"):
        code_of_ours("import time; time.sleep(0)")


async def test_blocking_calls_of_tests_do_not() -> None:
    time.sleep(0)


async def test_our_output_is_not_a_blocking_call() -> None:
    code_of_ours("import sys; print('out'); print('err', file=sys.stderr, flush=True)")


def test_outside_of_a_loop_our_code_may_block() -> None:
    code_of_ours("import time; time.sleep(0)")


async def test_a_task_left_behind_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.leaks.MAX_ROUNDS", 1)
    with pytest.raises(pytest.fail.Exception, match="sleep_forever"):
        async with no_leaks():
            task = asyncio.create_task(anyio.sleep_forever())
    task.cancel()


async def test_a_socket_left_behind_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.leaks.MAX_ROUNDS", 1)
    with pytest.raises(pytest.fail.Exception, match=r"socket\.socket"):
        async with no_leaks():
            listener = socket.create_server(("127.0.0.1", 0))
    listener.close()


@pytest.mark.may_leak("the outer check sees the complaint as well")
async def test_an_exception_that_nobody_retrieves_fails_the_test() -> None:
    with pytest.raises(pytest.fail.Exception, match="never retrieved"):
        async with no_leaks():
            asyncio.get_running_loop().default_exception_handler(
                {"message": "Task exception was never retrieved"}
            )


async def test_a_task_that_ends_a_little_later_is_no_leak() -> None:
    async with no_leaks():
        task = asyncio.create_task(anyio.sleep_forever())
        await anyio.sleep(0)
        task.cancel()


HANGS = """
import anyio, pytest, tests.hangs

tests.hangs.PATIENCE = 1.0
"""
FIXTURE = """
@pytest.fixture
async def fixture(anyio_backend):
    yield
    await anyio.sleep_forever()

async def test_it(fixture):
    await anyio.sleep_forever()
"""
CALL = """
def test_it():
    while True:
        try:
            anyio.run(anyio.sleep_forever)
        except BaseException:
            pass
"""


@pytest.mark.parametrize("source", [FIXTURE, CALL], ids=["fixture", "call"])
def test_what_hangs_after_its_time_out_ends_its_process(tmp_path: Path, source: str) -> None:
    """Without it this would wait for ever: the control is the time-out of this test."""
    (tmp_path / "test_hangs.py").write_text(HANGS + source)
    run = subprocess.run(
        (
            *(sys.executable, "-m", "pytest", "-p", "tests.hangs", "-p", "no:cacheprovider"),
            *("-o", "anyio_mode=auto", "-p", "no:asyncio", "--timeout", "0.5", tmp_path),
        ),
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "Timeout (0:00:01" in run.stderr
