"""The columns of ``sigmic-guard ps``: what a row says, in which colours, and how wide.

They do not depend on the data. Into a pipe all of them go; on a terminal those that fit, and what
is wide there is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from unicodedata import combining, east_asian_width

from sigmic_guard.cli.terminal import one_line
from sigmic_guard.lifecycle import State
from sigmic_guard.lifecycle.explaining import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sigmic_guard.ledger.looking import OwnedRow


class Column(NamedTuple):
    """A column, its widths on a terminal, and how soon it is left out where there is no room."""

    name: str
    least: int
    most: int
    #: The greatest goes first.
    rank: int


#: An id is cut to what is certain to be unique, and can be given to any command.
COLUMNS: Final = (
    Column("task", 13, 36, 0),
    Column("state", 11, 11, 1),
    Column("key", 10, 32, 3),
    Column("pid", 7, 7, 4),
    Column("owner", 13, 13, 2),
    Column("age", 6, 6, 5),
    Column("due", 7, 7, 6),
    Column("reason", 10, 10, 7),
    Column("namespace", 9, 24, 8),
)
_GAP: Final = "  "
#: Which columns get wider where there is room, first things first.
_GROWING: Final = (0, 2, 8)

#: The looks of a text, and what a terminal is told for them.
LOOKS: Final[Mapping[str, str]] = {"yellow": "33", "red": "31", "bold red": "1;31", "bold": "1"}
_STATES: Final = {
    State.CANCELLING: "yellow",
    State.UNKNOWN: "yellow",
    State.UNCONFIRMED: "red",
}


class Cell(NamedTuple):
    """A text, and its look: one of ``LOOKS``, or none."""

    text: str
    look: str = ""


def heads() -> list[Cell]:
    """Return the columns' names."""
    return [Cell(column.name, "bold") for column in COLUMNS]


def cells(row: OwnedRow, now: float) -> list[Cell]:
    """Return what is shown of a row, in the order of ``COLUMNS``; nothing of it steers a terminal.

    :param now: seconds since the epoch.
    """
    record = row.record
    expected = row.alive or record.state is State.HANDED_OVER
    return [
        Cell(name(row)),
        Cell(record.state.value, _STATES.get(record.state, "")),
        Cell("-" if record.key is None else one_line(record.key)),
        Cell("-" if row.pid is None else str(row.pid)),
        Cell(life(row, now), "" if expected else "bold red"),
        Cell(span(now - record.created_at)),
        Cell("-" if record.deadline_at is None else span(record.deadline_at - now)),
        Cell("-" if record.reason is None else record.reason.value),
        Cell(one_line(record.namespace)),
    ]


def name(row: OwnedRow) -> str:
    """Return by what a task is called: its id, or that of its intent."""
    return one_line(row.record.remote_id or row.record.intent_id)


def life(row: OwnedRow, now: float) -> str:
    """Tell whether the owner lives and, if it does not, since when there is no sign of life."""
    if row.alive:
        return "alive?" if row.doubtful else "alive"
    told = span(max(0.0, now - row.orphaned_at))
    first = next(at for at, char in enumerate(told) if char.isalpha())
    return f"dead for {told[: first + 1]}"


def piped(row: Sequence[Cell]) -> str:
    """Return all cells with tabs between them."""
    return "\t".join(cell.text for cell in row)


def widths(columns: int) -> list[int]:
    """Return how wide each column is where there are so many columns; 0 if it is left out."""
    found = [0] * len(COLUMNS)
    left = columns + len(_GAP)
    for at in sorted(range(len(COLUMNS)), key=lambda at: COLUMNS[at].rank):
        needed = COLUMNS[at].least + len(_GAP)
        if needed > left and any(found):
            return found
        found[at] = COLUMNS[at].least
        left -= needed
    for at in _GROWING:
        more = max(0, min(left, COLUMNS[at].most - COLUMNS[at].least))
        found[at] += more
        left -= more
    return found


def fitted(row: Sequence[Cell], shown: Sequence[int]) -> list[Cell]:
    """Return the cells that are shown, at their widths, and the gaps between them."""
    out: list[Cell] = []
    for at, (cell, width) in enumerate(zip(row, shown, strict=True)):
        if width:
            # A part of an id can be copied, and names the task; a sign behind it would not.
            text = cut(cell.text, width, "" if at == 0 else "…")
            room = " " * (width - cells_of(text))
            out += [Cell(text, cell.look), Cell(f"{room}{_GAP}")]
    return out


def coloured(row: Sequence[Cell], *, colours: bool) -> str:
    """Return the line, with what makes a terminal show its colours."""
    texts = [
        f"\x1b[{LOOKS[cell.look]}m{cell.text}\x1b[0m" if colours and cell.look else cell.text
        for cell in row
    ]
    return "".join(texts).rstrip()


def cut(text: str, width: int, end: str) -> str:
    """Return as much of the text as fits; where it does not, with ``end`` behind it."""
    if cells_of(text) <= width:
        return text
    while cells_of(text) + len(end) > width:
        text = text[:-1]
    return text + end


def cells_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )
