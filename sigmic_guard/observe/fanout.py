"""Tell many observers, and let none of them break what it observes: :class:`Observers`."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sigmic_guard.observe.wording import whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sigmic_guard.lifecycle import CancelResult, Change, ReapResult, Record, Verdict
    from sigmic_guard.observe.observer import Observer

_log: Final = logging.getLogger("sigmic_guard")


class Observers:
    """An observer made of others. Its calls never raise an ``Exception``, whatever theirs do.

    The first failure of each is reported, once, through the standard library's logger
    ``sigmic_guard``: by type and place, since the text of somebody else's exception may hold
    anything. An observer that failed is called again the next time.
    """

    __slots__ = ("_observers", "_reported", "_task_changed")

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)
        # Looked up once: this is called some five times a task.
        self._task_changed = tuple(observer.task_changed for observer in self._observers)
        self._reported: set[int] = set()

    def task_changed(self, change: Change) -> None:
        """Tell all."""
        for task_changed in self._task_changed:
            try:
                task_changed(change)
            except Exception as failure:
                self._failed(getattr(task_changed, "__self__", task_changed), failure)

    def block_abandoned(self, record: Record) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.block_abandoned(record)
            except Exception as failure:
                self._failed(observer, failure)

    def task_left(self, record: Record) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.task_left(record)
            except Exception as failure:
                self._failed(observer, failure)

    def delete_answered(self, record: Record, status: str) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.delete_answered(record, status)
            except Exception as failure:
                self._failed(observer, failure)

    def cancellation_acknowledged(self, record: Record, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.cancellation_acknowledged(record, seconds)
            except Exception as failure:
                self._failed(observer, failure)

    def cancellation_ended(self, record: Record, result: CancelResult, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.cancellation_ended(record, result, seconds)
            except Exception as failure:
                self._failed(observer, failure)

    def orphans_counted(self, owner_id: str, count: int, oldest_age: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.orphans_counted(owner_id, count, oldest_age)
            except Exception as failure:
                self._failed(observer, failure)

    def orphan_reaped(self, record: Record, result: ReapResult, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.orphan_reaped(record, result, seconds)
            except Exception as failure:
                self._failed(observer, failure)

    def orphan_left(self, record: Record, why: Verdict) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.orphan_left(record, why)
            except Exception as failure:
                self._failed(observer, failure)

    def candidates_found(self, record: Record, task_ids: Sequence[str]) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.candidates_found(record, task_ids)
            except Exception as failure:
                self._failed(observer, failure)

    def request_answered(self, method: str, route: str, status: str, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.request_answered(method, route, status, seconds)
            except Exception as failure:
                self._failed(observer, failure)

    def ledger_committed(self, rows: int, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.ledger_committed(rows, seconds)
            except Exception as failure:
                self._failed(observer, failure)

    def ledger_failed(self, rows: int, error: BaseException) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.ledger_failed(rows, error)
            except Exception as failure:
                self._failed(observer, failure)

    def credential_refused(self, code: str, status: int) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.credential_refused(code, status)
            except Exception as failure:
                self._failed(observer, failure)

    def credential_accepted(self, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.credential_accepted(seconds)
            except Exception as failure:
                self._failed(observer, failure)

    def worker_failed(self, worker: str, error: BaseException) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.worker_failed(worker, error)
            except Exception as failure:
                self._failed(observer, failure)

    def shutdown_begun(self, live: int, grace: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.shutdown_begun(live, grace)
            except Exception as failure:
                self._failed(observer, failure)

    def shutdown_finished(self, unproven: int, unwritten: int, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            try:
                observer.shutdown_finished(unproven, unwritten, seconds)
            except Exception as failure:
                self._failed(observer, failure)

    def _failed(self, observer: object, failure: Exception) -> None:
        """Report the first failure of ``observer``; if that fails too, so be it."""
        if id(observer) in self._reported:
            return
        self._reported.add(id(observer))
        with suppress(Exception):
            _log.warning(
                "%s failed, and will not be reported again: %s; tasks are not affected",
                type(observer).__qualname__,
                whereabouts(failure),
            )
