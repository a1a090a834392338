"""Ending what dead owners left in a ledger: for the helper, ``sigmic-guard exec`` and ``reap``.

All of them reap with a :func:`reaping_session`: one namespace of one system, with an ordinary
supervisor. :func:`reap` does so for a whole ledger, and believes in the end what the ledger says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from anyio import create_task_group, current_time, move_on_after, sleep
from prometheus_client import CollectorRegistry

from sigmic_guard.errors import ConfigurationError, LedgerError, SigmicGuardError
from sigmic_guard.ledger import Orphan, SqliteLedger
from sigmic_guard.ledger.looking import UnfinishedRows, get, unfinished
from sigmic_guard.lifecycle import REAPABLE, State, Verdict, contradiction, judge
from sigmic_guard.observe.events import OrphanReaped
from sigmic_guard.sigmic.keyring import Keyring
from sigmic_guard.sigmic.urls import check_base_url
from sigmic_guard.supervisor import OrphanRow, Supervisor
from sigmic_guard.supervisor.ground.from_entry import result_of_orphan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sigmic_guard.ledger import Ledger
    from sigmic_guard.ledger.looking import OwnedRow
    from sigmic_guard.lifecycle import ReapResult, Record
    from sigmic_guard.observe.events import ObservedEvent
    from sigmic_guard.observe.observer import Observer

T = TypeVar("T")

#: Seconds that leaving a session may take.
GRACE: Final = 1.0
#: Seconds before a ledger that failed is tried again, or looked at again for what others took over.
RETRY_DELAY: Final = 0.5


# --- one namespace of one system ------------------------------------------------------------------


def reaping_session(
    ledger: Ledger,
    *,
    base_url: str,
    namespace: str,
    keyring: Keyring | None = None,
    create_timeout: float = 30.0,
    observers: Iterable[Observer] = (),
) -> Supervisor:
    """Return a supervisor, not entered yet, that is only to reap.

    :param keyring: default: the credential of the environment.
    :param create_timeout: seconds that the dead owners' creates may have taken.
    :raises ConfigurationError: there is no credential, or an argument cannot be right.
    """
    return Supervisor(
        api_key=keyring,
        base_url=base_url,
        ledger=ledger,
        namespace=namespace,
        create_timeout=create_timeout,
        registry=CollectorRegistry(),
        observers=observers,
        grace=GRACE,
    )


async def retry_ledger_errors(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the ledger does not fail. It has no bound of its own."""
    while True:
        try:
            return await call()
        except LedgerError:
            await sleep(RETRY_DELAY)


# --- a whole ledger -------------------------------------------------------------------------------


class Survey(NamedTuple):
    """What dead owners left."""

    #: And what is to become of it if we are asked.
    found: Sequence[tuple[Orphan, Verdict]]
    #: Corrupt rows, whose owners may live: why, by intent id.
    corrupt: Mapping[str, str]


async def survey(path: str, namespace: str | None = None) -> Survey:
    """Return what dead owners left. Writes nothing, and sends nothing.

    :param namespace: default: of all namespaces.
    :raises LedgerError: the ledger cannot be read.
    :raises ConfigurationError: there is no credential.
    """
    fingerprint = Keyring().fingerprint
    rows, corrupt = await unfinished(path, namespace) or UnfinishedRows((), {})
    found, corrupt, now = list[tuple[Orphan, Verdict]](), dict(corrupt), time.time()
    for row in rows:
        if not row.orphan:
            continue
        if (why := contradiction(row.record)) is not None:
            corrupt[row.record.intent_id] = why
        else:
            orphan = Orphan(row.record, row.orphaned_at, row.dead_for)
            found.append((orphan, judge_row(row, fingerprint, now)))
    return Survey(found, corrupt)


def judge_row(row: OwnedRow, fingerprint: str, now: float) -> Verdict:
    """Tell what :func:`reap` does with a dead owner's row.

    :param fingerprint: of the credential that it would have.
    """
    record = row.record
    if not _is_base_url(record.base_url):
        return Verdict.OTHER_SYSTEM
    return judge(
        record,
        base_url=record.base_url,
        credential_fingerprint=fingerprint,
        orphaned_at=row.orphaned_at,
        dead_for=row.dead_for,
        now=now,
        wanted=row.wanted,
    )


def _is_base_url(text: str) -> bool:
    try:
        return check_base_url(text) == text
    except ConfigurationError:
        return False


class Reaped(NamedTuple):
    """What came of it."""

    #: Of each that was found, in their order.
    rows: Sequence[OrphanRow]
    #: What kept us from seeing to some of them.
    errors: Sequence[SigmicGuardError]


class _Answers:
    """Hears of each task that ends as it does, so that none is lost when the time is over."""

    def __init__(self, on_reaped: Callable[[ReapResult], object] | None) -> None:
        self.results: dict[str, ReapResult] = {}
        self._on_reaped = on_reaped

    def observe(self, event: ObservedEvent) -> None:
        """Remember the end of an orphan, and pass it on."""
        if isinstance(event, OrphanReaped):
            self.results[event.record.intent_id] = event.result
            if self._on_reaped is not None:
                self._on_reaped(event.result)


async def reap(
    path: str,
    found: Sequence[tuple[Orphan, Verdict]],
    until: float,
    on_reaped: Callable[[ReapResult], object] | None = None,
) -> Reaped:
    """End what was found, and tell of each task, in their order, what came of it.

    :param until: when to stop trying, by the event loop's clock. Leaving takes a second more.
    :param on_reaped: is called for each task that ends here, as it does.
    :raises LedgerError: the ledger cannot be read.
    """
    ours = {
        record.intent_id: (record.base_url, record.namespace)
        for (record, _, _), verdict in found
        if verdict in REAPABLE
    }
    answers = _Answers(on_reaped)
    errors: list[SigmicGuardError] = []

    async def reap_there(base_url: str, namespace: str) -> None:
        try:
            async with reaping_session(
                SqliteLedger(path), base_url=base_url, namespace=namespace, observers=[answers]
            ) as session:
                with move_on_after(until - current_time()):
                    await retry_ledger_errors(session.reap)
        except SigmicGuardError as error:
            errors.append(error)

    async with create_task_group() as group:
        for place in sorted(set(ours.values())):
            group.start_soon(reap_there, *place)
    # Where there was an error it is not waited for what nobody may see to.
    settled_by = current_time() if errors else until
    records = await _until_settled(path, found, ours, settled_by)
    now = time.time()
    rows = [_report(orphan, verdict, records, now) for orphan, verdict in found]
    # Who did it knows best how.
    known = answers.results
    return Reaped(
        [
            row if row.result is None else replace(row, result=known.get(row.intent_id, row.result))
            for row in rows
        ],
        errors,
    )


async def _until_settled(
    path: str,
    found: Sequence[tuple[Orphan, Verdict]],
    ours: Mapping[str, object],
    until: float,
) -> dict[str, Record]:
    """Wait for whoever was quicker than we were, and return the rows by intent id."""
    while True:
        rows = await get(path, [record.intent_id for (record, _, _), _ in found])
        pursued = any(
            row.alive and not row.record.over and row.record.state is not State.UNCONFIRMED
            for intent_id, row in rows.items()
            if intent_id in ours
        )
        if not pursued or current_time() + RETRY_DELAY > until:
            return {intent_id: row.record for intent_id, row in rows.items()}
        await sleep(RETRY_DELAY)


def _report(orphan: Orphan, verdict: Verdict, records: dict[str, Record], now: float) -> OrphanRow:
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
