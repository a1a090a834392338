"""A supervisor whose event loop was closed without leaving it is dead, and its tasks are ended."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.families import slow_if

PROGRAM = Path(__file__).parent / "programs" / "closed_loop.py"
ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> list[str]:
    """Run the program to its end, and return the lines that it said."""
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "SIGMIC_GUARD_LEDGER": "memory:"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "NoEventLoopError" not in ended.stderr
    assert "closed_loop.py" not in ended.stderr, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    "loop, ledger",
    slow_if(
        lambda loop, ledger: (loop, ledger) not in {("asyncio", "memory:"), ("trio", "sqlite")},
        itertools.product(["asyncio", "uvloop", "trio"], ["memory:", "sqlite"]),
    ),
)
def test_the_next_supervisor_of_the_process_reaps(tmp_path: Path, loop: str, ledger: str) -> None:
    """It ends what a closed loop left at once, the sums agree, and no thread of ours lives on."""
    url = ledger if ledger == "memory:" else f"sqlite:///{tmp_path}/ledger.db"
    said = run(loop, url, "reap")
    assert "reaped: ['cancelled', 'cancelled', 'cancelled'] True" in said
    assert "live: 0" in said
    assert said[-1] == "threads: []"


@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=pytest.mark.slow)])
def test_a_watchdog_takes_over(tmp_path: Path, loop: str) -> None:
    """Its helper ends the tasks where no supervisor comes, once each."""
    said = run(loop, f"sqlite:///{tmp_path}/ledger.db", "watchdog")
    assert said == ["threads: []", "live: 0 deletes: 3"]
