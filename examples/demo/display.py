"""Where the demo is shown: a screen that lives, lines where there is no terminal, a picture."""

from __future__ import annotations

import io
import re
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.counts import Counts
from demo.screens import states

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rich.console import RenderableType

    from demo.verdict import Truth

#: Columns of the picture.
WIDTH: Final = 100
#: Seconds between two lines where there is no terminal.
LINE_INTERVAL: Final = 2.0

#: A picture must not load anything from elsewhere.
_FONT_FACE: Final = re.compile(r"@font-face\s*\{[^}]*\}\s*")


class Display:
    """The screen while the demo runs."""

    def __init__(self) -> None:
        self._console = Console()
        self._began = monotonic()
        self._phase = ""
        self._line_due = 0.0
        self.act(0, states)
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

    def act(self, tasks: int, table: Callable[[Counts, Truth | None], Table]) -> None:
        """Begin an act of so many tasks, which this table shows."""
        self._tasks = tasks
        self._table = table
        self._act_began = monotonic()
        self._counts = Counts()
        self._truth: Truth | None = None

    def phase(self, text: str) -> None:
        """Say what happens now."""
        self._phase = text
        if self._live is None:
            seconds = monotonic() - self._began
            self._console.print(f"{seconds:5.1f} s  {text}", highlight=False, soft_wrap=True)

    def see(self, truth: Truth) -> None:
        """Show how things stand with the emulator."""
        self._truth = truth

    def show(self, counts: Counts) -> None:
        """Show how things stand with the supervisor."""
        self._counts = counts
        if self._live is None and monotonic() >= self._line_due:
            self._line_due = monotonic() + LINE_INTERVAL
            live, seconds = counts.live, monotonic() - self._began
            self._console.print(
                f"{seconds:5.1f} s  {counts.ended} of {self._tasks} finished, "
                f"{live.get('running', 0)} running, {live.get('cancelling', 0)} cancelling",
                highlight=False,
                soft_wrap=True,
            )

    def finish(self, last: RenderableType, svg: Path | None) -> None:
        """Print the last screen, and draw it into a file."""
        self._console.print(last)
        if svg is not None:
            svg.write_text(draw(last), encoding="utf-8")

    def _screen(self) -> RenderableType:
        counts, seconds = self._counts, monotonic() - self._act_began
        rate = counts.ended / seconds if seconds else 0.0
        numbers = f" {counts.ended} of {self._tasks} finished, {rate:.0f}/s, {seconds:.1f} s"
        line = Table.grid()
        line.add_row(ProgressBar(self._tasks, counts.ended, width=44), Text(numbers))
        return Group(Text(self._phase, "bold"), line, self._table(counts, self._truth))


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
