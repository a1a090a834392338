"""What operators see in Prometheus: :class:`Metrics`.

**The sum.** started = finished + live holds after every change, and so in every scrape that shares
a thread with the supervisor. A scrape from another thread can fall between two updates of one
change, so the updates have an order: a task enters its next series before it leaves its last one,
and the series are exposed started first, then live in the order of a task's life, then finished.
Such a scrape may therefore see a moving task twice, but misses none.

A task that its supervisor could not prove to have ended stays where it was counted. Whoever takes
it over in the same process goes on from there: it was started once.

**The bound.** No label takes a value that this module has not checked: no id, no message, no key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from weakref import WeakKeyDictionary

from sigmic_guard.lifecycle import (
    CancelReason,
    CancelResult,
    Event,
    Outcome,
    ReapResult,
    State,
    outcome_of,
)
from sigmic_guard.lifecycle.states import ENDED
from sigmic_guard.observe.events import (
    CancellationAcknowledged,
    CancellationEnded,
    DeleteAnswered,
    LedgerCommitted,
    OrphanReaped,
    OrphansCounted,
    RequestAnswered,
    ShutdownFinished,
    TaskChanged,
    TaskLeft,
)
from sigmic_guard.observe.lock import ForkSafeLock
from sigmic_guard.observe.series import Series
from sigmic_guard.observe.wording import OTHER, bounded_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import CollectorRegistry, Counter, Histogram

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe.events import ObservedEvent

#: What a ``reason`` label says where there is none.
NO_REASON: Final = "none"

_METHODS: Final = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})
#: Routes are made of these words and of ``{names}``: an id is neither.
_TEMPLATE: Final = re.compile(
    r"(?:/(?:api|v[0-9]|tasks|stream|messages|tools|approve|\{[A-Za-z_]{1,24}\})){1,12}"
)
_MOST_REQUEST_SERIES: Final = 256

#: Where a task lives that has not finished; in the order of its life, see "The sum".
_LIVE: Final = (
    State.INTENT,
    State.CREATING,
    State.UNKNOWN,
    State.RUNNING,
    State.TAKEN_OVER,
    State.CANCELLING,
    State.UNCONFIRMED,
    State.COMPLETED,
)


class Metrics:
    """An observer that counts in a Prometheus registry; get it with :meth:`on`.

    Gauges move by steps, so that any number of supervisors can share one. Those of the orphans,
    which each supervisor counts anew now and again, are set to what all of them told last.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """:raises ValueError: somebody else registered one of these series."""
        series, shared = Series.on(registry)
        self._series = series
        self._orphans = shared.orphans
        self._counting = shared.counting
        # Children are kept: `labels()` costs three times what `inc()` does. Their values are
        # enumerated here, so that every series exists, at zero, before its first event.
        self._live = {state: series.live.labels(state.value) for state in _LIVE}
        self._finished = {
            (outcome, reason): series.finished.labels(
                outcome.value, reason.value if reason else NO_REASON
            )
            for outcome, reason in _endings()
        }
        self._duration = {outcome: series.durations.labels(outcome.value) for outcome in Outcome}
        self._cancellations = {
            result: series.cancellations.labels(result.value) for result in CancelResult
        }
        self._reaped = {result: series.reaped.labels(result.value) for result in ReapResult}
        #: By intent id: tasks that a closed supervisor left, and where they are counted.
        self._left: dict[str, State] = {}
        self._attempts: dict[str, Counter] = {}
        self._routes: dict[tuple[str, str, str], Histogram] = {}

    @classmethod
    def on(cls, registry: CollectorRegistry) -> Self:
        """Return the one instance of ``registry``, made at the first call.

        :raises ValueError: somebody else registered a series of the same name.
        """
        with _making:
            metrics = _made.get(registry)
            if not isinstance(metrics, cls):
                _made[registry] = metrics = cls(registry)
            return metrics

    def observe(self, event: ObservedEvent) -> None:
        """Count what happened, if it is counted."""
        count = self._COUNTERS.get(type(event))
        if count is not None:
            count(self, event)

    def _task_changed(self, change: TaskChanged) -> None:
        """Move the task between the series."""
        before, after, event = change.before, change.after, change.event
        was = before.state if before is not None and not before.over else None
        if event in {Event.TAKE_OVER, Event.REATTACH} and self._left:
            was = self._take_over(before, after, was)
        if not after.over:
            now = after.state
            if now is was:
                return
            self._live[now].inc()
            if was is None:
                self._series.started.inc()
            else:
                self._live[was].dec()
        elif was is not None or before is None:
            self._finish(after, was, change.seconds)

    def _take_over(self, before: Record | None, after: Record, was: State | None) -> State | None:
        """Return where a task is counted that is taken over, be it by an earlier supervisor."""
        left = self._left.pop(after.intent_id, None)
        if left is None or before is None:
            return left or was
        # Another record was begun before its key led here: what came before that is over.
        self._finished[Outcome.DETACHED, None].inc()
        self._live[left].dec()
        seconds = max(0.0, before.created_at - after.created_at)
        self._duration[Outcome.DETACHED].observe(seconds)
        return was

    def _task_left(self, event: TaskLeft) -> None:
        """Note where it is counted."""
        record = event.record
        if not record.over:
            self._left[record.intent_id] = record.state

    def _finish(self, record: Record, was: State | None, seconds: float | None) -> None:
        """Count an end; ``was`` is ``None`` for a record that is born finished."""
        outcome = record.outcome
        if outcome is None:  # no step leads here
            return
        self._finished[outcome, record.reason].inc()
        if was is None:
            self._series.started.inc()
        else:
            self._live[was].dec()
        # A sum of seconds must not fall, whoever tells them; the same goes for cancellations.
        self._duration[outcome].observe(max(0.0, seconds or 0.0))

    def _delete_answered(self, event: DeleteAnswered) -> None:
        child = self._attempts.get(event.status)
        if child is None:
            label = bounded_status(event.status)
            child = self._attempts.setdefault(label, self._series.attempts.labels(label))
        child.inc()

    def _cancellation_acknowledged(self, event: CancellationAcknowledged) -> None:
        self._series.acknowledge.observe(max(0.0, event.seconds))

    def _cancellation_ended(self, event: CancellationEnded) -> None:
        self._cancellations[event.result].inc()
        if event.result is CancelResult.CONFIRMED:
            self._series.confirm.observe(max(0.0, event.seconds))

    def _orphans_counted(self, event: OrphansCounted) -> None:
        """Add up what the supervisors of this registry know of."""
        with self._counting:
            if event.count:
                self._orphans[event.owner_id] = event.count, event.oldest_age
            else:
                self._orphans.pop(event.owner_id, None)
            counts = self._orphans.values()
            self._series.orphans.set(sum(count for count, _ in counts))
            self._series.oldest_orphan.set(max((age for _, age in counts), default=0.0))

    def _orphan_reaped(self, event: OrphanReaped) -> None:
        self._reaped[event.result].inc()
        self._series.orphan_seconds.inc(max(0.0, event.seconds))

    def _request_answered(self, event: RequestAnswered) -> None:
        child = self._routes.get((event.method, event.route, event.status))
        if child is None:
            child = self._request_child(event.method, event.route, event.status)
        child.observe(event.seconds)

    def _request_child(self, method: str, route: str, status: str) -> Histogram:
        """Return the child for these values, or for ``other`` where they are no labels."""
        key = (
            method if method in _METHODS else OTHER,
            route if _TEMPLATE.fullmatch(route) else OTHER,
            bounded_status(status),
        )
        if len(self._routes) >= _MOST_REQUEST_SERIES:
            key = (OTHER, OTHER, OTHER)
        return self._routes.setdefault(key, self._series.requests.labels(*key))

    def _ledger_committed(self, event: LedgerCommitted) -> None:
        self._series.commit.observe(event.seconds)
        self._series.batch.observe(event.rows)

    def _shutdown_finished(self, event: ShutdownFinished) -> None:
        self._series.shutdown.observe(event.seconds)

    #: What is not here is not counted: of a refused credential ``http_request_seconds`` tells, and
    #: of the rest :class:`~sigmic_guard.observe.Logs`.
    _COUNTERS: ClassVar[Mapping[type, Callable[[Metrics, Any], None]]] = {
        TaskChanged: _task_changed,
        TaskLeft: _task_left,
        DeleteAnswered: _delete_answered,
        CancellationAcknowledged: _cancellation_acknowledged,
        CancellationEnded: _cancellation_ended,
        OrphansCounted: _orphans_counted,
        OrphanReaped: _orphan_reaped,
        RequestAnswered: _request_answered,
        LedgerCommitted: _ledger_committed,
        ShutdownFinished: _shutdown_finished,
    }


_made: Final[WeakKeyDictionary[CollectorRegistry, Metrics]] = WeakKeyDictionary()
_making: Final = ForkSafeLock()


def _endings() -> Iterator[tuple[Outcome, CancelReason | None]]:
    """Yield every pair that a finished record can have, each once."""
    pairs = {
        (outcome_of(state, reason), reason): None
        for state in sorted(ENDED)
        for reason in (None, *CancelReason)
        if (state, reason) != (State.CANCELLED, None)  # the funnel makes it `remote`
    }
    for outcome, reason in pairs:
        if outcome is not None:  # a task that was to be cancelled can be forgotten: detached
            yield outcome, reason
