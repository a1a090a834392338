"""``python -m benchmarks``: run the rows, and show, keep and plot what they measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.core.contest import QUICK_ROUNDS, ROUNDS, Options, contest
from benchmarks.core.judging import compare
from benchmarks.core.machine import facts
from benchmarks.core.report import remarks, tables
from benchmarks.core.results import Run
from benchmarks.core.stats import median
from benchmarks.rows import NAMES, load

if TYPE_CHECKING:
    from benchmarks.core.model import Row
    from benchmarks.core.results import RowResult

#: Exit statuses: a sanity check failed; a figure got worse than in the run that was compared with.
UNSOUND: Final = 1
WORSE: Final = 2


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="This library beside what one would use without it."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: 3 minutes")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, quick {QUICK_ROUNDS}")
    parser.add_argument("--only", action="append", default=[], help="a contestant; repeat for more")
    parser.add_argument("--uvloop", action="store_true", help="run all contestants on uvloop")
    parser.add_argument("--folder", help="where ledgers are made; default: the system's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help=f"an earlier --json: name what got worse, and exit with {WORSE}",
    )
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write a plot of each row")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write RESULTS.md, with plots")
    parser.add_argument("--plant", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Do what the command line says; return the exit status."""
    asked = arguments().parse_args()
    if unknown := set(asked.names) - set(NAMES):
        arguments().error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    options = Options(
        quick=asked.quick,
        rounds=rounds,
        uvloop=asked.uvloop,
        plant=asked.plant,
        only=frozenset(asked.only),
        folder=asked.folder,
    )
    console = Console(width=None if sys.stdout.isatty() else 140)
    run = Run(facts=facts(asked.folder), quick=asked.quick, rounds=rounds)
    for name, fact in run.facts.items():
        console.print(f"[dim]{name}:[/dim] {fact}", highlight=False)
    run_all(
        [name for name in NAMES if name in asked.names or not asked.names], options, run, console
    )
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    if asked.plot:
        from benchmarks.core.plots import plot_all

        plot_all(run, asked.plot)
    if asked.results:
        from benchmarks.core.markdown import write_results

        write_results(run, asked.results)
    return conclude(run, asked.against, console)


def run_all(names: list[str], options: Options, run: Run, console: Console) -> None:
    """Run the rows, showing each as it is done."""
    rows = [load(name) for name in names]
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar, contest(options) as runner:
        task = bar.add_task("", total=sum(map(runner.turns, rows)))

        def progress(what: str) -> None:
            bar.update(task, advance=1, description=what)

        for row in rows:
            result = runner.run(row, progress)
            run.rows.append(result)
            note_rates(row, result, run)
            for table in tables(row, result):
                console.print(table)
            for remark in remarks(result):
                console.print(remark, style="dim")


def note_rates(row: Row, result: RowResult, run: Run) -> None:
    """Keep what tells whether the server is the limit of anything."""
    rates = {
        who: median(figures["rate"]) for _, who, figures in result.lines() if "rate" in figures
    }
    if row.name == "server":
        run.limit = rates.get("pipelining", 0.0)
    elif row.requests and rates:
        run.fastest = max(run.fastest, max(rates.values()) * row.requests)


def conclude(run: Run, against: Path | None, console: Console) -> int:
    """Say what failed and what got worse."""
    if run.limit and run.fastest:
        console.print(f"The server: {run.told_limit}.", highlight=False)
    for failure in run.failures:
        console.print(f"NOT SOUND: {failure}", style="red", highlight=False, markup=False)
    worse: list[str] = []
    if against:
        before = {row.name: row for row in msgspec.json.decode(against.read_bytes(), type=Run).rows}
        for result in run.rows:
            if result.name in before:
                worse += compare(load(result.name), before[result.name], result)
    for line in worse:
        console.print(f"WORSE: {line}", style="red", highlight=False, markup=False)
    return UNSOUND if run.failures else WORSE if worse else 0


if __name__ == "__main__":
    sys.exit(main())
