"""Whatever this repository runs leaves the user's state directory alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
#: Rows that write a ledger where nobody says otherwise, or could.
ROWS: Final = ("drain", "lifecycle", "ledger", "hosts")

WRITES: Final = """
import os

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.testing import FakeSigmic

async def main():
    client = FakeSigmic(duration=0.01)
    async with Supervisor(client=client, registry=CollectorRegistry()) as supervisor:
        await supervisor.run("m")

def test_it():
    os.environ["XDG_STATE_HOME"] = os.environ.get("REAL") or os.environ["XDG_STATE_HOME"]
    anyio.run(main)
"""
FINE: Final = "def test_it():\n    pass\n"


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would who has set nothing."""
    inherited = {name: text for name, text in os.environ.items() if "SIGMIC" not in name}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**inherited, **environment},
        text=True,
        capture_output=True,
        check=False,
        timeout=50,
    )


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="they are not beside the wheel")
@pytest.mark.parametrize("row", ROWS)
def test_a_benchmark_uses_a_ledger_of_its_own(row: str, tmp_path: Path) -> None:
    """Nothing is written at home, and nothing is left beside whoever runs it."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    ended = run(
        *("-m", "benchmarks", row, "--quick", "--rounds", "1", "--only", "sigmic_guard"),
        *("--only", "sigmic_guard, SQLite", "--only", "uvicorn, TaskStream"),
        cwd=work,
        HOME=str(home),
        XDG_STATE_HOME=str(home / "state"),
        PYTHONPATH=f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not list(home.iterdir())
    assert not list(work.iterdir())


@pytest.mark.once
@pytest.mark.parametrize(
    "source, bypass, status, workers",
    [
        (FINE, False, 0, []),
        (WRITES, False, 1, []),
        pytest.param(WRITES, True, 1, [], marks=pytest.mark.slow),
        pytest.param(WRITES, False, 1, ["-n", "1"], marks=pytest.mark.slow),
    ],
    ids=["fine", "the session's", "the user's", "a worker's"],
)
def test_a_session_that_writes_there_fails(
    source: str, bypass: bool, status: int, workers: list[str], tmp_path: Path
) -> None:
    """Negative control: a test that passes, and leaves a ledger in either folder."""
    (tmp_path / "test_it.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    state = tmp_path / "state"
    more = {"REAL": str(state)} if bypass else {}
    ended = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.state_directory", *workers),
        cwd=tmp_path,
        XDG_STATE_HOME=str(state),
        PYTHONPATH=f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        **more,
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
    assert ("ledger.db" in ended.stdout) is bool(status)
    assert state.exists() is bypass
