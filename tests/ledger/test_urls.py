"""A ledger is named by a URL, and a wrong one is told what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from platformdirs import user_state_path

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import MemoryLedger, SqliteLedger, default_ledger_url, open_ledger


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
