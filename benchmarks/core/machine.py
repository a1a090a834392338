"""What the machine is, for whoever compares figures."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from subprocess import run
from tempfile import TemporaryFile
from time import perf_counter
from typing import Final

#: Whose versions matter.
PACKAGES: Final = (
    *("sigmic-guard", "anyio", "aiohttp", "msgspec", "httptools", "uvloop", "httpx", "httpx-sse"),
    *("aiojobs", "aiosqlite", "prometheus-client", "structlog", "uvicorn"),
)


def facts(folder: str | None) -> dict[str, str]:
    """Return what is to be said of this machine, this Python, and this checkout."""
    found = {
        "commit": _commit(),
        "processor": _processor(),
        "cores": _cores(),
        "load at the start": _load(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "fdatasync": f"{sync_seconds(folder) * 1e6:,.0f} µs (median, in the folder of the ledgers)",
    }
    versions = []
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return {**found, "versions": ", ".join(versions)}


def sync_seconds(folder: str | None, times: int = 50) -> float:
    """Return how long it takes to write a page and have it on the disk."""
    sync = getattr(os, "fdatasync", os.fsync)
    taken = []
    with TemporaryFile(dir=folder) as file:
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            began = perf_counter()
            sync(file.fileno())
            taken.append(perf_counter() - began)
    return median(taken)


def _commit() -> str:
    root = Path(__file__).parents[2]
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError):
        told = run(asked, capture_output=True, text=True, check=False)
        if not told.returncode:
            return told.stdout.strip()
    return "unknown"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> str:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{count} (client and server on one each)" if count and count > 1 else f"{count}"


def _load() -> str:
    if sys.platform == "win32":
        return "unknown"
    return " ".join(f"{load:.2f}" for load in os.getloadavg())
