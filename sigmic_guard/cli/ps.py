"""``sigmic-guard ps``: what a ledger knows of the tasks that are under way, and of their owners."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Final

from sigmic_guard.cli.codes import DONE, NOT_DONE
from sigmic_guard.cli.terminal import one_line
from sigmic_guard.ledger import CorruptRows
from sigmic_guard.ledger.looking import UnfinishedRows, unfinished
from sigmic_guard.lifecycle import State
from sigmic_guard.lifecycle.explaining import span
from sigmic_guard.lifecycle.orphan import is_expected
from sigmic_guard.watchdog.reaping import judge_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.ledger.looking import OwnedRow

HEADS: Final = ("task", "state", "owner", "age", "due", "reason", "namespace")


@dataclass(frozen=True, slots=True)
class View:
    """The unfinished rows of a ledger at one moment, dead owners' first, then the oldest.

    :ivar missing: whether there is no such ledger.
    :ivar corrupt: corrupt rows: why, by intent id.
    :ivar taken_at: seconds since the epoch.
    """

    path: str
    missing: bool
    rows: Sequence[OwnedRow]
    corrupt: Mapping[str, str]
    taken_at: float

    @property
    def orphans(self) -> int:
        """How many rows are a dead owner's, those not counted that wait for the next process."""
        return sum(row.orphan for row in self.rows) - self._waiting

    @property
    def handed_over(self) -> int:
        """How many rows an orderly shutdown left to whoever asks for their keys, in good time."""
        return sum(map(self._is_waiting, self.rows))

    @property
    def _waiting(self) -> int:
        return sum(row.orphan and self._is_waiting(row) for row in self.rows)

    def _is_waiting(self, row: OwnedRow) -> bool:
        record = row.record
        if row.alive:
            return record.state is State.HANDED_OVER
        return is_expected(record, judge_row(row, record.credential_fingerprint, self.taken_at))

    @property
    def code(self) -> int:
        """The exit code that says whether somebody should look at it."""
        return NOT_DONE if self.orphans or self.corrupt else DONE

    @property
    def summary(self) -> str:
        """The ledger in a line."""
        if self.missing:
            return f"there is no ledger {self.path}: nothing has written one yet"
        if self.corrupt:
            return f"{self._count}; {CorruptRows(self.corrupt)}"
        return self._count

    @property
    def _count(self) -> str:
        if not self.rows:
            return f"no task is under way, says {self.path}"
        count = f"{len(self.rows)} task{'s'[: len(self.rows) > 1]} in {self.path}"
        if self.handed_over:
            count += f"; {self.handed_over} handed over, for whoever asks for the key"
        if self.orphans:
            return f"{count}; {self.orphans} without a living owner: see sigmic-guard reap"
        return count if self.handed_over else f"{count}; every owner lives"

    @property
    def columns(self) -> int:
        """How many of ``HEADS`` to show: that of the namespace if there are several."""
        several = len({row.record.namespace for row in self.rows}) > 1
        return len(HEADS) if several else len(HEADS) - 1


async def take(path: str, namespace: str | None) -> View:
    """Look at the ledger.

    :param namespace: default: at all namespaces.
    :raises LedgerError: it cannot be read.
    """
    found = await unfinished(path, namespace)
    rows, corrupt = found or UnfinishedRows((), {})
    ordered = sorted(rows, key=lambda row: (row.alive, row.record.created_at))
    return View(path, found is None, ordered, corrupt, time())


async def ps(terminal: Terminal, *, path: str, namespace: str | None) -> int:
    """Show the ledger once; return whether somebody should look at it."""
    view = await take(path, namespace)
    await show(terminal, view)
    terminal.status(view.summary)
    return view.code


async def show(terminal: Terminal, view: View) -> None:
    """Show a line for each row; machines get a summary at the end."""
    if terminal.json:
        for row in view.rows:
            await terminal.object({"kind": "row", **fields(row, view.taken_at)})
        await terminal.object(
            {
                "kind": "ledger",
                "path": view.path,
                "exists": not view.missing,
                "at": view.taken_at,
                "tasks": len(view.rows),
                "orphans": view.orphans,
                "corrupt": view.corrupt,
            }
        )
        return
    shown = view.columns
    lines = [columns(row, view.taken_at)[:shown] for row in view.rows]
    heads = HEADS[:shown]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    if lines:
        await terminal.header(*heads, widths=widths)
    for line in lines:
        await terminal.row(*line, widths=widths)


def columns(row: OwnedRow, now: float) -> tuple[str, ...]:
    """Return what is shown of a row, in the order of ``HEADS``; nothing of it steers a terminal."""
    record = row.record
    return (
        one_line(record.remote_id or record.intent_id),
        record.state.value,
        "alive" if row.alive else "dead",
        span(now - record.created_at),
        "-" if record.deadline_at is None else span(record.deadline_at - now),
        "-" if record.reason is None else record.reason.value,
        one_line(record.namespace),
    )


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
        "age": now - record.created_at,
        "deadline": None if record.deadline_at is None else record.deadline_at - now,
        "attempts": record.attempts,
        "last_error": record.last_error,
    }
