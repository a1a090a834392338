"""``sigmic-guard reap``: what has come when its time is over is told, and how far it is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import structlog  # noqa: F401 - importing it blocks, and no test may in its event loop
from anyio import current_time, to_thread

from sigmic_guard.cli.terminal import Terminal
from sigmic_guard.errors import LedgerError
from sigmic_guard.lifecycle import State
from sigmic_guard.watchdog import reaping
from tests.cli.books import on_a_terminal
from tests.cli.conftest import KEY
from tests.cli.test_reap import rows

if TYPE_CHECKING:
    from sigmic_guard import Supervisor
    from tests.cli.books import Books
    from tests.cli.conftest import Cli


async def test_the_time_runs_out(cli: Cli, books: Books) -> None:
    """What became of a task is told as it was heard, though another one had no end in time."""
    await books.add("gone", remote_id="gone")
    # That takes more than half a minute.
    await books.add("lost", remote_id=None, state=State.CREATING, posted_at=time.time())
    ended = await cli.run("reap", "--wait", "10")
    assert ended.code == 1
    assert rows(ended)["gone"][:2] == ["not_found", "cancelled"]
    assert rows(ended)["lost"][0] == "may_still_run"


async def test_an_error_elsewhere(cli: Cli, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that cannot be seen to takes no other one's answers away."""
    await books.add("good", remote_id="good")
    await books.add("bad", remote_id="bad", namespace="bad")
    monkeypatch.setenv("SIGMIC_API_KEY", KEY)
    session = reaping.reaping_session

    def fail(*args: object, namespace: str, **kwargs: object) -> Supervisor:
        if namespace == "bad":
            raise LedgerError("out of order")
        return session(*args, namespace=namespace, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(reaping, "reaping_session", fail)
    found, _ = await reaping.survey(str(books.file))
    told, errors = await reaping.reap(str(books.file), found, current_time() + 30)
    assert {row.id: row.result and row.result.value for row in told} == {
        "good": "not_found",
        "bad": None,
    }
    assert [str(error) for error in errors] == ["out of order"]


async def test_progress(cli: Cli, books: Books) -> None:
    """A terminal is shown how many have ended; it is gone in the end, and a pipe gets none."""
    await books.add("gone", remote_id="gone")
    await books.add("other", remote_id="other", credential_fingerprint="0123")
    _, shown = await on_a_terminal(cli, "reap")
    assert "\r\x1b[K0 of 1 ended" in shown
    assert shown.index("\r\x1b[K", shown.index("0 of 1 ended")) < shown.index("gone")
    await books.add("again", remote_id="again")
    assert "of 1 ended" not in (await cli.run("reap")).err


async def test_what_is_said_meanwhile(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that comes in between takes the place of the progress, which comes again after it."""
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    monkeypatch.setattr("sigmic_guard.cli.terminal.PROGRESS_INTERVAL", 0.0)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with terminal.progress(2, "ended") as count:
        terminal.problem("look")
        count()
    terminal.status("done")
    await to_thread.run_sync(terminal.flush)
    erase = "\r\x1b[K"
    assert capfd.readouterr().err == (
        f"{erase}0 of 2 ended{erase}sigmic-guard: look\n{erase}1 of 2 ended{erase}done\n"
    )
