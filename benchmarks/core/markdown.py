"""``--results``: the page with all tables, goals and plots, and how to repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.core.judging import judge
from benchmarks.core.plots import plot_all
from benchmarks.core.report import cells, goal_cells, heads, remarks
from benchmarks.rows import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from benchmarks.core.results import RowResult, Run

#: The folder of the plots, beside the page.
PLOTS: Final = "plots"

_INTRODUCTION: Final = """\
# Results

Written by the runner; do not edit. To repeat it:

```console
$ make bench                                                   # everything, small: 3 minutes
$ .venv/bin/python -m benchmarks --results benchmarks/RESULTS.md   # this page: an hour
$ .venv/bin/python -m benchmarks drain sse                     # two rows
```

Each contestant takes its turn in a fresh process, the rounds interleaved; figures are medians, with
half of the distance between the least and the most. The client has one core, the server another.
The last columns say how many times better ours is, by what the row is about and by CPU time; below
1 it is worse. "µs CPU" is the client's alone, and the steadier figure on a machine that is not
idle. A run fails where a sanity check does: every DELETE seen by the server, none twice, no row
of a ledger unfinished, nothing written outside of the folder. A missed goal is no failure.
"""


def write_results(run: Run, path: Path) -> None:
    """Write the page and its plots."""
    drawn = plot_all(run, path.parent / PLOTS)
    path.write_text("\n".join(page(run, [plot.name for plot in drawn])), encoding="utf-8")


def page(run: Run, plots: list[str]) -> Iterator[str]:
    """Yield its lines."""
    yield _INTRODUCTION
    yield f"{'A quick run' if run.quick else 'A full run'}, {run.rounds} rounds.\n"
    yield from _table(["this machine", ""], run.facts.items())
    if run.limit:
        yield f"\nThe server: {run.told_limit}."
    yield "\n## Goals\n"
    verdicts = (
        [f"`{result.name}`", *goal_cells(verdict)]
        for result in run.rows
        for verdict in judge(load(result.name), result)
    )
    yield from _table(["row", "goal", "bound", "measured", ""], verdicts)
    if run.failures:
        yield "\n## Not sound\n"
        yield from (f"- {failure}" for failure in run.failures)
    for result in run.rows:
        yield from _row(result, [name for name in plots if name.startswith(f"{result.name}-")])


def _row(result: RowResult, plots: list[str]) -> Iterator[str]:
    row = load(result.name)
    yield f"\n## {row.name}: {row.title}\n"
    yield from _table(heads(row, result), cells(row, result), right_from=2)
    yield from (f"\n{remark}" for remark in remarks(result))
    for name in plots:
        yield f"\n![{row.title}]({PLOTS}/{name})"


def _table(heads: list[str], lines: Iterable[Iterable[str]], right_from: int = 99) -> Iterator[str]:
    yield _line(heads)
    yield _line("---:" if index >= right_from else "---" for index in range(len(heads)))
    yield from map(_line, lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
