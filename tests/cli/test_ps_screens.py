"""What ``sigmic-guard ps`` looks like: narrow, wide, in colour, in a pipe.

``SIGMIC_GUARD_GOLDEN=1`` writes the file anew; then look at what changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sigmic_guard.cli import columns
from sigmic_guard.ledger.looking import OwnedRow
from sigmic_guard.lifecycle import CancelReason, State
from sigmic_guard.testing.records import make_record

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN: Final = Path(__file__).parent / "golden" / "ps.txt"
NOW: Final = 1_769_442_600.0
ROWS: Final = (
    OwnedRow(
        make_record(
            "0e7b1c6e55d24fd1a1f0a6a1b1c0ffee",
            state=State.UNKNOWN,
            created_at=NOW - 100_000,
            deadline_at=NOW - 125,
            reason=CancelReason.DEADLINE,
        ),
        alive=False,
        seen=None,
        wanted=False,
    ),
    OwnedRow(
        make_record(
            remote_id="c37c1d78-4d23-4e53-949a-ddd775f25e01",
            state=State.UNCONFIRMED,
            created_at=NOW - 3_700,
            key="nightly-report/2026-01-26/eu-west-1",
            reason=CancelReason.DISCONNECT,
            namespace="reports",
        ),
        alive=False,
        seen=NOW - 185,
        wanted=False,
        pid=4711,
    ),
    OwnedRow(
        make_record(
            remote_id="8a2f9b10-9c1e-4d7f-8f10-0a1b2c3d4e5f",
            state=State.HANDED_OVER,
            created_at=NOW - 60,
            key="夜の集計、東京",
        ),
        alive=False,
        seen=NOW - 30,
        wanted=False,
        pid=1,
    ),
    OwnedRow(
        make_record(
            remote_id="f00dfeed-0000-4000-8000-000000000001",
            state=State.RUNNING,
            created_at=NOW - 5,
            deadline_at=NOW + 3_900,
        ),
        alive=True,
        seen=NOW - 1,
        wanted=False,
        pid=1_234_567,
    ),
    OwnedRow(
        make_record(
            remote_id="f00dfeed-0000-4000-8000-000000000002",
            state=State.CANCELLING,
            created_at=NOW - 5,
            reason=CancelReason.USER,
        ),
        alive=True,
        seen=NOW - 1,
        wanted=False,
        pid=99,
        doubtful=True,
    ),
)


def screens() -> Iterator[str]:
    """Return each of them under a line that says which it is; an escape is written out."""
    cells = [columns.cells(row, NOW) for row in ROWS]
    yield "# in a pipe"
    yield from map(columns.piped, cells)
    for width, colours in ((40, False), (80, False), (80, True), (200, False)):
        yield f"# {width} columns{', in colour' if colours else ''}"
        widths = columns.widths(width)
        for line in (columns.heads(), *cells):
            text = columns.coloured(columns.fitted(line, widths), colours=colours)
            yield text.replace("\x1b", "\\e")


def test_screens() -> None:
    """They are as the file has them."""
    shown = "".join(f"{line}\n" for line in screens())
    if os.environ.get("SIGMIC_GUARD_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(shown, encoding="utf-8")
    assert shown == GOLDEN.read_text(encoding="utf-8")
