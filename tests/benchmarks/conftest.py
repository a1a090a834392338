"""Where the benchmarks are not beside the tests, there is nothing to test here."""

from __future__ import annotations

from pathlib import Path

if not (Path(__file__).parents[2] / "benchmarks").exists():
    collect_ignore_glob = ["test_*.py"]
