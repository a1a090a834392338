"""What a row costs: microseconds for each write, by the size of the batch and by the ledger.

A task is three rows here: its intent, its id, its end. The disk is that of the temporary files.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import anyio
import msgspec

from sigmic_guard.ledger import MemoryLedger, SqliteLedger, Write
from sigmic_guard.lifecycle import Record, State, TaskPolicy

if TYPE_CHECKING:
    from sigmic_guard.ledger import Ledger

BATCHES: Final = (1, 8, 64, 512)
#: Rows for each measurement; commits of one row each are few, for they are dear.
ROWS: Final = 12_288
FEW: Final = 768

_but = msgspec.structs.replace


def three(created_at: float) -> list[Write]:
    intent = Record(
        intent_id=uuid4().hex,
        namespace="default",
        base_url="https://sigmic.example/api",
        credential_fingerprint="0123456789abcdef",
        owner_id="0" * 32,
        policy=TaskPolicy(timeout=60.0),
        created_at=created_at,
        deadline_at=created_at + 60,
    )
    running = _but(
        intent, version=3, state=State.RUNNING, remote_id=str(uuid4()), posted_at=created_at
    )
    done = _but(running, version=5, state=State.COMPLETED, finished_at=created_at + 1)
    return [Write(intent, 0), Write(running, 1), Write(done, 3)]


async def microseconds(ledger: Ledger, batch: int) -> float:
    """Mean for each row."""
    rows = ROWS if batch >= 64 else FEW
    await ledger.open(uuid4().hex)
    now = time.time()
    tasks = [three(now) for _ in range(rows // 3)]
    spent = 0.0
    for start in range(0, len(tasks), batch):
        for step in range(3):
            writes = [task[step] for task in tasks[start : start + batch]]
            began = time.perf_counter()
            refusals = await ledger.commit(writes)
            spent += time.perf_counter() - began
            assert not any(refusals)
    await ledger.aclose()
    return spent / rows * 1e6


async def main() -> None:
    print(f"{'rows a commit':>14}{'memory':>12}{'sqlite, FULL':>16}   µs a row")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for batch in BATCHES:
            memory = await microseconds(MemoryLedger(), batch)
            sqlite = await microseconds(SqliteLedger(Path(folder) / f"{batch}.db"), batch)
            print(f"{batch:>14}{memory:>12.1f}{sqlite:>16.1f}")


if __name__ == "__main__":
    anyio.run(main)
