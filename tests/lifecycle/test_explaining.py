"""A record in words: each state and reason has some, and a key is told only where it may be."""

from __future__ import annotations

from sigmic_guard.lifecycle import CancelReason, Record, State, TaskPolicy
from sigmic_guard.lifecycle.explaining import REASONS, STATES, history, span, utc_time


def make_record(**fields: object) -> Record:
    defaults: dict[str, object] = {
        "intent_id": "intent-1",
        "namespace": "default",
        "base_url": "https://api.example",
        "credential_fingerprint": "f",
        "owner_id": "o",
        "policy": TaskPolicy(),
        "created_at": 100.0,
    }
    return Record(**{**defaults, **fields})  # type: ignore[arg-type]


def test_every_state_and_every_reason_has_its_words() -> None:
    assert set(STATES) == set(State)
    assert set(REASONS) == set(CancelReason)


def test_what_happened_is_told_in_its_order() -> None:
    record = make_record(deadline_at=300.0, posted_at=101.0, attempts=1)
    assert [moment.at for moment in history(record, 200.0)] == [100.0, 101.0, 300.0, None]


def test_the_key_is_told_only_where_it_may_be() -> None:
    record = make_record(key="nightly")
    assert any("nightly" in moment.text for moment in history(record, 200.0))
    assert not any("nightly" in moment.text for moment in history(record, 200.0, key=False))


def test_times_that_no_calendar_has_are_shown_as_numbers() -> None:
    assert utc_time(0.0) == "1970-01-01T00:00:00Z"
    assert utc_time(None) == ""
    assert utc_time(1e300) == "1e+300"


def test_time_spans_are_told_in_their_two_largest_units() -> None:
    assert [span(seconds) for seconds in (4.9, 245, -90, 90_000)] == [
        "4s",
        "4m05s",
        "-1m30s",
        "1d01h",
    ]
