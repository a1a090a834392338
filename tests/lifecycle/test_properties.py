"""What holds for a record whatever happens to it, and in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from sigmic_guard.lifecycle import CancelReason, Event, IllegalTransition, Record, State, step
from sigmic_guard.lifecycle.states import ENDED, NAMELESS, TRANSITIONS
from sigmic_guard.testing.records import make_record

Step = Callable[..., Record]


class Happening(NamedTuple):
    """One event: the ``choice``-th of those that the table has for the record's state."""

    choice: int
    reason: CancelReason
    error: str | None
    status: str | None


happenings = st.builds(
    Happening,
    st.integers(0, 20),
    st.sampled_from(CancelReason),
    st.sampled_from([None, "oops", "503"]),
    st.sampled_from([None, "running", "novel"]),
)
histories = st.lists(happenings, max_size=30)


def check_history(history: Sequence[Happening], take: Step) -> None:
    """Live through a history, and look at the record after each event."""
    record = make_record()
    for number, happening in enumerate(history):
        now = 1000.0 + number
        event = list(TRANSITIONS[record.state])[happening.choice % len(TRANSITIONS[record.state])]
        arguments: dict[str, Any] = {"error": happening.error, "status": happening.status}
        if event in {Event.CREATED, Event.ADOPT}:
            arguments["remote_id"] = "r1"
        if event is Event.CANCEL:
            arguments["reason"] = happening.reason
        copy = msgspec.structs.replace(record)
        try:
            after = take(record, event, now, **arguments)
        except IllegalTransition:
            assert event is Event.FOLLOW_UP
            assert record.finished_at is not None
            after = record
        assert record == copy
        check_change(record, after, event, now)
        check_record(after)
        record = after


def check_change(before: Record, after: Record, event: Event, now: float) -> None:
    """What an event may change, and what never."""
    if after == before:
        assert after is before
        return
    assert after.version == before.version + 1
    if before.reason is not None:
        assert after.reason is before.reason
        assert after.cancel_requested_at == before.cancel_requested_at
    elif after.reason is not None:
        assert after.cancel_requested_at == now
        assert event in {Event.CANCEL, Event.CANCELLED}
    if before.state in ENDED and after.state is not before.state:
        assert (before.state, event) == (State.COMPLETED, Event.FOLLOW_UP)
    if before.state is State.CANCELLING:
        assert after.state is not State.RUNNING
    if before.finished_at is not None:
        assert after.finished_at == before.finished_at
    elif after.finished_at is not None:
        assert after.finished_at == now
    if before.remote_id is not None:
        assert after.remote_id == before.remote_id
    if before.posted_at is not None:
        assert after.posted_at == before.posted_at
    assert after.attempts - before.attempts == (event is Event.ATTEMPT)
    for name in ("intent_id", "namespace", "owner_id", "policy", "created_at", "key"):
        assert getattr(after, name) == getattr(before, name)


def check_record(record: Record) -> None:
    """What holds at every instant."""
    assert (record.remote_id is None) == (
        record.state in NAMELESS or record.state is State.NEVER_CREATED
    )
    assert not (record.state is State.RUNNING and record.reason is not None)
    if record.state in {State.CANCELLING, State.UNCONFIRMED, State.CANCELLED}:
        assert record.reason is not None
    assert (record.reason is None) == (record.cancel_requested_at is None)
    if record.state is not State.COMPLETED:
        assert (record.finished_at is not None) == (record.state in ENDED)
    ended = record.state in ENDED or record.state is State.UNCONFIRMED
    assert (record.outcome is not None) == ended


def check_all(take: Step) -> None:
    """Look for a history that breaks a rule; the same ones each time."""

    # The same each time, and without the shrinking that only a reader would need.
    @hypothesis.settings(
        derandomize=True,
        database=None,
        max_examples=200,
        phases=[hypothesis.Phase.generate],
        report_multiple_bugs=False,
    )
    @hypothesis.given(histories)
    def check(history: Sequence[Happening]) -> None:
        check_history(history, take)

    check()


@hypothesis.given(histories)
def test_the_rules_hold_whatever_happens(history: Sequence[Happening]) -> None:
    """No sequence of events breaks any rule of a record."""
    check_history(history, step)


def forgets_the_first_cause(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return msgspec.structs.replace(after, reason=more.get("reason") or after.reason)


def forgets_the_remembered_cancel(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    if event in {Event.CREATED, Event.ADOPT}:
        return msgspec.structs.replace(after, state=State.RUNNING)
    return after


def keeps_the_version(record: Record, event: Event, now: float, **more: Any) -> Record:
    return msgspec.structs.replace(step(record, event, now, **more), version=1)


def always_a_new_record(record: Record, event: Event, now: float, **more: Any) -> Record:
    return msgspec.structs.replace(step(record, event, now, **more))


def finishes_again(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    if after.finished_at is None or event is not Event.CLOSE:
        return after
    return msgspec.structs.replace(after, finished_at=now, version=record.version + 1)


def follows_up_after_the_close(record: Record, event: Event, now: float, **more: Any) -> Record:
    if event is Event.FOLLOW_UP:
        record = msgspec.structs.replace(record, finished_at=None)
    return step(record, event, now, **more)


def loses_the_id(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return msgspec.structs.replace(after, remote_id=None) if event is Event.GIVE_UP else after


def blames_nobody(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    if after.state is State.CANCELLED and record.reason is None:
        return msgspec.structs.replace(after, reason=None)
    return after


def test_the_same_histories_pass_with_the_funnel_as_it_is() -> None:
    """What the controls below find is their own fault."""
    check_all(step)


@pytest.mark.parametrize(
    "take",
    [
        forgets_the_first_cause,
        forgets_the_remembered_cancel,
        keeps_the_version,
        always_a_new_record,
        finishes_again,
        follows_up_after_the_close,
        loses_the_id,
        blames_nobody,
    ],
)
def test_a_funnel_that_breaks_a_rule_is_found(take: Step) -> None:
    """Negative control: each broken funnel is found out."""
    with pytest.raises((AssertionError, ExceptionGroup)):
        check_all(take)
