"""``sigmic-guard reap``: what dead owners left, whatever the namespace and the system, is ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from anyio import current_time

from sigmic_guard import SigmicClient, SigmicGuardError
from sigmic_guard.cli.codes import CONNECTION, DONE, NOT_DONE
from sigmic_guard.ledger import CorruptRows
from sigmic_guard.ledger.looking import get, see_dead
from sigmic_guard.lifecycle import REAPABLE, Verdict
from sigmic_guard.lifecycle.explaining import span
from sigmic_guard.watchdog.reaping import reap, survey

if TYPE_CHECKING:
    from sigmic_guard import OrphanRow, ReapResult
    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.ledger import Orphan
    from sigmic_guard.lifecycle import Record

#: Seconds for a request to an API that seems not to work.
PROBE_TIMEOUT: Final = 5.0

_WIDTHS: Final = (36, 16, 12, 8, 0)
_WORDS: Final = {
    Verdict.REAP: "to be ended if it still runs",
    Verdict.RELEASE: "to be let go: it may run on",
    Verdict.WAIT: "somebody may still ask for its key",
    Verdict.OTHER_CREDENTIAL: "made with another API key, or for another account",
    Verdict.OTHER_SYSTEM: "made at what is no API",
}


async def command(
    terminal: Terminal, *, path: str, namespace: str | None, wait: float, dry_run: bool
) -> int:
    """End what dead owners left, or only tell; see the exit codes of ``sigmic-guard reap``."""
    terminal.leave_out("orphan.left", "shutdown.finished", "task.unconfirmed")
    until = current_time() + wait
    if not dry_run:
        await see_dead(path, namespace)
    found, corrupt = await survey(path, namespace)
    if corrupt:
        terminal.problem(str(CorruptRows(corrupt)))
    nothing_left = NOT_DONE if corrupt else DONE
    if not found:
        if not corrupt:
            terminal.status(f"no dead owner's task is left, says {path}")
        return nothing_left
    if dry_run:
        await terminal.header("task", "verdict", "state", "dead for", "", widths=_WIDTHS)
        if terminal.json:
            await terminal.objects(_plan_fields(*each) for each in found)
        else:
            await terminal.rows((_plan_words(*each) for each in found), widths=_WIDTHS)
        ours = [verdict for _, verdict in found if verdict in REAPABLE]
        terminal.status(f"{len(ours)} of {len(found)} to be seen to; nothing was done")
        return NOT_DONE if ours else nothing_left

    reapable = sum(verdict in REAPABLE for _, verdict in found)
    with terminal.progress(reapable, "ended") as count:
        rows, errors = await reap(path, found, until, lambda _: count())
    stored = await get(path, [row.intent_id for row in rows])
    await terminal.header("task", "result", "state", "dead for", "", widths=_WIDTHS)
    ended = [
        (row, stored[row.intent_id].record if row.intent_id in stored else orphan.record, verdict)
        for row, (orphan, verdict) in zip(rows, found, strict=True)
    ]
    if terminal.json:
        await terminal.objects(_end_fields(*each) for each in ended)
    else:
        await terminal.rows((_end_words(*each) for each in ended), widths=_WIDTHS)
    left = sum(row.result is None for row in rows)
    failed = [
        record for row, record, verdict in ended if row.result is None and verdict in REAPABLE
    ]
    not_ours = f", {left - len(failed)} of them not ours to end" if left > len(failed) else ""
    terminal.status(f"{len(rows) - left} of {len(rows)} seen to; {left} may still run{not_ours}")
    if errors:
        raise errors[0]
    if failed and await _is_out_of_order(terminal, {record.base_url for record in failed}):
        return CONNECTION
    return NOT_DONE if failed else nothing_left


def _plan_fields(orphan: Orphan, verdict: Verdict) -> dict[str, object]:
    return _fields(orphan.record, verdict, _age(orphan), dry_run=True)


def _plan_words(orphan: Orphan, verdict: Verdict) -> tuple[str, ...]:
    record = orphan.record
    name, age = record.remote_id or record.intent_id, span(_age(orphan))
    return name, verdict.value, record.state.value, age, _WORDS[verdict]


def _age(orphan: Orphan) -> float:
    return max(0.0, time.time() - orphan.orphaned_at)


def _end_fields(row: OrphanRow, record: Record, verdict: Verdict) -> dict[str, object]:
    shown = _fields(record, verdict, row.age, dry_run=False, result=row.result)
    return {**shown, "id": row.id}


def _end_words(row: OrphanRow, record: Record, verdict: Verdict) -> tuple[str, ...]:
    if row.result is not None:
        result, more = row.result.value, ""
    elif verdict in REAPABLE:
        result, more = "may_still_run", record.last_error or ""
    else:
        result, more = verdict.value, _WORDS[verdict]
    return row.id or row.intent_id, result, row.state.value, span(row.age), more


def _fields(
    record: Record,
    verdict: Verdict,
    age: float,
    *,
    dry_run: bool,
    result: ReapResult | None = None,
) -> dict[str, object]:
    return {
        "kind": "orphan",
        "id": record.remote_id,
        "intent_id": record.intent_id,
        "namespace": record.namespace,
        "base_url": record.base_url,
        "state": record.state,
        "verdict": verdict,
        "result": result,
        "dry_run": dry_run,
        "age": age,
        "last_error": None if result else record.last_error,
    }


async def _is_out_of_order(terminal: Terminal, base_urls: set[str]) -> bool:
    """Tell, where tasks could not be ended, whether it is the API or the key that does not work."""
    broken = False
    for base_url in sorted(base_urls):
        async with SigmicClient(base_url=base_url) as client:
            try:
                await client.list(limit=1, timeout=PROBE_TIMEOUT)
            except SigmicGuardError as error:
                terminal.problem(f"{base_url}: {error}")
                broken = True
    return broken
