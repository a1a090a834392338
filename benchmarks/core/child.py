"""One turn of one contestant, in this process: an order on stdin, a report on stdout.

The process is pinned to its core, notices where it writes, and has nothing of an earlier turn.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.core.site import Site, Unsound

if TYPE_CHECKING:
    from collections.abc import Callable


class Order(msgspec.Struct, kw_only=True):
    """One turn.

    :ivar cores: to run on; empty for any.
    :ivar plant: ``module:function``, called before anything else: a mistake that the suite is to
        find (its own tests use it).
    """

    row: str
    contestant: str
    site: Site
    cores: list[int]
    uvloop: bool = False
    plant: str | None = None


class Report(msgspec.Struct, kw_only=True):
    """What came of it.

    :ivar absent: the package that this contestant needs, and is not installed.
    :ivar unsound: why what was measured means nothing.
    :ivar written: files outside of its folder that it opened for writing.
    """

    values: dict[str, float] = {}
    absent: str | None = None
    unsound: str | None = None
    written: list[str] = []


class WriteWatch:
    """Notes which files the interpreter opens for writing, or makes, outside of a folder.

    ``hook`` is one for :func:`sys.addaudithook`.
    """

    def __init__(self, folder: Path) -> None:
        self._allowed = (str(folder), "/dev/", "/proc/")
        self.written: list[str] = []

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            if (mode and set(mode) & set("wax+")) or (mode is None and flags & writes):
                self._note(path)
        elif event in {"sqlite3.connect", "os.mkdir", "os.rename", "os.remove"}:
            self._note(args[0])

    def _note(self, path: object) -> None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, (str, os.PathLike)):
            return  # a descriptor, which somebody opened
        name = os.fspath(path).removeprefix("file:").partition("?")[0]
        if name == ":memory:" or "__pycache__" in name:
            return
        name = os.path.abspath(name)  # noqa: PTH100 - asks no file system
        if not name.startswith(self._allowed):
            self.written.append(name)


def take_turn(order: Order) -> Report:
    """Let the contestant do it once."""
    if order.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order.cores)
    with suppress(ImportError, ValueError):
        resource = importlib.import_module("resource")  # not on Windows
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = Report()
    watch = WriteWatch(Path(order.site.folder))
    sys.addaudithook(watch.hook)
    try:
        row = importlib.import_module(f"benchmarks.rows.{order.row}").ROW
        if order.plant:
            module, _, function = order.plant.partition(":")
            plant: Callable[[], None] = getattr(importlib.import_module(module), function)
            plant()
        factory = None
        if order.uvloop:
            factory = importlib.import_module("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            values = runner.run(row.contestants[order.contestant](order.site))
        report.values = {name: float(value) for name, value in values.items()}
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith(("benchmarks", "sigmic_guard")):
            raise
        report.absent = missing.name
    except (Unsound, ExceptionGroup) as failed:
        report.unsound = _reason(failed)
    report.written = watch.written
    return report


def _reason(failed: Exception) -> str:
    """Say which check failed; anything else goes on as it is."""
    if isinstance(failed, ExceptionGroup):
        checks, rest = failed.split(Unsound)
        if rest is not None or checks is None:
            raise failed
        return "; ".join(_reason(one) for one in checks.exceptions)
    return str(failed)


if __name__ == "__main__":
    report = take_turn(msgspec.json.decode(sys.stdin.buffer.read(), type=Order))
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(report) + b"\n")
