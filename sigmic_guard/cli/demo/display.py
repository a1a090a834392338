"""What the demo looks like: a screen that lives, lines where there is no terminal, the last screen.

Everything shown comes from the two sets of books; nothing is counted here.
"""

from __future__ import annotations

import io
import re
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich import box
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sigmic_guard.cli.demo.counts import Counts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rich.console import RenderableType

    from sigmic_guard.cli.demo.verdict import Truth, Verdict

#: Columns of the picture.
WIDTH: Final = 100
#: Seconds between two lines where there is no terminal.
LINE_PERIOD: Final = 2.0

#: A picture must not load anything from elsewhere.
_FONT_FACE: Final = re.compile(r"@font-face\s*\{[^}]*\}\s*")

_REASONS: Final = {
    "user": "a user pressed cancel",
    "scope": "the caller left",
    "error": "the block raised",
    "deadline": "the deadline passed",
    "shutdown": "SIGTERM",
    "remote": "by somebody else",
    "orphan": "its owner had died",
}


class Display:
    """The screen while the demo runs."""

    def __init__(self, tasks: int) -> None:
        self._console = Console()
        self._tasks = tasks
        self._began = monotonic()
        self._phase = ""
        self._counts = Counts()
        self._truth: Truth | None = None
        self._line_due = 0.0
        self._live = (
            Live(get_renderable=self._screen, console=self._console, transient=True)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def phase(self, text: str) -> None:
        """Say what happens now."""
        self._phase = text
        if self._live is None:
            self._console.print(f"{self._seconds:5.1f} s  {text}", highlight=False, soft_wrap=True)

    def show(self, counts: Counts, truth: Truth | None) -> None:
        """Show how things stand."""
        self._counts, self._truth = counts, truth
        if self._live is None and monotonic() >= self._line_due:
            self._line_due = monotonic() + LINE_PERIOD
            live = counts.live
            self._console.print(
                f"{self._seconds:5.1f} s  {counts.ended} of {self._tasks} finished, "
                f"{live.get('running', 0)} running, {live.get('cancelling', 0)} cancelling",
                highlight=False,
                soft_wrap=True,
            )

    def finish(self, last: RenderableType, svg: Path | None) -> None:
        """Print the last screen, and draw it into a file."""
        self._console.print(last)
        if svg is not None:
            svg.write_text(draw(last), encoding="utf-8")

    @property
    def _seconds(self) -> float:
        return monotonic() - self._began

    def _screen(self) -> RenderableType:
        counts, seconds = self._counts, self._seconds
        rate = counts.ended / seconds if seconds else 0.0
        numbers = f" {counts.ended} of {self._tasks} finished, {rate:.0f}/s, {seconds:.1f} s"
        line = Table.grid()
        line.add_row(ProgressBar(self._tasks, counts.ended, width=44), Text(numbers))
        return Group(Text(self._phase, "bold"), line, _states(counts, self._truth))


def _states(counts: Counts, truth: Truth | None) -> Table:
    """Where the tasks are now, as both sides see it."""
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("now")
    table.add_column("supervisor", justify="right", min_width=10)
    table.add_column("emulator", justify="right", min_width=10)
    live, theirs = counts.live, truth.by_status if truth is not None else {}
    waiting = live.get("intent", 0) + live.get("creating", 0)
    rows: tuple[tuple[str, int, int | None], ...] = (
        ("waiting for a place, or being created", waiting, None),
        ("created, but the answer was lost", live.get("unknown", 0), None),
        ("running", live.get("running", 0), truth.live if truth is not None else 0),
        ("being cancelled", live.get("cancelling", 0) + live.get("unconfirmed", 0), None),
        ("completed", counts.with_outcome("completed"), theirs.get("completed", 0)),
        ("failed", counts.with_outcome("failed"), theirs.get("failed", 0)),
        (
            "cancelled",
            counts.with_outcome("cancelled", "timed_out") - counts.never_sent,
            theirs.get("cancelled", 0),
        ),
    )
    for name, ours, other in rows:
        table.add_row(name, str(ours), "" if other is None else str(other))
    return table


def last_screen(counts: Counts, verdict: Verdict, story: str) -> RenderableType:
    """Both sets of books, what is behind them, and the verdict."""
    books = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    books.add_column("tasks")
    books.add_column("supervisor\n(Prometheus)", justify="right")
    books.add_column("emulator\n(its truth)", justify="right")
    books.add_column("", justify="left")
    for check in verdict.checks:
        word = Text("agree", "green") if check.agrees else Text("DIFFER", "bold red")
        books.add_row(check.name, str(check.ours), str(check.theirs), word)

    behind = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    behind.add_column("behind the numbers\n", ratio=1)
    behind.add_column("\n", justify="right")
    for name, number in _details(counts):
        behind.add_row(name, str(number))

    if verdict.good:
        word = Text(f"{verdict.left_running} tasks left running. The books agree.", "bold green")
    else:
        differ = [] if all(check.agrees for check in verdict.checks) else ["The books differ."]
        problems = [f"{problem}." for problem in verdict.problems]
        left = f"{verdict.left_running} tasks left running."
        word = Text(" ".join((left, *differ, *problems)), "bold red")
    tables = Columns([books, behind], padding=(0, 3))
    return Group(Text(story), tables, word)


def _details(counts: Counts) -> Iterator[tuple[str, int]]:
    """Name what the supervisor's counts are made of."""
    reasons: dict[str, int] = {}
    for outcome in ("cancelled", "timed_out"):
        for reason, number in counts.finished.get(outcome, {}).items():
            reasons[reason] = reasons.get(reason, 0) + number
    for reason in sorted(reasons, key=[*_REASONS].index):
        yield f"cancelled: {_REASONS[reason]}", reasons[reason]
    if counts.never_sent:
        yield "… of these, had no place yet", counts.never_sent
    for result, number in counts.cancellations.items():
        if number:
            yield f"cancellations {result.replace('_', ' ')}", number
    for status, number in sorted(counts.deletes.items()):
        kind = f"answered {status}" if status.isdigit() else "not answered"
        yield f"DELETEs {kind}", number


def draw(screen: RenderableType) -> str:
    """Draw a screen as an SVG of a fixed width."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        no_color=False,
    )
    console.print(screen)
    return _FONT_FACE.sub("", console.export_svg(title="make demo"))
