"""A ledger is named by a URL, and a wrong one is told what would be right."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_state_path

from sigmic_guard import Supervisor
from sigmic_guard.cli.exec import ledger_path as path_for_exec
from sigmic_guard.cli.ledger import ledger_path as path_for_commands
from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import (
    LEDGER_VARIABLE,
    MemoryLedger,
    SqliteLedger,
    default_ledger_url,
    open_ledger,
)
from sigmic_guard.ledger.urls import shown


def named(url: str) -> str:
    """The path of the SQLite ledger that the URL names."""
    ledger = open_ledger(url)
    assert isinstance(ledger, SqliteLedger)
    return ledger.path


def test_four_slashes_name_an_absolute_path() -> None:
    """What follows the third slash is the path, as it is."""
    assert named("sqlite:////var/lib/a b%20ü?.db") == "/var/lib/a b%20ü?.db"


def test_three_slashes_name_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path starts where the process was when the ledger was named."""
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///state/ledger.db"
    assert named(url) == str(Path.cwd() / "state/ledger.db")


@pytest.mark.parametrize("url", ["memory:", "memory"])
def test_memory_is_a_ledger(url: str) -> None:
    """``memory:`` names the ledger that survives nothing."""
    assert isinstance(open_ledger(url), MemoryLedger)


def test_the_default_is_a_file_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name the ledger is in the user's state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", "/home/somebody/state")
    assert named(default_ledger_url()) == str(user_state_path("sigmic-guard") / "ledger.db")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://host",
        "sqlite:",
        "sqlite:ledger.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite://host/ledger.db",
        "sqlite:///:memory:",
        "sqlite:///a\x00b",
        "/var/lib/ledger.db",
        "SQLITE:///ledger.db",
    ],
)
def test_a_url_that_names_no_ledger_is_refused(url: str) -> None:
    """What is no URL of a ledger is refused, with the form that would be right."""
    with pytest.raises(ConfigurationError, match="memory:") as caught:
        open_ledger(url)
    assert repr(url) in str(caught.value)


SECRET = "hunter2"
WITH_A_SECRET = [
    "postgresql://app:hunter2@db/guard",
    "postgres://app:hunter2@db.internal:5432/guard?sslmode=require",
    "postgresql+asyncpg://hunter2@db",
    "postgresql://db/guard?user=app&password=hunter2",
    "postgresql://db?password=with@hunter2",
    "postgresql://db/guard#hunter2",
    "postgresql://app:hun%2Fhunter2@[::1]:5432/guard",
    "postgresql://app:half/hunter2@db/guard",
    "postgresql://app:half@hunter2@db/guard",
    "postgresql://app:half#hunter2@db",
    "postgresql://app:half?hunter2",
    "postgresql:/app:hunter2@db/guard",
    "postgresql:app:hunter2@db",
    "postgresql%3A//app:hunter2@db/guard",
    " postgresql://app:hunter2@db/guard",
    "postgresql://app:hunter2@db/guard\n",
    "app:hunter2@db/guard",
    "host=db user=app password=hunter2",
    "sqlite://app:hunter2@host/ledger.db",
    "SQLITE:///ledger.db?key=hunter2",
    "carrier-pigeon:hunter2",
    "redis://:hunter2@cache:6379/0",
]


@pytest.mark.parametrize("url", WITH_A_SECRET)
def test_a_password_in_a_url_is_not_shown(url: str) -> None:
    """Of a URL that is refused no password is shown, nor in frames' locals."""
    doors: list[Callable[[], Any]] = [
        lambda: open_ledger(url),
        lambda: Supervisor(api_key="sigmic_test", ledger=url),
        lambda: path_for_commands(url),
    ]
    for door in doors:
        with pytest.raises(ConfigurationError) as caught:
            door()
        text = str(caught.value) + repr(caught.value) + repr(caught.value.args)
        assert SECRET not in text
        assert SECRET not in _ours(caught.value)


@pytest.mark.parametrize("url", WITH_A_SECRET)
def test_a_password_in_the_environment_is_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the environment names the ledger."""
    monkeypatch.setenv(LEDGER_VARIABLE, url)
    doors: list[Callable[[], Any]] = [
        lambda: Supervisor(api_key="sigmic_test"),
        lambda: path_for_commands(None),
        path_for_exec,
    ]
    for door in doors:
        with pytest.raises(ConfigurationError) as caught:
            door()
        assert SECRET not in str(caught.value)
        assert SECRET not in _ours(caught.value)


def _ours(error: BaseException) -> str:
    """The error with the locals of all frames but the test's."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in told.stack if frame.filename != __file__]
    assert frames
    return "".join(str(frame.locals) for frame in frames)


def test_scheme_and_host_are_shown() -> None:
    """Of a URL with a password its scheme and host are shown where they are certain."""
    assert shown("postgresql://app:hunter2@db.internal:5432/guard") == "postgresql://db.internal/…"
    assert shown("postgresql://db/guard?password=hunter2") == "postgresql://db/…"
    assert shown("postgresql://db/guard?password=a@hunter2") == "postgresql://…"
    assert shown("app:hunter2@db") == "…"
