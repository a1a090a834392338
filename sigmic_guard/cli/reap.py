"""Ending what dead owners left in a ledger, whatever the namespace and the system: :func:`reap`.

``sigmic-guard reap`` and ``sigmic-guard exec`` come down to this. The work is a supervisor's; the
ledger is what is believed of it in the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from anyio import create_task_group, current_time, move_on_after, sleep
from prometheus_client import CollectorRegistry

from sigmic_guard import (
    LedgerError,
    OrphanRow,
    ReapResult,
    SigmicClient,
    SigmicGuardError,
    State,
    Supervisor,
)
from sigmic_guard.cli.codes import CONNECTION, DONE, NOT_DONE
from sigmic_guard.cli.ledger import judge_row
from sigmic_guard.cli.terminal import span
from sigmic_guard.ledger import IllegibleRows, Orphan, SqliteLedger
from sigmic_guard.ledger.looking import UnfinishedRows, get, see_dead, unfinished
from sigmic_guard.lifecycle import REAPABLE, Verdict, contradiction
from sigmic_guard.sigmic.keyring import Keyring
from sigmic_guard.supervisor.ground.telling import result_of_orphan

if TYPE_CHECKING:
    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.lifecycle import Record

#: Seconds before the ledger is tried again.
RETRY: Final = 0.5
#: Seconds that ending our part may take beyond the time to wait.
GRACE: Final = 1.0
#: Seconds for the look at an API that seems not to work.
PROBE: Final = 5.0

_WIDTHS: Final = (36, 16, 12, 8, 0)
_WORDS: Final = {
    Verdict.REAP: "to be ended if it still runs",
    Verdict.RELEASE: "to be let go: it may run on",
    Verdict.WAIT: "somebody may still ask for its key",
    Verdict.OTHER_CREDENTIAL: "made with another API key, or for another account",
    Verdict.OTHER_SYSTEM: "made at what is no API",
}


# --- the work -------------------------------------------------------------------------------------


class Survey(NamedTuple):
    """What dead owners left."""

    #: And what is to become of it if we are asked.
    found: Sequence[tuple[Orphan, Verdict]]
    #: Rows that make no sense here, whose owners may live: why, by intent id.
    illegible: Mapping[str, str]


async def survey(path: str, namespace: str | None = None) -> Survey:
    """Return what dead owners left. Writes nothing, and sends nothing.

    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read.
    :raises ConfigurationError: there is no credential.
    """
    fingerprint = Keyring().fingerprint
    rows, illegible = await unfinished(path, namespace) or UnfinishedRows((), {})
    found, illegible, now = list[tuple[Orphan, Verdict]](), dict(illegible), time.time()
    for row in rows:
        if not row.orphan:
            continue
        if (why := contradiction(row.record)) is not None:
            illegible[row.record.intent_id] = why
        else:
            orphan = Orphan(row.record, row.orphaned_at, row.dead_for)
            found.append((orphan, judge_row(row, fingerprint, now)))
    return Survey(found, illegible)


async def reap(path: str, *, wait: float, namespace: str | None = None) -> Sequence[OrphanRow]:
    """End what dead owners left, and tell of each task what came of it.

    :param wait: seconds to try for. Ending the attempt takes a second more at most.
    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read.
    :raises ConfigurationError: there is no credential.
    """
    until = current_time() + wait
    await see_dead(path, namespace)
    return await reap_found(path, (await survey(path, namespace)).found, until)


async def reap_found(
    path: str, found: Sequence[tuple[Orphan, Verdict]], until: float
) -> list[OrphanRow]:
    """End what was found, and tell of each task, in their order, what came of it.

    :param until: when to stop trying, by the event loop's clock.
    :raises LedgerError: the ledger cannot be read.
    """
    places = {
        (record.base_url, record.namespace)
        for (record, _, _), verdict in found
        if verdict in REAPABLE
    }
    reported: dict[str, OrphanRow] = {}
    broken: list[SigmicGuardError] = []

    async def see_to(base_url: str, namespace: str) -> None:
        try:
            rows = await _reap_there(path, base_url, namespace, until)
        except SigmicGuardError as error:
            broken.append(error)
        else:
            reported.update((row.intent_id, row) for row in rows)

    async with create_task_group() as group:
        for place in sorted(places):
            group.start_soon(see_to, *place)
    if broken:
        raise broken[0]
    records = await _until_settled(path, found, until)
    now = time.time()
    rows = [_tell(orphan, verdict, records, now) for orphan, verdict in found]
    # Who did it knows best how.
    return [row if row.result is None else reported.get(row.intent_id, row) for row in rows]


async def _reap_there(
    path: str, base_url: str, namespace: str, until: float
) -> Sequence[OrphanRow]:
    """End what was left in one namespace of one system."""
    supervisor = Supervisor(
        base_url=base_url,
        ledger=SqliteLedger(path),
        namespace=namespace,
        registry=CollectorRegistry(),
        grace=GRACE,
    )
    async with supervisor:
        with move_on_after(until - current_time()):
            while True:
                try:
                    return (await supervisor.reap()).reaped
                except LedgerError:
                    await sleep(RETRY)
    return []


async def _until_settled(
    path: str, found: Sequence[tuple[Orphan, Verdict]], until: float
) -> dict[str, Record]:
    """Wait for whoever was quicker than we were, and return the rows by intent id."""
    ours = {record.intent_id for (record, _, _), verdict in found if verdict in REAPABLE}
    while True:
        rows = await get(path, [record.intent_id for (record, _, _), _ in found])
        pursued = any(
            row.alive and not row.record.over and row.record.state is not State.UNCONFIRMED
            for intent_id, row in rows.items()
            if intent_id in ours
        )
        if not pursued or current_time() + RETRY > until:
            return {intent_id: row.record for intent_id, row in rows.items()}
        await sleep(RETRY)


def _tell(orphan: Orphan, verdict: Verdict, records: dict[str, Record], now: float) -> OrphanRow:
    """Say what the ledger holds now of what was found."""
    record = records.get(orphan.record.intent_id, orphan.record)
    result = result_of_orphan(record)
    return OrphanRow(
        id=record.remote_id,
        intent_id=record.intent_id,
        state=record.state,
        result=result,
        why=None if result else record.state.value if verdict in REAPABLE else verdict.value,
        age=max(0.0, (record.finished_at or now) - orphan.orphaned_at),
    )


# --- the command ----------------------------------------------------------------------------------


async def command(
    terminal: Terminal, *, path: str, namespace: str | None, wait: float, dry_run: bool
) -> int:
    """End what dead owners left, or only tell; see the exit codes of ``sigmic-guard reap``."""
    terminal.leave_out("orphan.left", "shutdown.finished", "task.unconfirmed")
    until = current_time() + wait
    if not dry_run:
        await see_dead(path, namespace)
    found, illegible = await survey(path, namespace)
    if illegible:
        terminal.problem(str(IllegibleRows(illegible)))
    nothing_left = NOT_DONE if illegible else DONE
    if not found:
        if not illegible:
            terminal.status(f"no dead owner's task is left, says {path}")
        return nothing_left
    if dry_run:
        await terminal.header("task", "verdict", "state", "dead for", "", widths=_WIDTHS)
        for orphan, verdict in found:
            await _show_plan(terminal, orphan, verdict)
        ours = [verdict for _, verdict in found if verdict in REAPABLE]
        terminal.status(f"{len(ours)} of {len(found)} to be seen to; nothing was done")
        return NOT_DONE if ours else nothing_left

    rows = await reap_found(path, found, until)
    stored = await get(path, [row.intent_id for row in rows])
    await terminal.header("task", "result", "state", "dead for", "", widths=_WIDTHS)
    failed: list[Record] = []
    for row, (orphan, verdict) in zip(rows, found, strict=True):
        record = stored[row.intent_id].record if row.intent_id in stored else orphan.record
        await _show(terminal, row, record, verdict)
        if row.result is None and verdict in REAPABLE:
            failed.append(record)
    done = sum(row.result is not None for row in rows)
    terminal.status(f"{done} of {len(rows)} seen to; {len(failed)} may still run")
    if failed and await _is_out_of_order(terminal, {record.base_url for record in failed}):
        return CONNECTION
    return NOT_DONE if failed else nothing_left


async def _show_plan(terminal: Terminal, orphan: Orphan, verdict: Verdict) -> None:
    record, age = orphan.record, max(0.0, time.time() - orphan.orphaned_at)
    if terminal.json:
        await terminal.object(_fields(record, verdict, age, dry_run=True))
        return
    name = record.remote_id or record.intent_id
    words = (verdict.value, record.state.value, span(age), _WORDS[verdict])
    await terminal.row(name, *words, widths=_WIDTHS)


async def _show(terminal: Terminal, row: OrphanRow, record: Record, verdict: Verdict) -> None:
    if terminal.json:
        shown = _fields(record, verdict, row.age, dry_run=False, result=row.result)
        await terminal.object({**shown, "id": row.id})
        return
    if row.result is not None:
        result, more = row.result.value, ""
    elif verdict in REAPABLE:
        result, more = "may_still_run", record.last_error or ""
    else:
        result, more = verdict.value, _WORDS[verdict]
    words = (result, row.state.value, span(row.age), more)
    await terminal.row(row.id or row.intent_id, *words, widths=_WIDTHS)


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
                await client.list(limit=1, timeout=PROBE)
            except SigmicGuardError as error:
                terminal.problem(f"{base_url}: {error}")
                broken = True
    return broken
