"""``sigmic-guard ps``: what a ledger knows of the tasks that are under way, and of their owners."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from sigmic_guard.cli import columns
from sigmic_guard.cli.codes import DONE, NOT_DONE
from sigmic_guard.ledger import CorruptRows
from sigmic_guard.ledger.looking import paged
from sigmic_guard.lifecycle import State
from sigmic_guard.lifecycle.orphan import is_expected
from sigmic_guard.watchdog.reaping import judge_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.ledger.looking import OwnedRow
    from sigmic_guard.ledger.statements import Order


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows are shown, and in which order; all of them are counted."""

    namespace: str | None = None
    #: Default: dead owners' first, and then the oldest.
    order: Order | None = None
    #: Default: all.
    states: frozenset[State] = frozenset()
    #: Only those of dead owners.
    dead: bool = False
    #: Default: all.
    limit: int | None = None

    def fits(self, row: OwnedRow) -> bool:
        """Tell whether it is one of them, but for the limit."""
        if self.dead and row.alive:
            return False
        return not self.states or row.record.state in self.states


@dataclass(slots=True)
class Tally:
    """The unfinished rows of a ledger at one moment, counted.

    :ivar taken_at: seconds since the epoch.
    :ivar missing: whether there is no such ledger.
    :ivar orphans: how many rows are a dead owner's, those not counted that wait for the next
        process.
    :ivar handed_over: how many an orderly shutdown left to whoever asks for their keys, in time.
    :ivar doubtful: how many have an owner of whom this user may not tell whether it lives.
    :ivar chosen: how many were to be shown, and ``shown`` how many were, for want of room.
    :ivar corrupt: corrupt rows: why, by intent id.
    """

    path: str
    taken_at: float
    missing: bool = False
    tasks: int = 0
    orphans: int = 0
    handed_over: int = 0
    doubtful: int = 0
    chosen: int = 0
    shown: int = 0
    corrupt: dict[str, str] = field(default_factory=dict)

    def count(self, row: OwnedRow) -> None:
        """Count one more."""
        waiting = self._is_waiting(row)
        self.tasks += 1
        self.handed_over += waiting
        self.orphans += row.orphan and not waiting
        self.doubtful += row.doubtful

    def _is_waiting(self, row: OwnedRow) -> bool:
        record = row.record
        if record.state is not State.HANDED_OVER:
            return False
        if row.alive:
            return True
        return is_expected(record, judge_row(row, record.credential_fingerprint, self.taken_at))

    @property
    def code(self) -> int:
        """The exit code that says whether somebody should look at it."""
        return NOT_DONE if self.orphans or self.corrupt else DONE

    @property
    def hidden(self) -> int:
        """How many more there are than were shown."""
        return self.chosen - self.shown

    @property
    def summary(self) -> str:
        """The ledger in a line."""
        if self.missing:
            return f"nothing has been written yet: there is no ledger {self.path}"
        told = ["no task is under way"]
        if self.tasks:
            told = [f"{self.tasks} task{'s'[: self.tasks > 1]}"]
            if self.handed_over:
                told.append(f"{self.handed_over} handed over, for whoever asks for the key")
            if self.orphans:
                told.append(f"{self.orphans} without a living owner: see sigmic-guard reap")
            if self.doubtful:
                told.append(f"{self.doubtful} whose owner's lock file this user may not read")
            if len(told) == 1:
                told.append("every owner lives")
        if self.corrupt:
            told.append(f"{len(self.corrupt)} corrupt")
        return "; ".join((*told, self.path))

    @property
    def problem(self) -> str | None:
        """What is wrong with the ledger."""
        return str(CorruptRows(self.corrupt)) if self.corrupt else None


async def look(
    path: str,
    choice: Choice,
    show: Callable[[Sequence[OwnedRow], float], Awaitable[object]],
) -> Tally:
    """Read the ledger, and have the chosen rows shown as they come.

    :param show: gets some of the rows, and the time in seconds since the epoch.
    :raises LedgerError: it cannot be read.
    """
    tally = Tally(path, time())
    async with paged(path, choice.namespace, choice.order) as pages:
        if pages is None:
            tally.missing = True
            return tally
        async for page in pages:
            tally.corrupt.update(page.corrupt)
            for row in page.readable:
                tally.count(row)
            chosen = [*filter(choice.fits, page.readable)]
            tally.chosen += len(chosen)
            if choice.limit is not None:
                chosen = chosen[: choice.limit - tally.shown]
            tally.shown += len(chosen)
            if chosen:
                await show(chosen, tally.taken_at)
    return tally


async def ps(terminal: Terminal, *, path: str, choice: Choice, quiet: bool) -> int:
    """Show the ledger once; return whether somebody should look at it.

    :param quiet: show ids only.
    """
    tally = await show(terminal, path, choice, quiet=quiet)
    if not quiet:
        alarming = {"fg": "red", "bold": True} if tally.orphans else {}
        terminal.status(tally.summary, **alarming)
    if tally.problem is not None:
        terminal.problem(tally.problem)
    return tally.code


async def show(terminal: Terminal, path: str, choice: Choice, *, quiet: bool = False) -> Tally:
    """Show a line for each row, and how many more there are; machines get a summary at the end."""
    if terminal.json:
        tally = await look(
            path,
            choice,
            lambda rows, now: terminal.objects(
                [{"kind": "row", **fields(row, now)} for row in rows]
            ),
        )
        await terminal.objects([_summary(tally)])
        return tally
    fitted = None if quiet else terminal.width
    widths = columns.widths(fitted or 0)
    begun = False

    def line(row: Sequence[columns.Cell]) -> str:
        if fitted is None:
            return columns.piped(row)
        return columns.coloured(columns.fitted(row, widths), colours=terminal.colours)

    async def show_rows(rows: Sequence[OwnedRow], now: float) -> None:
        nonlocal begun
        if quiet:
            await terminal.lines(map(columns.name, rows))
            return
        head = [] if begun or fitted is None else [columns.heads()]
        begun = True
        await terminal.lines(map(line, [*head, *(columns.cells(row, now) for row in rows)]))

    tally = await look(path, choice, show_rows)
    if tally.hidden and not quiet:
        terminal.status(f"… and {tally.hidden} more")
    return tally


def _summary(tally: Tally) -> dict[str, object]:
    return {
        "kind": "ledger",
        "path": tally.path,
        "exists": not tally.missing,
        "at": tally.taken_at,
        "tasks": tally.tasks,
        "orphans": tally.orphans,
        "shown": tally.shown,
        "hidden": tally.hidden,
        "corrupt": tally.corrupt,
    }


def fields(row: OwnedRow, now: float) -> dict[str, object]:
    """Return what machines are shown of a row; ``age`` and ``deadline`` are seconds from now."""
    record = row.record
    return {
        "id": record.remote_id,
        "intent_id": record.intent_id,
        "namespace": record.namespace,
        "key": record.key,
        "base_url": record.base_url,
        "state": record.state,
        "reason": record.reason,
        "owner": "alive" if row.alive else "dead",
        "owner_id": record.owner_id,
        "owner_seen_at": row.seen,
        "pid": row.pid,
        "doubtful": row.doubtful,
        "age": now - record.created_at,
        "deadline": None if record.deadline_at is None else record.deadline_at - now,
        "attempts": record.attempts,
        "last_error": record.last_error,
    }
