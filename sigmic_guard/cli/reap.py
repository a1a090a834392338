"""Ending what dead owners left in a ledger, whatever the namespace and the system: :func:`reap`.

``sigmic-guard reap`` and ``sigmic-guard exec`` come down to this. The work is a supervisor's; the
ledger is what is believed of it in the end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from anyio import create_task_group, current_time, move_on_after, sleep
from prometheus_client import CollectorRegistry

from sigmic_guard import LedgerError, OrphanRow, ReapResult, State, Supervisor
from sigmic_guard.ledger import find_orphans, open_ledger
from sigmic_guard.lifecycle import CancelReason, Verdict, judge
from sigmic_guard.sigmic.credentials import Credential

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.ledger import Orphan
    from sigmic_guard.lifecycle import Record

#: Seconds before the ledger is tried again.
RETRY: Final = 0.5


async def survey(url: str, namespace: str | None = None) -> Sequence[tuple[Orphan, Verdict]]:
    """Return what dead owners left, and what is to become of it if we are asked.

    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read.
    :raises ConfigurationError: there is no credential.
    """
    fingerprint, now = Credential().fingerprint, time.time()
    ledger = open_ledger(url)
    await ledger.open(uuid4().hex)
    try:
        orphans = await find_orphans(ledger, namespace)
    finally:
        await ledger.aclose()
    return [
        (
            orphan,
            judge(
                orphan.record,
                base_url=orphan.record.base_url,
                credential_fingerprint=fingerprint,
                orphaned_at=orphan.orphaned_at,
                now=now,
            ),
        )
        for orphan in orphans
    ]


async def reap(url: str, *, wait: float, namespace: str | None = None) -> Sequence[OrphanRow]:
    """End what dead owners left, and tell of each task what came of it.

    :param wait: seconds to try for.
    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read.
    :raises ConfigurationError: there is no credential.
    """
    until = current_time() + wait
    found = await survey(url, namespace)
    reachable = {
        (orphan.record.base_url, orphan.record.namespace)
        for orphan, verdict in found
        if verdict in {Verdict.REAP, Verdict.RELEASE}
    }
    async with create_task_group() as group:
        for base_url, name in sorted(reachable):
            group.start_soon(_reap_there, url, base_url, name, until)
    return await _tell(url, found)


async def _reap_there(url: str, base_url: str, namespace: str, until: float) -> None:
    """End what was left in one namespace of one system."""
    supervisor = Supervisor(
        base_url=base_url,
        ledger=url,
        namespace=namespace,
        registry=CollectorRegistry(),
        grace=1.0,
    )
    async with supervisor:
        with move_on_after(until - current_time()):
            while True:
                try:
                    await supervisor.reap()
                except LedgerError:
                    await sleep(RETRY)
                else:
                    return


async def _tell(url: str, found: Sequence[tuple[Orphan, Verdict]]) -> list[OrphanRow]:
    """Say what the ledger holds now of what was found."""
    ledger, now = open_ledger(url), time.time()
    await ledger.open(uuid4().hex)
    try:
        rows = []
        for orphan, verdict in found:
            record = await ledger.get(orphan.record.intent_id) or orphan.record
            result = _result_of(record)
            rows.append(
                OrphanRow(
                    id=record.remote_id,
                    intent_id=record.intent_id,
                    state=record.state,
                    result=result,
                    why=None if result else _why_left(record, verdict),
                    age=max(0.0, (record.finished_at or now) - orphan.orphaned_at),
                )
            )
        return rows
    finally:
        await ledger.aclose()


def _why_left(record: Record, verdict: Verdict) -> str:
    tried = verdict in {Verdict.REAP, Verdict.RELEASE}
    return record.state.value if tried else verdict.value


def _result_of(record: Record) -> ReapResult | None:
    if record.finished_at is None:
        return None
    match record.state:
        case State.NEVER_CREATED:
            return ReapResult.NEVER_CREATED
        case State.DETACHED:
            return ReapResult.RELEASED
        case State.CANCELLED if record.reason is not CancelReason.REMOTE:
            return ReapResult.CANCELLED
        case _:
            return ReapResult.ALREADY_FINISHED
