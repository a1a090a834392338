from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from prometheus_client import CollectorRegistry, Counter, values

from sigmic_guard.lifecycle import (
    CancelReason,
    CancelResult,
    Event,
    Outcome,
    State,
    TaskPolicy,
)
from sigmic_guard.observe import (
    CancellationAcknowledged,
    CancellationEnded,
    DeleteAnswered,
    LedgerCommitted,
    Metrics,
    Observers,
    RequestAnswered,
    ShutdownBegun,
    ShutdownFinished,
    TaskChanged,
)
from tests.observe import lives
from tests.observe.sums import Sums, add_up, sums

if TYPE_CHECKING:
    from collections.abc import Iterable


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"sigmic_guard_{name}", labels)


def test_a_registry_has_one_instance(registry: CollectorRegistry) -> None:
    """Two supervisors of one process count in the same series."""
    assert Metrics.on(registry) is Metrics.on(registry)
    assert Metrics.on(registry) is not Metrics.on(CollectorRegistry())


def test_supervisors_in_many_threads_share_the_instance(registry: CollectorRegistry) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: Metrics.on(registry), range(64)))) == 1


def test_a_registry_is_not_kept_alive() -> None:
    """Tests that make a registry each do not pile them up."""
    registry = CollectorRegistry()
    gone = weakref.ref(registry)
    Metrics.on(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_a_name_that_is_taken_is_refused_and_nothing_is_left_behind(
    registry: CollectorRegistry,
) -> None:
    theirs = Counter("sigmic_guard_cancellations_total", "Somebody else's.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Metrics.on(registry)
    registry.unregister(theirs)
    assert Metrics.on(registry) is Metrics.on(registry)


@given(lives.interleaved())
def test_started_is_finished_plus_live_after_every_change(
    steps: list[tuple[int, TaskChanged]],
) -> None:
    """Any lives of any tasks, in two supervisors of one registry, told in any order."""
    registry = CollectorRegistry()
    supervisors = [Observers([Metrics.on(registry)]), Observers([Metrics.on(registry)])]
    started = 0
    alive: dict[int, State] = {}
    for supervisor, change in steps:
        supervisors[supervisor].observe(change)
        if change.before is None:
            started += 1
        else:
            alive.pop(id(change.before))
        if change.after.finished_at is None and change.after.state is not State.HANDED_OVER:
            alive[id(change.after)] = change.after.state
        now = add_up(registry)
        assert (now.started, now.live) == (started, len(alive))
    for state in State:
        expected = sum(one is state for one in alive.values())
        assert (value(registry, "tasks_live", state=state.value) or 0) == expected


def test_the_sum_check_sees_an_end_that_is_counted_twice(registry: CollectorRegistry) -> None:
    """Negative control."""
    metrics = Metrics.on(registry)
    last = lives.live(metrics, *lives.CANCELLED)
    add_up(registry)
    metrics._finish(last, None, None)
    add_up(registry)  # born finished: one more task
    metrics._finished[Outcome.CANCELLED, CancelReason.USER].inc()
    with pytest.raises(AssertionError):
        add_up(registry)


def test_the_sum_check_sees_a_step_that_is_told_twice(registry: CollectorRegistry) -> None:
    """Negative control: the sum itself would still hold, by a negative number of live tasks."""
    metrics = Metrics.on(registry)
    for change in lives.changes(*lives.COMPLETED):
        metrics.observe(change)
        if change.after.finished_at is not None:
            metrics.observe(change)
    assert sums(registry) == Sums(started=1, live=-1, finished=2, least=-1)
    with pytest.raises(AssertionError):
        add_up(registry)


def test_a_task_that_has_finished_counts_no_more(registry: CollectorRegistry) -> None:
    metrics = Metrics.on(registry)
    last = lives.live(metrics, *lives.FAILED)
    metrics.observe(TaskChanged(last, last, Event.CLOSE))
    assert add_up(registry) == Sums(started=1, live=0, finished=1, least=0)


def test_a_scrape_between_two_updates_misses_no_task(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may see a moving task twice, never not at all."""
    metrics = Metrics.on(registry)
    inc: Any = values.MutexValue.inc
    between = []

    def scraped(self: Any, amount: float) -> None:
        inc(self, amount)
        now = sums(registry)
        between.append(now.finished + now.live - now.started)

    monkeypatch.setattr(values.MutexValue, "inc", scraped)
    for events in (lives.CANCELLED, lives.COMPLETED, lives.GIVEN_UP, lives.REFUSED):
        lives.live(metrics, *events)
    assert set(between) == {0, 1}


def test_a_step_that_changes_no_state_updates_nothing(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics.on(registry)
    *_, attempt = lives.changes(*lives.CREATED, Event.CANCEL, Event.ATTEMPT)
    monkeypatch.setattr(values.MutexValue, "inc", None)
    metrics.observe(attempt)


def test_the_series_of_the_sum_are_exposed_in_the_order_of_a_life(
    registry: CollectorRegistry,
) -> None:
    """A scrape reads one series after the other; a task that moves on meanwhile is met again."""
    Metrics.on(registry)
    families = {metric.name: metric for metric in registry.collect()}
    names = [name.removeprefix("sigmic_guard_") for name in families]
    assert names[:3] == ["tasks_started", "tasks_live", "tasks_finished"]
    states = [sample.labels["state"] for sample in families["sigmic_guard_tasks_live"].samples]
    assert states == [state.value for state in State if state in states]


@pytest.mark.parametrize(
    "events, outcome, reason",
    [
        (lives.COMPLETED, "completed", "none"),
        (lives.FAILED, "failed", "none"),
        (lives.DETACHED, "detached", "none"),
        (lives.REFUSED, "failed", "none"),
        (lives.CANCELLED, "cancelled", "user"),
        ((*lives.CREATED, Event.CANCELLED), "cancelled", "remote"),
        ((*lives.CREATED, Event.CANCEL, Event.COMPLETE, Event.CLOSE), "completed", "user"),
        ((Event.CANCEL, Event.WITHDRAW), "cancelled", "user"),
    ],
)
def test_a_task_is_finished_by_its_outcome_and_its_reason(
    registry: CollectorRegistry, events: Iterable[Event], outcome: str, reason: str
) -> None:
    last = lives.live(Metrics.on(registry), *events)
    assert value(registry, "tasks_finished_total", outcome=outcome, reason=reason) == 1
    assert last.finished_at is not None
    lasted = value(registry, "task_duration_seconds_sum", outcome=outcome)
    assert lasted == last.finished_at - last.created_at


def test_a_deadline_is_counted_as_timed_out(registry: CollectorRegistry) -> None:
    lives.live(Metrics.on(registry), *lives.CANCELLED, reason=CancelReason.DEADLINE)
    labels = {"outcome": "timed_out", "reason": "deadline"}
    assert value(registry, "tasks_finished_total", **labels) == 1


def test_an_unconfirmed_task_is_live(registry: CollectorRegistry) -> None:
    """It may still cost money, so it must not look finished."""
    lives.live(Metrics.on(registry), *lives.GIVEN_UP)
    assert value(registry, "tasks_live", state="unconfirmed") == 1
    assert add_up(registry).finished == 0


def test_a_clock_that_was_set_back_lowers_no_sum(registry: CollectorRegistry) -> None:
    metrics, born = Metrics.on(registry), lives.born(created_at=1e9)
    adopted = lives.moved(born, Event.ADOPT, 5.0, CancelReason.USER)
    failed = lives.moved(adopted, Event.FAIL, 5.0, CancelReason.USER)
    metrics.observe(TaskChanged(None, adopted, Event.ADOPT))
    metrics.observe(TaskChanged(adopted, failed, Event.FAIL))
    metrics.observe(CancellationAcknowledged(failed, -5.0))
    metrics.observe(CancellationEnded(failed, CancelResult.CONFIRMED, -5.0))
    assert value(registry, "task_duration_seconds_sum", outcome="failed") == 0
    assert value(registry, "cancel_acknowledge_seconds_sum") == 0
    assert value(registry, "cancel_confirm_seconds_sum") == 0


def test_cancellations_are_counted_and_timed(registry: CollectorRegistry) -> None:
    metrics, record = Metrics.on(registry), lives.born()
    metrics.observe(DeleteAnswered(record, "503"))
    metrics.observe(DeleteAnswered(record, "timeout"))
    metrics.observe(DeleteAnswered(record, "200"))
    metrics.observe(CancellationAcknowledged(record, 0.5))
    metrics.observe(CancellationEnded(record, CancelResult.ACKNOWLEDGED, 0.5))
    metrics.observe(CancellationEnded(record, CancelResult.CONFIRMED, 2.0))
    for status in ("503", "timeout", "200"):
        assert value(registry, "cancel_attempts_total", status=status) == 1
    assert value(registry, "cancellations_total", result="acknowledged") == 1
    assert value(registry, "cancellations_total", result="not_found") == 0
    assert value(registry, "cancel_acknowledge_seconds_sum") == 0.5
    assert value(registry, "cancel_confirm_seconds_count") == 1
    assert value(registry, "cancel_confirm_seconds_sum") == 2.0


def test_requests_commits_and_drains_are_timed(registry: CollectorRegistry) -> None:
    metrics = Metrics.on(registry)
    route = "/api/v1/tasks/{id}/tools/{callId}/approve"
    metrics.observe(RequestAnswered("POST", route, "200", 0.25))
    metrics.observe(LedgerCommitted(3, 0.001))
    metrics.observe(ShutdownBegun(10, 8.0))
    metrics.observe(ShutdownFinished(0, 0, 1.5))
    labels = {"method": "POST", "route": route, "status": "200"}
    assert value(registry, "http_request_seconds_sum", **labels) == 0.25
    assert value(registry, "ledger_commit_seconds_count") == 1
    assert value(registry, "shutdown_seconds_sum") == 1.5


def test_labels_are_bounded(registry: CollectorRegistry) -> None:
    """Whatever a server or a bug comes up with, the number of series has an end."""
    metrics, record = Metrics.on(registry), lives.born()
    for number in range(2000):
        metrics.observe(DeleteAnswered(record, str(number)))
        metrics.observe(DeleteAnswered(record, f"word {number}"))
        metrics.observe(RequestAnswered("GET", f"/api/v1/tasks/{lives.ID}{number}", "200", 0.1))
        metrics.observe(RequestAnswered("GET", f"/api/v1/tasks/{{id}}/x{number}", "200", 0.1))
        metrics.observe(RequestAnswered(f"GET{number}", "/api/v1/tasks", str(number), 0.1))
        letters = "".join(chr(97 + int(digit)) for digit in str(number))
        metrics.observe(RequestAnswered("GET", f"/api/v1/{{{letters}}}", "200", 0.1))
    assert len(metrics._attempts) <= 501
    assert len(metrics._routes) <= 257
    assert len(metrics._series.attempts._metrics) <= 501
    assert len(metrics._series.requests._metrics) <= 257
    labels = dict.fromkeys(("method", "route", "status"), "other")
    assert value(registry, "http_request_seconds_count", **labels)


def test_every_series_of_known_values_exists_before_its_first_event(
    registry: CollectorRegistry,
) -> None:
    """A rate over a counter that begins to exist at 1 misses its first event."""
    Metrics.on(registry)
    for result in CancelResult:
        assert value(registry, "cancellations_total", result=result.value) == 0
    for reason in CancelReason:
        assert (
            value(registry, "tasks_finished_total", outcome="completed", reason=reason.value) == 0
        )
    assert value(registry, "tasks_finished_total", outcome="cancelled", reason="none") is None
    assert add_up(registry) == Sums(0, 0, 0, 0)


def test_the_policy_of_a_task_is_no_label(registry: CollectorRegistry) -> None:
    lives.live(Metrics.on(registry), *lives.COMPLETED, policy=TaskPolicy(timeout=77.5), key="mine")
    labels = {name for metric in registry.collect() for s in metric.samples for name in s.labels}
    assert labels == {"how", "le", "outcome", "reason", "result", "state"}
