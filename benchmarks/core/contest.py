"""Lets the contestants of a row take turns, and keeps what they measured."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.core.books import Script, check_books
from benchmarks.core.child import Order, Report
from benchmarks.core.judging import check_folder
from benchmarks.core.results import RowResult
from benchmarks.core.serving import Server, environment, serving
from benchmarks.core.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.core.model import Case, Row

#: Interleaved rounds of a full run, and of a quick one.
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is done.

    :ivar rounds: at least; a case may say more.
    :ivar plant: see :class:`~benchmarks.core.child.Order`; only the suite's own tests give it.
    :ivar only: contestants to leave the others out for.
    """

    quick: bool = False
    rounds: int = ROUNDS
    uvloop: bool = False
    plant: str | None = None
    only: frozenset[str] = frozenset()
    folder: str | None = None


class Contest:
    """The runner: one server, any number of rows."""

    def __init__(self, options: Options, server: Server, folder: Path) -> None:
        self._options = options
        self._server = server
        self._folder = folder
        self._cores = cores()

    def turns(self, row: Row) -> int:
        """Return how many turns a row takes."""
        cases = row.cases(self._options.quick)
        return sum(len(self._who(case)) * self._rounds(case) for case in cases)

    def run(self, row: Row, progress: Callable[[str], None]) -> RowResult:
        """Run one row; ``progress`` is told before each turn what it is."""
        result = RowResult(name=row.name)
        for case in row.cases(self._options.quick):
            who = self._who(case)
            result.numbers[case.label] = _plain(case)
            for number in range(self._rounds(case)):
                turned = number % len(who) if who else 0
                for contestant in who[turned:] + who[:turned]:
                    progress(f"{row.name}, {case.label}: {contestant}")
                    if contestant not in result.absent:
                        self._take_turn(row, case, contestant, result)
        return result

    def _rounds(self, case: Case) -> int:
        return min(self._options.rounds, case.rounds or self._options.rounds)

    def _who(self, case: Case) -> tuple[str, ...]:
        only = self._options.only
        return tuple(who for who in case.contestants if not only or who in only)

    def _take_turn(self, row: Row, case: Case, who: str, result: RowResult) -> None:
        if case.numbers.get("tls") and self._server.tls is None:
            result.absent[f"{who}, {case.label}"] = "openssl"
            return
        self._server.reset(Script())
        with TemporaryDirectory(dir=self._folder) as place:
            report = self._start(row, case, who, Path(place))
            failures = list(check_folder(Path(place) / "folder"))
        if report.absent:
            result.absent[who] = report.absent
            return
        result.note(case.label, who, report.values)
        if row.all_end:
            failures += check_books(self._server.books())
        if report.unsound:
            failures.append(report.unsound)
        failures += [f"{name} was written to" for name in sorted(set(report.written))]
        for failure in failures:
            told = f"{case.label}, {who}: {failure}"
            if told not in result.failures:
                result.failures.append(told)

    def _start(self, row: Row, case: Case, who: str, place: Path) -> Report:
        """Let one contestant do it once, in a process of its own, in an empty home."""
        client, server = self._cores
        home, folder = place / "home", place / "folder"
        home.mkdir()
        folder.mkdir()
        order = Order(
            row=row.name,
            contestant=who,
            site=Site(
                url=self._server.url,
                tls=self._server.tls,
                folder=str(folder),
                numbers=_plain(case),
                server_cores=server,
            ),
            cores=client,
            uvloop=self._options.uvloop,
            plant=self._options.plant,
        )
        trusted = self._server.certificate
        variables = {"HOME": str(home), "XDG_STATE_HOME": str(home), "TMPDIR": str(folder)}
        if trusted is not None:
            variables["SSL_CERT_FILE"] = str(trusted)
        with Popen(
            [sys.executable, "-m", "benchmarks.core.child"],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=folder,
            env=environment(**variables),
            start_new_session=True,
        ) as process:
            try:
                told, errors = process.communicate(msgspec.json.encode(order), case.seconds)
            except TimeoutExpired:
                return Report(unsound=f"it took more than {case.seconds:g} s")
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # whatever it has started
        if process.returncode:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            return Report(unsound=f"it failed: {' '.join(last)}")
        report = msgspec.json.decode(told.splitlines()[-1], type=Report)
        report.written += [str(path) for path in home.rglob("*") if path.is_file()]
        return report


def _plain(case: Case) -> dict[str, float]:
    return {name: float(value) for name, value in case.numbers.items()}


def cores() -> tuple[list[int], list[int]]:
    """Return the core of the client, and that of the server; none where there is but one."""
    if not hasattr(os, "sched_getaffinity"):
        return [], []
    usable = sorted(os.sched_getaffinity(0))
    return ([usable[0]], [usable[-1]]) if len(usable) > 1 else ([], [])


@contextmanager
def contest(options: Options) -> Iterator[Contest]:
    """Make ready for any number of rows."""
    with TemporaryDirectory(dir=options.folder, prefix="sigmic-guard-bench-") as folder:
        place = Path(folder).resolve()
        with serving(place, cores()[1]) as server:
            yield Contest(options, server, place)
