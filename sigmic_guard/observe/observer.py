"""What the supervisor tells whoever observes it: one call per thing that happened.

Everything about a task is told as one frozen :class:`~sigmic_guard.lifecycle.Change`. An observer
is called inline, on hot paths and inside clean-up, so it must be quick and must not raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.lifecycle import CancelResult, Change, ReapResult, Record, Verdict


class Observer(Protocol):
    """Is told what happens. Times are seconds; ``seconds`` since the cancel was asked for."""

    def task_changed(self, change: Change) -> None:
        """Observe one step of one task; of its last, ``change.seconds`` tells how long it took."""

    def block_abandoned(self, record: Record) -> None:
        """Observe a block that nobody can leave any more, or was left where it cannot end."""

    def task_left(self, record: Record) -> None:
        """Observe what a supervisor leaves unfinished when it closes; nothing more comes from it.

        A later one may take the task over: ``task_changed``, with ``TAKE_OVER``.
        """

    def delete_answered(self, record: Record, status: str) -> None:
        """Observe one DELETE: its HTTP status, or ``timeout``, ``connection``, ``protocol``."""

    def cancellation_acknowledged(self, record: Record, seconds: float) -> None:
        """Observe a DELETE that was answered 2xx."""

    def cancellation_ended(self, record: Record, result: CancelResult, seconds: float) -> None:
        """Observe what came of a cancellation: once per task, or again after UNCONFIRMED."""

    def orphans_counted(self, owner_id: str, count: int, oldest_age: float) -> None:
        """Observe how many dead owners' tasks an owner knows of whose end is not proven.

        ``oldest_age``: seconds that the oldest has been without an owner.
        """

    def orphan_reaped(self, record: Record, result: ReapResult, seconds: float) -> None:
        """Observe the end of an orphan; ``seconds`` that it ran without an owner."""

    def orphan_left(self, record: Record, why: Verdict) -> None:
        """Observe an orphan that must be left alone: once each."""

    def candidates_found(self, record: Record, task_ids: Sequence[str]) -> None:
        """Observe the tasks that a create may have made whose answer was lost: once each."""

    def request_answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Observe one HTTP request; ``route`` is a template, never a path with an id."""

    def ledger_committed(self, rows: int, seconds: float) -> None:
        """Observe one transaction."""

    def ledger_failed(self, rows: int, error: BaseException) -> None:
        """Observe a transaction that was not done."""

    def credential_refused(self, code: str, status: int) -> None:
        """Observe that the API, in its own words, takes our credential no more: once per outage."""

    def credential_accepted(self, seconds: float) -> None:
        """Observe that it does again; ``seconds`` since it was refused."""

    def worker_failed(self, worker: str, error: BaseException) -> None:
        """Observe a bug: an exception that no worker may raise."""

    def shutdown_begun(self, live: int, grace: float) -> None:
        """Observe the start of the drain."""

    def shutdown_finished(self, unproven: int, unwritten: int, seconds: float) -> None:
        """Observe its end: tasks whose end is not proven, and ends that are not written down."""
