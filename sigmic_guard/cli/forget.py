"""``sigmic-guard forget``: taking dead owners' rows off the books by hand."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from sigmic_guard.cli.codes import DONE, NOT_DONE
from sigmic_guard.cli.identifiers import ambiguity
from sigmic_guard.ledger import SqliteLedger, Write
from sigmic_guard.ledger.looking import find
from sigmic_guard.ledger.schema import clean_text
from sigmic_guard.lifecycle import Event, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.ledger.looking import OwnedRow

_MEANING: Final = (
    "a task that is forgotten is neither looked for nor ended by anybody: if it still runs, it "
    "runs on and is billed, until `sigmic-guard cancel` ends it"
)


async def forget(terminal: Terminal, identifiers: Sequence[str], *, path: str) -> int:
    """Take rows off the books, each by itself, and tell what came of it.

    The remote tasks are not touched.

    :raises LedgerError: the ledger cannot be read or written.
    """
    terminal.status(_MEANING)
    done = True
    for identifier in dict.fromkeys(map(clean_text, identifiers)):
        rows = await find(path, identifier)
        row, refusal = _choose(path, identifier, rows)
        if row is not None:
            refusal = await _forget(path, row)
        await _tell(terminal, identifier, row, refusal)
        done = done and refusal is None
    return DONE if done else NOT_DONE


def _choose(
    path: str, identifier: str, rows: Sequence[OwnedRow] | None
) -> tuple[OwnedRow | None, str | None]:
    """Return the row that is meant, or why there is none to forget."""
    if rows is None:
        return None, f"there is no ledger {path}"
    if not rows:
        return None, f"the ledger {path} has no such task"
    if (ambiguous := ambiguity(identifier, rows)) is not None:
        return None, ambiguous
    open_rows = [row for row in rows if not row.finished]
    if not open_rows:
        return None, f"is off the books already: it is {rows[0].record.state}"
    # What was handed over is nobody's, though its owner may have yet to go.
    orphans = [row for row in open_rows if row.orphan or row.record.over]
    if len(orphans) > 1:
        several = ", ".join(row.record.intent_id for row in orphans)
        return None, f"is the task of several rows: say which of {several}"
    if not orphans:
        return None, "its owner lives, and minds it: end that process, or use sigmic-guard cancel"
    return orphans[0], None


async def _forget(path: str, row: OwnedRow) -> str | None:
    """Write it down; return why that was refused."""
    record = row.record
    ledger = SqliteLedger(path)
    await ledger.open(uuid4().hex)
    try:
        [refusal] = await ledger.commit([Write(step(record, Event.FORGET, time()), record.version)])
    finally:
        await ledger.aclose()
    if refusal is None:
        return None
    return "changed meanwhile, somebody sees to it: look again with sigmic-guard explain"


async def _tell(
    terminal: Terminal, identifier: str, row: OwnedRow | None, refusal: str | None
) -> None:
    if terminal.json:
        shown = {
            "kind": "forgotten",
            "id": row.record.remote_id if row is not None else None,
            "intent_id": row.record.intent_id if row is not None else None,
            "asked": identifier,
            "forgotten": refusal is None,
            "message": refusal,
        }
        await terminal.object(shown)
    elif row is not None and refusal is None:
        was = f"was {row.record.state}"
        await terminal.row(identifier, "forgotten", was, widths=(36, 9, 0))
    if refusal is not None:
        terminal.problem(f"{identifier}: {refusal}")
