"""The helper as its parent has it: what it is given, how it ends, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import warnings
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import anyio
import msgspec
import pytest
from anyio import to_thread
from prometheus_client import CollectorRegistry

import sigmic_guard.supervisor.face.session as room
from sigmic_guard import ConfigurationError, Supervisor
from sigmic_guard.emulator import Fault
from sigmic_guard.ledger import MemoryLedger, SqliteLedger, open_ledger
from sigmic_guard.testing import FakeSigmic
from sigmic_guard.watchdog import helper, messages, parent, process
from tests.backends import ASYNCIO, UVLOOP_SLOWLY
from tests.open_files import open_files
from tests.watchdog.stage import KEY, Stage, end, gone, lives, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP_SLOWLY)

#: Seconds that letting a helper go may take, on a machine that has other things to do. A helper
#: that was waited for would take ``REAP_TIMEOUT``.
SOON = 10.0


class Starts:
    """Every helper that was started, as it comes; ``command`` replaces what it runs."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[int] = SimpleQueue()
        self.pids: list[int] = []
        self.command: list[str] | None = None
        self.error: Exception | None = None
        #: Each waits for it, if there is one.
        self.gate: threading.Event | None = None
        self.waits = threading.Event()

    def __call__(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if self.gate is not None:
            self.waits.set()
            self.gate.wait()
        if self.error is not None:
            raise self.error
        process = subprocess.Popen(self.command or command, **options)
        self.pids.append(process.pid)
        self.queue.put(process.pid)
        return process

    async def next(self) -> int:
        """Wait for the next one's pid."""
        return await to_thread.run_sync(lambda: self.queue.get(timeout=20))


@pytest.fixture
def starts() -> Iterator[Starts]:
    """None of them outlives the test."""
    starts = Starts()
    with patch.object(process, "Popen", starts):
        yield starts
    end(*starts.pids)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the argument names a credential."""
    for name in [name for name in os.environ if name.startswith("SIGMIC_")]:
        monkeypatch.delenv(name)


def supervised(stage: Stage, **options: Any) -> Supervisor:
    return Supervisor(
        **{
            "api_key": KEY,
            "base_url": stage.emulator.url,
            "ledger": stage.ledger,
            "registry": CollectorRegistry(),
            "watchdog": True,
            **options,
        }
    )


def read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


# --- what it is given ---------------------------------------------------------------------------


async def test_the_key_goes_through_the_pipe_alone(
    stage: Stage, starts: Starts, no_key: None
) -> None:
    """Neither the list of processes nor the environment shows the helper's credential."""
    async with supervised(stage) as supervisor:
        pid = await starts.next()
        with anyio.fail_after(20):
            while "sigmic_guard.watchdog.helper" not in read(pid, "cmdline"):
                await anyio.sleep(0.01)  # the kernel fills it in while the program is loaded
        assert KEY[7:] not in read(pid, "cmdline")
        assert KEY[7:] not in read(pid, "environ")
        parents = supervisor._session.parts.watchdog
        assert isinstance(parents, parent.Watchdog)
        for shown in (supervisor, parents, parents._thread, *process.helpers):
            assert KEY[7:] not in repr(vars(shown))


async def test_what_a_helper_inherits(stage: Stage, starts: Starts) -> None:
    """No descriptor but the three, the root folder, a session of its own, and no signal."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        async with supervised(stage):
            pid = await starts.next()
            files = open_files(pid=pid)
            assert str(Path(f"/proc/self/fd/{writing}").readlink()) not in files
            assert sum(file.startswith("pipe:") for file in files) == 1
            assert sum(file == os.devnull for file in files) >= 2
            assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/"
            assert os.getsid(pid) == os.getpgid(pid) == pid
            [blocked] = [line for line in read(pid, "status").splitlines() if "SigBlk" in line]
            mask = int(blocked.split()[1], 16)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                assert mask >> (number - 1) & 1
    finally:
        os.close(reading)
        os.close(writing)


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [False, True], ids=["", "stopped"])
async def test_a_clean_end(
    stage: Stage, starts: Starts, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a drain that proved everything the helper is gone at once, whatever state it is in."""
    monkeypatch.setattr(parent, "EXIT_TIMEOUT", 3 * SOON)
    async with supervised(stage) as supervisor:
        pid = await starts.next()
        await supervisor.start("hello")
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        report = await supervisor.shutdown()
        since = time.monotonic()
    assert time.monotonic() - since < SOON
    assert report.clean
    assert state_of(pid) == ""  # and has been waited for
    assert stage.emulator.count(route="delete") == 1


async def test_a_helper_that_nobody_can_end(stage: Stage, starts: Starts) -> None:
    """A helper that hears nothing, and that we may not kill any more, is left behind in time."""
    async with supervised(stage) as supervisor:
        pid = await starts.next()
        os.kill(pid, signal.SIGSTOP)
        await supervisor.shutdown()
        since = time.monotonic()
        refused = patch.object(subprocess.Popen, "kill", side_effect=PermissionError)
        refused.start()
    refused.stop()
    assert time.monotonic() - since < parent.EXIT_TIMEOUT + SOON
    assert lives(pid)
    os.kill(pid, signal.SIGCONT)
    await gone(pid)  # it had been told
    assert stage.emulator.count(route="delete") == 0


async def test_cancellations_of_the_end(stage: Stage, starts: Starts) -> None:
    """A native cancellation while the helper is let go leaves none behind."""
    closing = anyio.Event()
    close = parent.Watchdog.close

    async def told(self: parent.Watchdog, *, clean: bool) -> None:
        closing.set()
        await close(self, clean=clean)

    async def live() -> None:
        async with supervised(stage):
            os.kill(await starts.next(), signal.SIGSTOP)

    with (
        patch.object(parent.Watchdog, "close", told),
        patch.object(subprocess.Popen, "kill", side_effect=PermissionError),
    ):
        task = asyncio.get_running_loop().create_task(live())
        await closing.wait()
        since = time.monotonic()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert parent.EXIT_TIMEOUT / 2 < time.monotonic() - since < parent.EXIT_TIMEOUT + SOON
    [pid] = starts.pids
    os.kill(pid, signal.SIGCONT)
    await gone(pid)


async def test_a_cancellation_of_the_start(stage: Stage, starts: Starts) -> None:
    """A helper whose start nobody waits for any more is ended as soon as it has begun."""
    starts.gate = threading.Event()
    supervisor = supervised(stage)

    async def live() -> None:
        async with supervisor:
            raise AssertionError

    task = asyncio.get_running_loop().create_task(live())
    await to_thread.run_sync(starts.waits.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    starts.gate.set()
    await gone(await starts.next())
    assert stage.emulator.count() == 0


async def test_an_end_that_is_not_proven(stage: Stage, starts: Starts) -> None:
    """What a drain could not prove the helper pursues, while we are gone, or live on."""
    stage.emulator.fault("delete", Fault("status", status=503))
    async with supervised(stage, grace=0.3) as supervisor:
        pid = await starts.next()
        await supervisor.start("hello")
        report = await supervisor.shutdown()
        assert not report.clean
        since = time.monotonic()
    assert time.monotonic() - since < SOON
    assert stage.emulator.live == 1
    stage.emulator.clear_faults()
    await stage.ended(1)
    await gone(pid)


async def test_a_pipe_that_is_closed_while_its_owner_lives(stage: Stage, starts: Starts) -> None:
    """A helper that hears the end of its input looks who is dead, and touches nothing of ours."""
    async with supervised(stage) as supervisor:
        pid = await starts.next()
        await supervisor.start("hello")
        [helper] = process.helpers
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_NONBLOCK)
        os.dup2(nothing, helper._fds[1], inheritable=False)
        os.close(nothing)
        owners = 0
        with anyio.fail_after(20):
            while owners < 2:  # no event tells of a row in a file
                await anyio.sleep(0.02)
                owners = await to_thread.run_sync(_count_owners, stage.folder / "ledger.db")
        await anyio.sleep(10 * 0.02)
        assert stage.emulator.count(route="delete") == 0
        assert lives(pid)
    await gone(pid)
    assert stage.emulator.count(route="delete") == 1


def _count_owners(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM owners").fetchone()[0]
        return count


# --- what goes wrong ----------------------------------------------------------------------------


async def test_helpers_that_die(
    stage: Stage, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is replaced, after longer and longer pauses, and that is said once."""
    starts.command = [sys.executable, "-S", "-c", "raise SystemExit(7)"]
    with caplog.at_level(logging.WARNING), patch.object(parent, "RESTART_DELAY", 0.01):
        async with supervised(stage):
            began = time.monotonic()
            for _ in range(5):
                await starts.next()
            assert time.monotonic() - began > 0.01 + 0.02 + 0.04 + 0.08
    assert caplog.text.count("watchdog.died") == 1
    assert "status=7" in caplog.text
    assert KEY[7:] not in caplog.text


CONFIG = messages.HelperConfig(
    parent=os.getpid(),
    owner_id="me",
    namespace="default",
    base_url="http://127.0.0.1:1",
    ledger="/nowhere",
    fingerprint="0123456789ab",
    authorization=f"Bearer {KEY}",
    create_timeout=1.0,
    grace=1.0,
)


def test_a_config_does_not_show_the_key() -> None:
    """It can be printed."""
    assert KEY[7:] not in repr(CONFIG)


def test_a_forked_child_has_no_helper() -> None:
    """Its copies of the pipe are closed, and it never waits for what is not its child."""
    helper = process.HelperProcess(CONFIG)
    fds, popen = helper._fds, helper._process
    assert popen is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads; the child has none
        child = os.fork()
    if child == 0:
        try:
            disowned = not process.helpers and popen.returncode == 0
            closed = not any(Path(f"/proc/self/fd/{fd}").exists() for fd in fds)
            helper.send_last(messages.EXIT)
            os._exit(0 if disowned and closed else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert popen.poll() is None
    helper.send_last(messages.EXIT)
    assert helper.wait() == -signal.SIGKILL
    assert not any(Path(f"/proc/self/fd/{fd}").exists() for fd in fds)


def test_no_word_to_the_dead_ends_us() -> None:
    """A helper that has died is told goodbye without a SIGPIPE, whatever its action is here."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        helper = process.HelperProcess(CONFIG)
        popen = helper._process
        assert popen is not None
        os.kill(popen.pid, signal.SIGKILL)
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        helper.send_last(messages.TAKE_OVER)
        helper.send_last(messages.EXIT)
        assert signal.SIGPIPE not in signal.sigpending()
        assert helper.wait() == -signal.SIGKILL
        helper.send_last(messages.EXIT)
    finally:
        signal.signal(signal.SIGPIPE, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPIPE})


async def _refused(stage: Stage, supervisor: Supervisor, error: type[Exception]) -> Exception:
    """Fail to enter; nothing stays open, and the ledger can be opened again."""
    with pytest.raises(error) as caught:
        async with supervisor:
            raise AssertionError
    ledger = supervisor._session.parts.ledger
    assert isinstance(ledger, SqliteLedger)
    await ledger.open("somebody")
    await ledger.aclose()
    assert not process.helpers
    assert stage.emulator.count() == 0
    return caught.value


async def test_no_process_can_be_started(stage: Stage, starts: Starts) -> None:
    """That is a ConfigurationError; its traceback does not show the key; one can try again."""
    supervisor = supervised(stage)
    starts.error = BlockingIOError(11, "Resource temporarily unavailable")
    error = await _refused(stage, supervisor, ConfigurationError)
    assert "Resource temporarily unavailable" in str(error)
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert KEY[7:] not in "".join(told.format())
    starts.error = None
    async with supervisor:
        assert lives(await starts.next())


async def test_a_pipe_that_is_too_small(stage: Stage, starts: Starts) -> None:
    """The same where it cannot be told its config: it is not started."""
    write = os.write

    def little(fd: int, data: bytes) -> int:
        try:
            return write(fd, data[:5]) if KEY.encode() in data else write(fd, data)
        finally:
            del data

    with patch.object(os, "write", little):
        error = await _refused(stage, supervised(stage), ConfigurationError)
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert KEY[7:] not in "".join(told.format())
    assert not starts.pids


async def test_no_thread_can_be_started(stage: Stage, starts: Starts) -> None:
    """So is that."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "watchdog" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with patch.object(threading.Thread, "start", refuse):
        await _refused(stage, supervised(stage), ConfigurationError)
    assert not starts.pids


async def test_what_comes_before_cannot_be_opened(stage: Stage, starts: Starts) -> None:
    """No helper is started if the supervisor cannot be entered for another reason."""
    with patch.object(room, "Inbox", side_effect=OSError(24, "Too many open files")):
        await _refused(stage, supervised(stage), OSError)
    assert not starts.pids


def test_no_python(stage_free: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no interpreter is named, or the program is frozen, there is no watchdog."""
    with monkeypatch.context() as patched:
        patched.setattr(sys, "frozen", True, raising=False)
        with pytest.raises(ConfigurationError, match="sigmic-guard exec"):
            Supervisor(**stage_free)
    for nothing in ("", None):
        monkeypatch.setattr(sys, "executable", nothing)
        with pytest.raises(ConfigurationError, match="interpreter"):
            Supervisor(**stage_free)


def test_nothing_to_share(stage_free: dict[str, Any]) -> None:
    """A ledger in memory, or a client that only this process has, are refused at once."""
    for ledger in ("memory:", MemoryLedger()):
        with pytest.raises(ConfigurationError, match="ledger in a file"):
            Supervisor(**{**stage_free, "ledger": ledger})
    with pytest.raises(ConfigurationError, match="not client"):
        Supervisor(client=FakeSigmic(), ledger=stage_free["ledger"], watchdog=True)


@pytest.fixture
def stage_free(tmp_path: Path) -> dict[str, Any]:
    """What a supervisor with a watchdog needs."""
    return {
        "api_key": KEY,
        "base_url": "http://127.0.0.1:1",
        "ledger": f"sqlite:///{tmp_path}/ledger.db",
        "registry": CollectorRegistry(),
        "watchdog": True,
    }


# --- a credential that changes --------------------------------------------------------------------


async def lines(path: Path, number: int) -> list[bytes]:
    """Wait until a helper has been told so many lines."""
    with anyio.fail_after(20):
        while not path.exists() or path.read_bytes().count(b"\n") < number:
            await anyio.sleep(0.01)
    return path.read_bytes().splitlines()


async def test_a_renewed_credential_reaches_the_helper(
    stage: Stage, starts: Starts, no_key: None, tmp_path: Path
) -> None:
    """The helper hears of it through the pipe, and one that comes after it is told that alone."""
    heard = tmp_path / "heard"
    starts.command = [sys.executable, "-c", _WRITE_DOWN, str(heard)]
    with patch.object(parent, "RESTART_DELAY", 0.01):
        async with supervised(stage, api_key=lambda: "eyJold") as supervisor:
            pid = await starts.next()
            ring = supervisor._session.parts.keyring
            assert ring is not None
            ring._take("eyJnew")
            _, config, renewed = await lines(heard, 3)
            assert b"Bearer eyJold" in config
            assert renewed == messages.NEW_CREDENTIAL + b'"Bearer eyJnew"'
            heard.unlink()
            os.kill(pid, signal.SIGKILL)
            await starts.next()
            _, config = await lines(heard, 2)
            assert b"Bearer eyJnew" in config
            assert ring.fingerprint in config.decode()


_WRITE_DOWN = """
import sys
for line in sys.stdin.buffer:
    with open(sys.argv[1], "ab") as file:
        file.write(line)
"""


def test_a_helper_takes_the_newest() -> None:
    """Each line brings another credential; one that was cut off by a death brings none."""
    config = helper._renewed(CONFIG, b'"Bearer eyJnew"\n')
    assert config.authorization == "Bearer eyJnew"
    assert config.fingerprint == CONFIG.fingerprint
    assert helper._renewed(config, b'"Bearer eyJ') is config


async def test_the_helper_counts_the_same_rows_as_ours() -> None:
    """It derives no fingerprint from a renewed credential."""
    config = msgspec.structs.replace(CONFIG, authorization="Bearer eyJnew")
    made = helper.session(config, open_ledger("memory:"))
    assert made._session.parts.api.credential_fingerprint == CONFIG.fingerprint


def test_a_pipe_that_is_full() -> None:
    """What there is no room for is said before anything else, as soon as there is."""
    started = process.HelperProcess(CONFIG)
    try:
        with patch.object(os, "write", lambda fd, data: 3):
            started.update(msgspec.structs.replace(CONFIG, authorization="Bearer eyJone"))
        written: list[bytes] = []

        def write(fd: int, data: bytes) -> int:
            del fd
            written.append(data)
            return len(data)

        with patch.object(os, "write", write):
            started.send_last(messages.TAKE_OVER)
        assert written == [b'dential "Bearer eyJone"\n' + messages.TAKE_OVER]
    finally:
        started.send_last(messages.EXIT)
        started.wait()
