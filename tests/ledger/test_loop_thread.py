"""A transaction takes as long as the disk does: none of it happens in the event loop's thread."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from anyio import create_task_group, fail_after, wait_all_tasks_blocked

from sigmic_guard import DuplicateKey, SupervisorShutdown
from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.ledger.thread import CallThread
from tests.backends import ASYNCIO, TRIO, UVLOOP
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP, TRIO)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Each statement that SQLite runs while the test does, and the thread it runs in."""
    seen: list[tuple[int, str]] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(lambda sql: seen.append((threading.get_ident(), sql)))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return seen


async def test_no_statement_runs_in_the_loops_thread(
    tmp_path: Path, statements: list[tuple[int, str]]
) -> None:
    """Creates, keys, cancellations, rounds of the reaper and a shutdown: other threads write."""
    lab, path = Lab(), tmp_path / "ledger.db"
    async with lab.open(ledger=SqliteLedger(path)) as one:
        task = await one.start("m", key="k")
        async with lab.make(ledger=SqliteLedger(path)) as two:
            with pytest.raises(DuplicateKey):
                await two.start("m", key="k")
            await two.reap()
        await task.cancel()
        with pytest.raises(SupervisorShutdown):
            async with one.task("m"):
                await one.shutdown()
                await one.start("m")
    written = [thread for thread, sql in statements if sql.startswith(("INSERT", "UPDATE"))]
    assert written
    assert threading.get_ident() not in {thread for thread, _ in statements}


async def test_no_call_waits_for_the_loop() -> None:
    """A call that is over needs no turn of the loop before the next one begins."""
    thread = CallThread("test", None)
    go_on, second = threading.Event(), threading.Event()
    with fail_after(30):
        async with create_task_group() as group:
            group.start_soon(thread.run, lambda: go_on.wait(30))
            group.start_soon(thread.run, second.set)
            await wait_all_tasks_blocked()
            go_on.set()
            assert second.wait(30)
        await thread.stop(lambda: None).wait()
