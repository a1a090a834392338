"""What is told of dead owners' tasks: the metrics, the lines, and the sum that holds throughout."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import cycle, islice, permutations
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest, values
from structlog.testing import capture_logs

from sigmic_guard.lifecycle import (
    CancelReason,
    CancelResult,
    Event,
    ReapResult,
    Record,
    Verdict,
)
from sigmic_guard.observe import (
    CancellationEnded,
    CandidatesFound,
    LedgerCommitted,
    LedgerFailed,
    Logs,
    Metrics,
    OrphanLeft,
    OrphanReaped,
    OrphansCounted,
    TaskChanged,
)
from tests.observe import lives
from tests.observe.sums import Sums, add_up
from tests.observe.test_logs import TASK_FIELDS
from tests.observe.test_metrics import value

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a line about an orphan may say beyond what any line about a task may.
MORE_FIELDS = {
    "orphan.reaped": {"result"},
    "orphan.left": {"why"},
    "task.candidates": {"candidates"},
    "task.taken_over": set[str](),
}


def orphans(registry: CollectorRegistry) -> tuple[float, float]:
    """How many there are, and the age of the oldest."""
    count, age = value(registry, "orphans"), value(registry, "orphan_oldest_age_seconds")
    assert count is not None
    assert age is not None
    return count, age


# --- series -------------------------------------------------------------------------------------


def test_every_series_about_orphans_exists_at_zero_from_the_start(
    registry: CollectorRegistry,
) -> None:
    """An alert on what never happened yet has something to look at, and a rate sees the first."""
    Metrics.on(registry)
    assert orphans(registry) == (0, 0)
    assert value(registry, "orphan_task_seconds_total") == 0
    assert value(registry, "ledger_batch_size_count") == 0
    for result in ReapResult:
        assert value(registry, "orphans_reaped_total", how=result.value) == 0
    for state in ("unknown", "unconfirmed", "cancelling"):
        assert value(registry, "tasks_live", state=state) == 0


@pytest.mark.parametrize("result", ReapResult)
def test_what_came_of_an_orphan_is_counted_once_and_with_its_seconds(
    registry: CollectorRegistry, result: ReapResult
) -> None:
    """Each result has its own series; all of them add to the seconds that dead owners cost."""
    metrics = Metrics.on(registry)
    metrics.observe(OrphanReaped(lives.taken_over(*lives.CREATED), result, 12.5))
    metrics.observe(OrphanReaped(lives.taken_over(*lives.CREATED), result, 0.5))
    counts = {one: value(registry, "orphans_reaped_total", how=one.value) for one in ReapResult}
    assert counts == {one: 2 * (one is result) for one in ReapResult}
    assert value(registry, "orphan_task_seconds_total") == 13


@given(st.lists(st.floats(allow_infinity=False, allow_nan=False, width=32)))
def test_the_seconds_of_orphans_never_fall(spans: list[float]) -> None:
    """Whatever two machines' clocks make of the time in between."""
    registry = CollectorRegistry()
    metrics, record, before = Metrics.on(registry), lives.born(), 0.0
    for seconds in spans:
        metrics.observe(OrphanReaped(record, ReapResult.CANCELLED, seconds))
        now = value(registry, "orphan_task_seconds_total")
        assert now is not None
        assert now >= before
        before = now


def test_the_size_of_a_batch_is_counted(registry: CollectorRegistry) -> None:
    """Rows a transaction: the sum is the rows, the count the transactions."""
    metrics = Metrics.on(registry)
    for rows in (1, 3, 500):
        metrics.observe(LedgerCommitted(rows, 0.001))
    metrics.observe(LedgerFailed(7, OSError()))
    assert value(registry, "ledger_batch_size_count") == 3
    assert value(registry, "ledger_batch_size_sum") == 504
    assert value(registry, "ledger_batch_size_bucket", le="4.0") == 2
    assert value(registry, "ledger_commit_seconds_count") == 3


# --- many supervisors, one registry -------------------------------------------------------------


def test_orphans_are_the_sum_and_their_age_the_maximum_over_supervisors(
    registry: CollectorRegistry,
) -> None:
    """And when one closes, what is left is what the others told."""
    metrics = Metrics.on(registry)
    metrics.observe(OrphansCounted("one", 3, 40.0))
    metrics.observe(OrphansCounted("two", 2, 90.0))
    assert orphans(registry) == (5, 90.0)
    metrics.observe(OrphansCounted("one", 1, 50.0))  # anew, not on top
    assert orphans(registry) == (3, 90.0)
    metrics.observe(OrphansCounted("two", 0, 0.0))
    assert orphans(registry) == (1, 50.0)
    metrics.observe(OrphansCounted("two", 0, 0.0))  # closed once more
    assert orphans(registry) == (1, 50.0)
    metrics.observe(OrphansCounted("one", 0, 0.0))
    assert orphans(registry) == (0, 0)
    assert metrics._orphans == {}


def test_registries_know_nothing_of_each_other(registry: CollectorRegistry) -> None:
    """A supervisor's orphans are in its own registry alone."""
    other = CollectorRegistry()
    Metrics.on(registry).observe(OrphansCounted("one", 3, 40.0))
    Metrics.on(other).observe(OrphansCounted("one", 1, 4.0))
    assert (orphans(registry), orphans(other)) == ((3, 40), (1, 4))


def count_in_threads(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Let eight supervisors in as many threads count, with one more that scrapes meanwhile."""
    done = Flag()

    def scrape() -> None:
        while not done.is_set():
            count, age = orphans(registry)
            assert 0 <= count <= 8 * 9
            assert 0 <= age <= 90
            generate_latest(registry)

    def supervise(number: int) -> None:
        for count in islice(cycle(range(10)), 500):
            metrics.observe(OrphansCounted(f"owner {number}", count, 10.0 * count))
        metrics.observe(OrphansCounted(f"owner {number}", number, 10.0 * number))

    with ThreadPoolExecutor(9) as pool:
        scraping = pool.submit(scrape)
        try:
            for supervising in [pool.submit(supervise, number) for number in range(8)]:
                supervising.result()
        finally:
            done.set()
        scraping.result()


def test_supervisors_in_many_threads_lose_no_count(registry: CollectorRegistry) -> None:
    """The last word of each stands, and a scrape in between sees nothing impossible."""
    metrics = Metrics.on(registry)
    count_in_threads(registry, metrics)
    assert orphans(registry) == (sum(range(8)), 70)


def test_a_scrape_in_the_middle_of_a_count_waits_for_nothing(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two updates, in the same thread: it neither hangs nor sees a negative number."""
    metrics = Metrics.on(registry)
    write: Any = values.MutexValue.set
    seen = []

    def scraped(self: Any, amount: float, timestamp: float | None = None) -> None:
        write(self, amount, timestamp)
        seen.append(orphans(registry))

    monkeypatch.setattr(values.MutexValue, "set", scraped)
    metrics.observe(OrphansCounted("one", 2, 20.0))
    metrics.observe(OrphansCounted("one", 0, 0.0))
    assert seen == [(2, 0), (2, 20), (0, 20), (0, 0)]


def test_without_the_lock_a_count_would_be_lost(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: another thread's count in the middle of ours, and the gauge is wrong."""
    metrics = Metrics.on(registry)
    write: Any = values.MutexValue.set
    turns = [lambda: metrics.observe(OrphansCounted("two", 5, 50.0))]

    def interrupted(self: Any, amount: float, timestamp: float | None = None) -> None:
        if turns:
            turns.pop()()  # the sum was read, and is written after the other's
        write(self, amount, timestamp)

    monkeypatch.setattr(values.MutexValue, "set", interrupted)
    monkeypatch.setattr(metrics, "_counting", nullcontext())
    metrics.observe(OrphansCounted("one", 2, 20.0))
    assert orphans(registry) != (7, 50)


# --- the sum ------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", lives.LEFT)
def test_the_sum_holds_for_a_task_that_is_taken_over(
    registry: CollectorRegistry, left: Iterable[Event]
) -> None:
    """A change without before: however its owner left it, it is one task that was started here."""
    metrics = Metrics.on(registry)
    record = lives.taken_over(*left)
    metrics.observe(TaskChanged(None, record, Event.TAKE_OVER))
    assert add_up(registry) == Sums(started=1, live=1, finished=0, least=0)
    assert value(registry, "tasks_live", state=record.state.value) == 1
    last = lives.moved(record, Event.FORGET, 900.0, CancelReason.USER)
    metrics.observe(TaskChanged(record, last, Event.FORGET))
    assert add_up(registry) == Sums(started=1, live=0, finished=1, least=0)


@pytest.mark.parametrize("left", lives.CLAIMABLE)
def test_the_sum_holds_for_an_intent_that_becomes_a_dead_owners_task(
    registry: CollectorRegistry, left: Iterable[Event]
) -> None:
    """A change whose before has another intent id: one task all along, not two."""
    metrics, mine = Metrics.on(registry), lives.born()
    claimed = lives.reattached(*left)
    assert claimed.intent_id != mine.intent_id
    metrics.observe(TaskChanged(None, mine, None))
    metrics.observe(TaskChanged(mine, claimed, Event.REATTACH))
    assert add_up(registry) == Sums(started=1, live=1, finished=0, least=0)
    assert value(registry, "tasks_live", state="intent") == 0
    assert value(registry, "tasks_live", state=claimed.state.value) == 1


def test_the_sum_check_sees_a_claimed_task_that_is_told_as_born(
    registry: CollectorRegistry,
) -> None:
    """Negative control: without its before the intent would stay live for ever."""
    metrics, mine = Metrics.on(registry), lives.born()
    claimed = lives.reattached(*lives.CREATED)
    metrics.observe(TaskChanged(None, mine, None))
    metrics.observe(TaskChanged(None, claimed, Event.REATTACH))
    lost = lives.moved(claimed, Event.FAIL, 900.0, CancelReason.USER)
    metrics.observe(TaskChanged(claimed, lost, Event.FAIL))
    assert add_up(registry) == Sums(started=2, live=1, finished=1, least=0)


def test_a_task_that_was_to_be_cancelled_can_be_forgotten(registry: CollectorRegistry) -> None:
    """It is counted as detached, with the reason that it has."""
    metrics = Metrics.on(registry)
    lives.live(metrics, *lives.GIVEN_UP, Event.FORGET, reason=CancelReason.DEADLINE)
    labels = {"outcome": "detached", "reason": "deadline"}
    assert value(registry, "tasks_finished_total", **labels) == 1
    assert add_up(registry).finished == 1


# --- lines --------------------------------------------------------------------------------------


def tell_all(logs: Logs, record: Record, ids: list[str]) -> None:
    """Tell everything that there is to tell of orphans."""
    logs.observe(TaskChanged(None, record, Event.TAKE_OVER))
    for result in ReapResult:
        logs.observe(OrphanReaped(record, result, 1.0))
    for why in (Verdict.OTHER_CREDENTIAL, Verdict.OTHER_SYSTEM):
        logs.observe(OrphanLeft(record, why))
    logs.observe(CandidatesFound(record, ids))
    logs.observe(OrphansCounted("me", 3, 40.0))


@given(st.sampled_from(lives.LEFT), st.lists(st.text(), max_size=40))
def test_a_line_about_an_orphan_has_no_field_but_these(
    left: tuple[Event, ...], ids: list[str]
) -> None:
    """The allow-list, with none of them empty; how many there are is no line but a metric."""
    with capture_logs() as lines:
        tell_all(Logs(), lives.taken_over(*left, key="mine", last_error="oops"), ids)
    assert {line["event"] for line in lines} == MORE_FIELDS.keys()
    for line in lines:
        allowed = TASK_FIELDS | MORE_FIELDS[line["event"]] | {"event", "log_level"}
        assert line.keys() <= allowed
        assert None not in line.values()


def test_a_line_that_tells_the_whole_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: one more field, and the allow-list is broken."""
    tell = Logs._tell

    def chatty(self: Logs, level: int, event: str, record: Record, *rest: Any, **more: Any) -> None:
        tell(self, level, event, record, *rest, key=str(record.key), **more)

    monkeypatch.setattr(Logs, "_tell", chatty)
    with pytest.raises(AssertionError):
        test_a_line_about_an_orphan_has_no_field_but_these()


@pytest.mark.parametrize("result", ReapResult)
def test_the_end_of_an_orphan_is_told_with_what_came_of_it(result: ReapResult) -> None:
    """How, why, and the seconds that nobody owned it: not those since it was created."""
    last = lives.moved(lives.taken_over(*lives.CREATED), Event.FAIL, 9e3, CancelReason.USER)
    with capture_logs() as lines:
        Logs().observe(OrphanReaped(last, result, 59.12345))
    assert lines == [
        {
            "event": "orphan.reaped",
            "log_level": "info",
            "task_id": lives.ID,
            "intent_id": "fedcba9876543210",
            "namespace": "default",
            "state": "failed",
            "outcome": "failed",
            "result": result.value,
            "seconds": 59.123,
        }
    ]


@pytest.mark.parametrize("why", [Verdict.OTHER_CREDENTIAL, Verdict.OTHER_SYSTEM])
def test_an_orphan_out_of_reach_is_a_warning_that_says_who_can_end_it(why: Verdict) -> None:
    """It runs on and costs money, and this process may not touch it."""
    with capture_logs() as lines:
        Logs().observe(OrphanLeft(lives.left_behind(*lives.CREATED), why))
    [line] = lines
    assert (line["event"], line["log_level"], line["why"]) == ("orphan.left", "warning", why.value)
    assert (line["task_id"], line["state"]) == (lives.ID, "running")
    assert "credential" in line["hint"]
    assert "base URL" in line["hint"]


def test_a_task_that_is_taken_over_is_told_once_and_its_end_too() -> None:
    """Not as started: it was, by another process. What comes after is told as ever."""
    record = lives.taken_over(*lives.CREATED)
    cancelling = lives.moved(record, Event.CANCEL, 200.0, CancelReason.ORPHAN)
    ended = lives.moved(cancelling, Event.CANCELLED, 201.0, CancelReason.ORPHAN)
    with capture_logs() as lines:
        logs = Logs()
        logs.observe(TaskChanged(None, record, Event.TAKE_OVER))
        logs.observe(TaskChanged(record, cancelling, Event.CANCEL))
        logs.observe(TaskChanged(cancelling, ended, Event.CANCELLED))
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("task.taken_over", None),
        ("task.cancelling", "orphan"),
        ("task.finished", "orphan"),
    ]


def test_an_intent_that_becomes_a_dead_owners_task_is_told_as_taken_over() -> None:
    """The line has the intent id of the row that lives on."""
    with capture_logs() as lines:
        change = TaskChanged(lives.born(), lives.taken_over(*lives.CREATED), Event.TAKE_OVER)
        Logs().observe(change)
    [line] = lines
    assert (line["event"], line["intent_id"]) == ("task.taken_over", "fedcba9876543210")


def test_candidates_are_their_ids_cleaned_and_not_too_many() -> None:
    """One line, whatever the list says: no credential, no control character, an end in sight."""
    ids = [lives.ID, "sigmic_0123456789abcdef", "a\nb\x1b[31m", "x" * 5000, *map(str, range(40))]
    with capture_logs() as lines:
        Logs().observe(CandidatesFound(lives.left_behind(Event.POST, Event.LOSE), ids))
    [line] = lines
    assert line["log_level"] == "warning"
    assert "cancel it" in line["hint"]
    listed, _, rest = line["candidates"].partition(" and ")
    assert listed.split()[:3] == [lives.ID, "***", "a\\nb\\x1b[31m"]
    assert (len(listed.split()), rest) == (20, "24 more")
    assert len(line["candidates"]) < 20 * 200
    assert line["candidates"].isprintable()


@pytest.mark.parametrize("count", [1, 20])
def test_candidates_that_are_few_are_all_listed(count: int) -> None:
    """Nothing is left out, and nothing says so."""
    with capture_logs() as lines:
        Logs().observe(CandidatesFound(lives.born(), [str(number) for number in range(count)]))
    assert lines[0]["candidates"] == " ".join(map(str, range(count)))


async def test_counting_orphans_blocks_no_loop(registry: CollectorRegistry) -> None:
    """Blockbuster watches: supervisors of one loop never wait for each other's counting."""
    metrics = Metrics.on(registry)
    for order in permutations(("one", "two", "three")):
        for number, owner in enumerate(order):
            metrics.observe(OrphansCounted(owner, number, 1.0))
    metrics.observe(CancellationEnded(lives.born(), CancelResult.CONFIRMED, 1.0))
    tell_all(Logs(), lives.taken_over(*lives.CREATED), [lives.ID])
    assert value(registry, "orphans") == 3
