"""``sigmic-guard ps --watch``: the ledger again and again, drawn over itself on a terminal."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from anyio import create_task_group, open_signal_receiver, sleep
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sigmic_guard.cli import ps
from sigmic_guard.cli.codes import DONE, TERMINATED
from sigmic_guard.cli.terminal import one_line
from sigmic_guard.errors import LedgerError

if TYPE_CHECKING:
    from anyio import CancelScope
    from anyio.abc import TaskStatus
    from rich.console import RenderableType

    from sigmic_guard.cli.ps import View
    from sigmic_guard.cli.terminal import Terminal

#: Seconds between two looks at the ledger.
REFRESH_INTERVAL: Final = 1.0
#: Lines of the screen that are not rows: the head, the summary, the clock, and those left out.
_OTHER_LINES: Final = 5

_LOOKS: Final = {"cancelling": "yellow", "unconfirmed": "red", "unknown": "yellow"}


async def watch(terminal: Terminal, *, path: str, namespace: str | None) -> int:
    """Show the ledger until a signal comes: Ctrl-C is how one leaves, and no failure.

    A ledger that cannot be read later on is told of, and looked at again.

    :raises LedgerError: it cannot be read at first.
    """
    ending = _Ending()
    broken: OSError | LedgerError | None = None
    async with create_task_group() as group:
        await group.start(ending.wait, group.cancel_scope)
        try:
            view = await ps.take(path, namespace)
            if terminal.is_screen and not terminal.json:
                await _draw(view, namespace)
            else:
                await _repeat(terminal, view, namespace)
        except (OSError, LedgerError) as error:
            broken = error  # out of the group it would come as a group
            group.cancel_scope.cancel()
    if broken is not None:
        raise broken
    return ending.code


class _Ending:
    """The signal that ends it."""

    code = DONE

    async def wait(self, scope: CancelScope, *, task_status: TaskStatus[None]) -> None:
        """Cancel the scope when it comes."""
        with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self.code = DONE if number == signal.SIGINT else TERMINATED
                scope.cancel()


async def _repeat(terminal: Terminal, view: View, namespace: str | None) -> None:
    """Show one look after the other."""
    while True:
        if not terminal.json:
            await terminal.row(_clock(view.taken_at), view.summary, widths=(20, 0))
        await ps.show(terminal, view)
        await sleep(REFRESH_INTERVAL)
        try:
            view = await ps.take(view.path, namespace)
        except LedgerError as error:
            await terminal.error(error)


async def _draw(view: View, namespace: str | None) -> None:
    console = Console()
    problem = ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(screen(view, console.height, problem), refresh=True)
            await sleep(REFRESH_INTERVAL)
            try:
                view, problem = await ps.take(view.path, namespace), ""
            except LedgerError as error:
                problem = str(error)


def screen(view: View, height: int, problem: str = "") -> RenderableType:
    """Return the view as a table of as many rows as fit into the height.

    :param problem: why there is no newer view.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = view.columns
    for name in ps.HEADS[:shown]:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    fitting = max(1, height - _OTHER_LINES)
    for row in view.rows[:fitting]:
        texts = [Text(text) for text in ps.columns(row, view.taken_at)[:shown]]
        texts[1].stylize(_LOOKS.get(row.record.state.value, ""))
        texts[2].stylize("" if row.alive else "bold red")
        table.add_row(*texts)
    lines: list[RenderableType] = [table] if view.rows else []
    if (hidden := len(view.rows) - fitting) > 0:
        lines.append(Text(f"… and {hidden} more", "dim"))
    last = problem or f"{_clock(view.taken_at)}, Ctrl-C leaves"
    lines += [
        _line(view.summary, "bold red" if view.orphans else "dim"),
        _line(last, "red" if problem else "dim"),
    ]
    return Group(*lines)


def _line(text: str, look: str) -> Text:
    return Text(one_line(text), look, no_wrap=True, overflow="ellipsis")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
