"""``sigmic-guard ps --watch``: the ledger again and again, drawn over itself on a terminal."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Final

from anyio import create_task_group, open_signal_receiver, sleep
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sigmic_guard.cli import columns, ps
from sigmic_guard.cli.codes import DONE, TERMINATED
from sigmic_guard.cli.terminal import one_line
from sigmic_guard.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio import CancelScope
    from anyio.abc import TaskStatus
    from rich.console import RenderableType

    from sigmic_guard.cli.ps import Choice, Tally
    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.ledger.looking import OwnedRow

#: Seconds between two looks at the ledger.
REFRESH_INTERVAL: Final = 1.0
#: Lines of the screen that are not rows: the head, the summary, the clock, and those left out.
_OTHER_LINES: Final = 5


async def watch(terminal: Terminal, *, path: str, choice: Choice) -> int:
    """Show the ledger until a signal comes: Ctrl-C is how one leaves, and no failure.

    A ledger that cannot be read later on is told of, and looked at again.

    :raises LedgerError: it cannot be read at first.
    """
    ending = _Ending()
    broken: OSError | LedgerError | None = None
    show = _draw if terminal.is_screen and not terminal.json else _repeat
    async with create_task_group() as group:
        await group.start(ending.wait, group.cancel_scope)
        try:
            await show(terminal, path, choice)
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


async def _repeat(terminal: Terminal, path: str, choice: Choice) -> None:
    """Show one look after the other."""
    looks = 0
    while True:
        try:
            tally = await ps.show(terminal, path, choice)
        except LedgerError as error:
            if not looks:
                raise
            await terminal.error(error)
        else:
            looks += 1
            if not terminal.json:
                await terminal.lines([f"{_clock(tally.taken_at)}\t{one_line(tally.summary)}"])
                if tally.problem is not None:
                    terminal.problem(tally.problem)
            await _pause(tally)
            continue
        await sleep(REFRESH_INTERVAL)


async def _draw(terminal: Terminal, path: str, choice: Choice) -> None:
    console = Console(no_color=None if terminal.colours else True)
    view, problem = await View.take(path, choice, console.height), ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(screen(view, console.width, problem), refresh=True)
            await _pause(view.tally)
            try:
                view, problem = await View.take(path, choice, console.height), ""
            except LedgerError as error:
                problem = str(error)


async def _pause(tally: Tally) -> None:
    """Wait for the next look: no less than the last one took, so that half of the time is free."""
    await sleep(max(REFRESH_INTERVAL, time() - tally.taken_at))


@dataclass(frozen=True, slots=True)
class View:
    """What there is to be seen at one moment: as many rows as a screen has room for."""

    rows: Sequence[OwnedRow]
    tally: Tally

    @classmethod
    async def take(cls, path: str, choice: Choice, height: int) -> View:
        """Look at the ledger.

        :param height: lines of the screen.
        :raises LedgerError: it cannot be read.
        """
        room = max(1, height - _OTHER_LINES)
        fitting = room if choice.limit is None else min(room, choice.limit)
        rows: list[OwnedRow] = []

        async def keep(more: Sequence[OwnedRow], _: float) -> None:
            rows.extend(more)

        tally = await ps.look(path, replace(choice, limit=fitting), keep)
        return cls(rows, tally)


def screen(view: View, width: int, problem: str = "") -> RenderableType:
    """Return the view as lines of this width.

    :param problem: why there is no newer view.
    """
    rows, tally = view.rows, view.tally
    widths = columns.widths(width)
    lines: list[RenderableType] = []
    for cells in (columns.heads(), *(columns.cells(row, tally.taken_at) for row in rows)):
        line = Text(no_wrap=True, overflow="crop")
        for text, look in columns.fitted(cells, widths):
            line.append(text, look)
        line.rstrip()
        lines.append(line)
    if not rows:
        lines.clear()
    if tally.hidden:
        lines.append(_line(f"… and {tally.hidden} more", "dim"))
    last = problem or tally.problem or f"{_clock(tally.taken_at)}, Ctrl-C leaves"
    return Group(
        *lines,
        _line(tally.summary, "bold red" if tally.orphans else "dim"),
        _line(last, "red" if problem or tally.problem else "dim"),
    )


def _line(text: str, look: str) -> Text:
    return Text(one_line(text), look, no_wrap=True, overflow="ellipsis")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
