"""An owner whose event loop is gone is dead, whatever its process does; a blocked one lives."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import current_token

from sigmic_guard.errors import LedgerError
from sigmic_guard.ledger import Ledger, MemoryLedger, MemoryStore, SqliteLedger, Write
from sigmic_guard.ledger.loops import Ending, Loop, notice
from sigmic_guard.testing.records import make_record
from tests.backends import ASYNCIO, TRIO, UVLOOP, for_anyio
from tests.open_files import open_files

#: Seconds for what takes about one.
MAX_SECONDS = 20.0
BACKENDS = pytest.mark.parametrize("backend", [ASYNCIO, UVLOOP, TRIO])

Use = Callable[[], Awaitable[object]]


def in_a_loop_of_its_own(backend: str, use: Use) -> None:
    """Run it to its end in another thread, with an event loop that is closed then."""

    def run() -> None:
        name, options = for_anyio(backend)
        anyio.run(use, backend=name, backend_options=options)

    thread = Thread(target=run)
    thread.start()
    thread.join()


def is_locked(path: Path) -> bool:
    """What another process sees."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def ledger_threads() -> list[Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("sigmic-guard: ledger")]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Ledger]:
    if request.param == "memory":
        return partial(MemoryLedger, MemoryStore())
    return partial(SqliteLedger, tmp_path / "ledger.db")


@BACKENDS
async def test_whose_loop_is_closed_is_dead_at_once(
    make: Callable[[], Ledger], backend: str
) -> None:
    """Whoever asks in the same process is told so; what the owner wrote stands."""
    left, mine = make(), make()
    await mine.open("mine")

    async def leave() -> None:
        await left.open("left")
        await left.commit([Write(make_record(owner_id="left"), 0)])
        assert await mine.owner_alive("left")

    await to_thread.run_sync(in_a_loop_of_its_own, backend, leave)
    assert not await mine.owner_alive("left")
    assert await mine.owner_alive("mine")
    assert [row.owner_id for row in await mine.unfinished()] == ["left"]
    await mine.aclose()


@BACKENDS
def test_other_processes_learn_it_within_about_a_second(tmp_path: Path, backend: str) -> None:
    """The owner's own threads let go of its lock, close the file and end, with nobody asking."""
    ledger = SqliteLedger(tmp_path / "ledger.db")

    async def leave() -> None:
        await ledger.open("left")
        await ledger.unfinished()

    in_a_loop_of_its_own(backend, leave)
    for thread in ledger_threads():
        thread.join(MAX_SECONDS)
    assert ledger_threads() == []
    assert not is_locked(tmp_path / "ledger.db.owners" / "left.lock")
    assert open_files(under=tmp_path) == []


async def test_a_handle_whose_loop_is_gone_is_of_no_use(tmp_path: Path) -> None:
    """It says so at once, whoever has it, and can be closed."""
    ledger = SqliteLedger(tmp_path / "ledger.db")
    await to_thread.run_sync(in_a_loop_of_its_own, "asyncio", partial(ledger.open, "left"))
    notice()
    with anyio.fail_after(MAX_SECONDS):
        for use in ledger.unfinished, partial(ledger.upkeep, 1.0), partial(ledger.get, "x"):
            with pytest.raises(LedgerError, match="event loop"):
                await use()
        await ledger.aclose()
        await ledger.open("again")
        assert await ledger.owner_alive("again")
        assert not await ledger.owner_alive("left")
        await ledger.aclose()


@contextmanager
def blocked(backend: str, use: Use) -> Iterator[None]:
    """A loop that did this, and is blocked since."""
    ready, go_on = Event(), Event()

    async def run() -> None:
        await use()
        ready.set()
        go_on.wait()

    thread = Thread(target=in_a_loop_of_its_own, args=(backend, run))
    thread.start()
    try:
        assert ready.wait(MAX_SECONDS)
        yield
    finally:
        go_on.set()
        thread.join()


@BACKENDS
async def test_whose_loop_is_blocked_is_alive(make: Callable[[], Ledger], backend: str) -> None:
    """A loop that does nothing for as long as it likes may go on."""
    left, mine = make(), make()
    await mine.open("mine")
    with blocked(backend, partial(left.open, "left")):
        for _ in range(3):
            notice()
            assert await mine.owner_alive("left")
    assert not await mine.owner_alive("left")
    await mine.aclose()


async def test_whose_loop_is_stopped_is_alive(make: Callable[[], Ledger]) -> None:
    """A loop that is not running may be run again, as in a notebook, until it is closed."""
    left, mine = make(), make()
    await mine.open("mine")
    with closing(asyncio.new_event_loop()) as loop:
        await to_thread.run_sync(loop.run_until_complete, left.open("left"))
        assert await mine.owner_alive("left")
        await to_thread.run_sync(loop.run_until_complete, left.unfinished())
        assert await mine.owner_alive("left")
    assert not await mine.owner_alive("left")
    await mine.aclose()


async def test_who_left_is_forgotten(make: Callable[[], Ledger]) -> None:
    """Nothing is due any more for a ledger that was closed."""
    loops: list[Loop] = []
    ledger = make()

    async def use() -> None:
        await ledger.open("one")
        loops.append(Loop())
        await ledger.aclose()
        await ledger.aclose()

    await to_thread.run_sync(in_a_loop_of_its_own, "asyncio", use)
    notice()
    await ledger.open("two")
    assert await ledger.owner_alive("two")
    await ledger.aclose()


# --- loops ----------------------------------------------------------------------------------------


@pytest.mark.backends(ASYNCIO, UVLOOP, TRIO)
async def test_a_loop_that_runs_is_not_gone() -> None:
    """It is there for itself and for other threads, and can be called."""
    loop, called = Loop(), anyio.Event()
    for _ in range(3):
        assert not loop.is_gone()
        assert not await to_thread.run_sync(loop.is_gone)

    await to_thread.run_sync(loop.call_soon, called.set)
    await called.wait()


def test_a_loop_that_was_collected_is_gone() -> None:
    """Nothing of ours keeps a loop, and whoever nobody can run any more is gone."""
    native = asyncio.new_event_loop()

    async def look() -> Loop:
        return Loop()

    loop = native.run_until_complete(look())
    assert not loop.is_gone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del native
        gc.collect()
    assert loop.is_gone()
    loop.call_soon(pytest.fail)  # without effect, and without an error


@BACKENDS
def test_a_call_is_made_once(backend: str) -> None:
    """However many notice it, and not if it was forgotten."""
    made: list[str] = []
    endings: list[Ending] = []

    async def prepare() -> None:
        loop = Loop()
        endings.extend(Ending(loop, partial(made.append, name)) for name in ("one", "two"))
        notice()
        assert made == []
        assert endings[1].forget()

    in_a_loop_of_its_own(backend, prepare)
    threads = [Thread(target=notice) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["one"]
    assert [ending.forget() for ending in endings] == [False, False]


@pytest.mark.parametrize(
    "backend, options",
    [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)
def test_a_loop_that_was_closed_is_called_no_more(backend: str, options: dict[str, bool]) -> None:
    """Whoever wants to tell it something has no error, and goes on."""

    async def look() -> tuple[Loop, object]:
        return Loop(), current_token().native_token

    loop, native = anyio.run(look, backend=backend, backend_options=options)
    assert native is not None
    assert loop.is_gone()
    loop.call_soon(pytest.fail)
