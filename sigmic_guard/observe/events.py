"""What happens, as observers are told it: one frozen record for each thing that can happen.

Times are in seconds. ``record`` is the task's as it was then. Further types may come: an observer
leaves alone what it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from sigmic_guard.lifecycle import CancelResult, Event, ReapResult, Record, Verdict


class _Observed(msgspec.Struct, frozen=True):
    """The base of all. A struct, because some are made several times a task."""


class TaskChanged(_Observed, frozen=True):
    """One step of one task.

    ``before`` is ``None`` at its birth; ``event`` is ``None`` then, and where its create begins
    anew. A task of an earlier supervisor comes with ``TAKE_OVER``.
    """

    before: Record | None
    after: Record
    event: Event | None
    #: How long the task took, as it was measured; ``None`` unless this is the last step.
    seconds: float | None = None


class BlockAbandoned(_Observed, frozen=True):
    """A block or a group that nobody can leave any more, or a block left where it cannot end."""

    record: Record


class TaskLeft(_Observed, frozen=True):
    """A task that a supervisor leaves unfinished when it closes; nothing more comes from it."""

    record: Record


class DeleteAnswered(_Observed, frozen=True):
    """One DELETE."""

    record: Record
    #: The HTTP status, or ``timeout``, ``connection``, ``protocol``.
    status: str


class CancellationAcknowledged(_Observed, frozen=True):
    """A DELETE that was answered 2xx."""

    record: Record
    #: Since the cancellation was asked for.
    seconds: float


class CancellationEnded(_Observed, frozen=True):
    """What came of a cancellation: once per task, or again after ``UNCONFIRMED``."""

    record: Record
    result: CancelResult
    #: Since the cancellation was asked for.
    seconds: float


class OrphansCounted(_Observed, frozen=True):
    """How many dead owners' tasks an owner knows of whose end is not proven."""

    owner_id: str
    count: int
    #: For how long the oldest has been without an owner.
    oldest_age: float


class OrphanReaped(_Observed, frozen=True):
    """The end of an orphan."""

    record: Record
    result: ReapResult
    #: For how long it ran without an owner.
    seconds: float


class OrphanLeft(_Observed, frozen=True):
    """An orphan that must be left alone: once each."""

    record: Record
    why: Verdict


class CandidatesFound(_Observed, frozen=True):
    """The tasks that a create may have made whose answer was lost: once each."""

    record: Record
    task_ids: Sequence[str]


class RequestAnswered(_Observed, frozen=True):
    """One HTTP request."""

    method: str
    #: A template, never a path with an id.
    route: str
    #: The HTTP status, or ``timeout``, ``connection``, ``protocol``.
    status: str
    seconds: float


class LedgerCommitted(_Observed, frozen=True):
    """One transaction."""

    rows: int
    seconds: float


class LedgerFailed(_Observed, frozen=True):
    """A transaction that was not done."""

    rows: int
    error: BaseException


class CredentialRefused(_Observed, frozen=True):
    """The API, in its own words, takes our credential no more: once per outage."""

    code: str
    status: int


class CredentialAccepted(_Observed, frozen=True):
    """The API takes our credential again."""

    #: Since it was refused.
    seconds: float


class WorkerFailed(_Observed, frozen=True):
    """A bug: an exception that no worker may raise."""

    worker: str
    error: BaseException


class ShutdownBegun(_Observed, frozen=True):
    """The start of the drain."""

    live: int
    grace: float


class ShutdownFinished(_Observed, frozen=True):
    """The end of the drain."""

    #: Tasks whose end is not proven.
    unproven: int
    #: Ends that are not written down.
    unwritten: int
    seconds: float


ObservedEvent: TypeAlias = (
    TaskChanged
    | BlockAbandoned
    | TaskLeft
    | DeleteAnswered
    | CancellationAcknowledged
    | CancellationEnded
    | OrphansCounted
    | OrphanReaped
    | OrphanLeft
    | CandidatesFound
    | RequestAnswered
    | LedgerCommitted
    | LedgerFailed
    | CredentialRefused
    | CredentialAccepted
    | WorkerFailed
    | ShutdownBegun
    | ShutdownFinished
)
