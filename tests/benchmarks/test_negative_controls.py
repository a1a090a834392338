"""The benchmarks find what they are for: mistakes that are planted, beside a run without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
#: Exit statuses of the runner.
FINE: Final = 0
UNSOUND: Final = 1
WORSE: Final = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.timeout(240),
]


def run(row: str, *arguments: str, plant: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one row, small and once, ours and what its goals compare it with."""
    planted = ("--plant", f"tests.benchmarks.plants:{plant}") if plant else ()
    return subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", row, "--quick", "--rounds", "1"),
            *arguments,
            *planted,
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=200,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )


@pytest.mark.parametrize(
    "row, who, plant, told",
    [
        ("drain", ["sigmic_guard", "naive"], "sleep_in_the_canceller", "against naive aiohttp"),
        ("growth", ["deadlines at one instant"], "quadratic_sweep", "exponent of deadlines"),
        ("tracking", ["sigmic_guard, at work"], "collector_pause", "the longest collection"),
    ],
)
def test_what_got_slower_is_named(
    row: str, who: list[str], plant: str, told: str, tmp_path: Path
) -> None:
    """Against a run without the mistake, which passes against itself."""
    before = tmp_path / "before.json"
    only = [word for name in who for word in ("--only", name)]
    clean = run(row, *only, "--json", str(before))
    assert clean.returncode == FINE, clean.stdout + clean.stderr
    planted = run(row, *only, "--against", str(before), plant=plant)
    assert planted.returncode == WORSE, planted.stdout + planted.stderr
    assert "WORSE" in planted.stdout
    assert told in planted.stdout.partition("WORSE")[2]


@pytest.mark.parametrize(
    "plant, told",
    [
        ("write_at_home", "left was written to"),
        ("write_elsewhere", "was written to"),
        ("forgotten_delete", "the server saw no DELETE"),
        ("delete_twice", "DELETEs of tasks that had been deleted"),
    ],
)
def test_what_is_not_sound_fails_the_run(plant: str, told: str) -> None:
    ended = run("lifecycle", "--only", "sigmic_guard", plant=plant)
    assert ended.returncode == UNSOUND, ended.stdout + ended.stderr
    assert told in " ".join(ended.stdout.partition("NOT SOUND")[2].split())
