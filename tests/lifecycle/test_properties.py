"""What holds for a record whatever happens to it, and in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from sigmic_guard.lifecycle import (
    CancelReason,
    Event,
    IllegalTransition,
    Outcome,
    Reattachment,
    Record,
    State,
    TakeOver,
    TaskPolicy,
    step,
)
from sigmic_guard.lifecycle.states import ENDED, NAMELESS, OPEN, TO_BE_ENDED, TRANSITIONS
from sigmic_guard.testing.records import make_record
from tests.lifecycle.broken_funnels import BROKEN, Step

but = msgspec.structs.replace

#: What an event may bring about; all else stays as it is, whatever happens.
ALWAYS = {"version", "state"}
CHANGING = ALWAYS | {
    "remote_id",
    "posted_at",
    "lost_at",
    "reason",
    "cancel_requested_at",
    "attempts",
    "last_error",
    "finished_at",
    "remote_status",
}
CHANGED_BY = {
    Event.TAKE_OVER: ALWAYS | {"owner_id", "orphaned_at", "policy", "lost_at"},
    Event.REATTACH: ALWAYS | {"owner_id", "orphaned_at", "policy", "deadline_at", "lost_at"},
    Event.FOLLOW_UP: CHANGING | {"asked_at"},
    Event.DETACH: CHANGING | {"policy"},
    Event.HAND_OVER: CHANGING | {"policy"},
    Event.FORGET: ALWAYS | {"finished_at", "last_error", "remote_status"},
}
#: What the terms of a task without a name say when its owner let go of it.
LEFT_TO = {Event.DETACH: "abandon", Event.HAND_OVER: "reattach"}
BEFORE_CLOSE = {Event.FOLLOW_UP, Event.TAKE_OVER, Event.REATTACH, Event.FORGET}


class Happening(NamedTuple):
    """One event: the ``choice``-th of those that the record can take."""

    choice: int
    reason: CancelReason
    error: str | None
    status: str | None
    heir: TakeOver
    claimant: Reattachment


def choices(state: State) -> list[Event]:
    """The events that the table has for a state, those that end everything more rarely."""
    row = TRANSITIONS[state]
    final = ENDED - OPEN
    return [event for event, target in row.items() for _ in range(1 if target in final else 4)]


CHOICES = {state: choices(state) for state in State}
REASONS = list(CancelReason)
ERRORS = [None, "oops", "503"]
STATUSES = [None, "running", "novel"]
HEIRS = [
    TakeOver("owner-2", 900.0),
    TakeOver("owner-3", 950.5),
    TakeOver("owner-2", 900.0, release=True),
]
CLAIMANTS = [
    Reattachment("owner-2", TaskPolicy(timeout=60), 5000.0),
    Reattachment("owner-3", TaskPolicy(on_crash="reattach"), None),
]
LONGEST = 40

happenings = st.builds(
    Happening,
    st.integers(0, 100),
    st.sampled_from(REASONS),
    st.sampled_from(ERRORS),
    st.sampled_from(STATUSES),
    st.sampled_from(HEIRS),
    st.sampled_from(CLAIMANTS),
)
histories = st.lists(happenings, max_size=LONGEST)


def check_history(history: Sequence[Happening], take: Step) -> None:
    """Live through a history, and look at the record after each event."""
    record = make_record(deadline_at=4000.0, key="k", message_digest="d")
    for number, happening in enumerate(history):
        now = 1000.0 + number
        event = CHOICES[record.state][happening.choice % len(CHOICES[record.state])]
        arguments: dict[str, Any] = {"error": happening.error, "status": happening.status}
        if event in {Event.CREATED, Event.ADOPT}:
            arguments["remote_id"] = "r1"
        if event is Event.CANCEL:
            arguments["reason"] = happening.reason
        if event is Event.TAKE_OVER:
            arguments["heir"] = happening.heir
        if event is Event.REATTACH:
            arguments["heir"] = happening.claimant
        copy = but(record)
        try:
            after = take(record, event, now, **arguments)
        except IllegalTransition:
            assert event in BEFORE_CLOSE
            assert record.finished_at is not None
            after = record
        else:
            check_change(record, after, event, now)
            if event is Event.TAKE_OVER:
                check_take_over(record, after, happening.heir, now)
            if event is Event.REATTACH:
                check_reattachment(record, after, happening.claimant, now)
            if event in LEFT_TO and record.state in {State.CREATING, State.UNKNOWN}:
                assert after.state is record.state
                assert after.policy == record.policy.but(on_crash=LEFT_TO[event])
            else:
                inherited = event in {Event.TAKE_OVER, Event.REATTACH}
                assert inherited or after.policy == record.policy
            if event is Event.FORGET:
                assert after.state is State.DETACHED
                assert (after.finished_at, after.outcome) == (now, Outcome.DETACHED)
        assert record == copy
        check_record(after)
        record = after


def check_change(before: Record, after: Record, event: Event, now: float) -> None:
    """What an event may change, and what never."""
    if event in BEFORE_CLOSE:
        assert before.finished_at is None
        assert after != before
    if after == before:
        assert after is before
        return
    assert after.version == before.version + 1
    changes = {
        name for name in Record.__struct_fields__ if getattr(after, name) != getattr(before, name)
    }
    assert changes <= CHANGED_BY.get(event, CHANGING)
    if before.reason is not None:
        assert after.reason is before.reason
        assert after.cancel_requested_at == before.cancel_requested_at
    elif after.reason is not None:
        assert after.cancel_requested_at == now
        assert event in {Event.CANCEL, Event.CANCELLED}
    if before.state in ENDED and after.state is not before.state:
        assert before.state in OPEN
        assert event in BEFORE_CLOSE
    if before.state in TO_BE_ENDED:
        assert after.state is not State.RUNNING
    if before.finished_at is not None:
        assert after.finished_at == before.finished_at
    elif after.finished_at is not None:
        assert after.finished_at == now
    if before.remote_id is not None:
        kept = None if event is Event.MISTAKEN else before.remote_id
        assert after.remote_id == kept
    if before.posted_at is not None:
        assert after.posted_at == before.posted_at
    if before.lost_at is not None:
        assert after.lost_at == before.lost_at
    elif after.lost_at is not None:
        assert after.lost_at == now
        assert event in {Event.LOSE, Event.MISTAKEN, Event.TAKE_OVER, Event.REATTACH}
    assert after.asked_at == (now if event is Event.FOLLOW_UP else before.asked_at)
    assert after.attempts - before.attempts == (event is Event.ATTEMPT)


def check_take_over(before: Record, after: Record, heir: TakeOver, now: float) -> None:
    """Who takes a task over owns it, says what becomes of it, and believes nothing of it."""
    assert after.owner_id == heir.owner_id
    assert after.orphaned_at == heir.orphaned_at
    assert after.to_be_released is heir.release
    ends = {"on_crash": "cancel", "confirm": "terminal"}
    terms = before.policy.but(**({"on_crash": "abandon"} if heir.release else ends))
    assert after.policy == terms
    if before.state in NAMELESS:
        assert after.state is State.UNKNOWN
        assert after.lost_at == (now if before.lost_at is None else before.lost_at)
    else:
        assert after.state is State.TAKEN_OVER


def check_reattachment(before: Record, after: Record, heir: Reattachment, now: float) -> None:
    """Who gets a task by its key has it on his own terms, and it is no orphan."""
    assert (after.owner_id, after.policy, after.deadline_at) == heir
    assert not after.orphan
    if before.state in NAMELESS:
        assert after.state is State.UNKNOWN
        assert after.lost_at == (now if before.lost_at is None else before.lost_at)
    else:  # a cancel that lost the race against a completion stays one
        assert after.state is (State.RUNNING if before.reason is None else State.CANCELLING)


def check_record(record: Record) -> None:
    """What holds at every instant."""
    if record.state is not State.DETACHED:  # one that had no name yet can be forgotten
        assert (record.remote_id is None) == (
            record.state in NAMELESS or record.state is State.NEVER_CREATED
        )
    if record.state is State.UNKNOWN:
        assert record.lost_at is not None
    if record.state in {State.RUNNING, State.HANDED_OVER}:
        assert record.reason is None
    if record.state is State.RUNNING:
        assert not record.orphan
    if record.state is State.TAKEN_OVER:
        assert record.orphan
    over = record.finished_at is not None or record.state is State.HANDED_OVER
    assert record.over is over
    if record.state in {State.CANCELLING, State.UNCONFIRMED, State.CANCELLED}:
        assert record.reason is not None
    assert (record.reason is None) == (record.cancel_requested_at is None)
    if record.state is not State.COMPLETED:
        assert (record.finished_at is not None) == (record.state in ENDED - OPEN)
    ended = record.state in ENDED or record.state is State.UNCONFIRMED
    assert (record.outcome is not None) == ended


def check_all(take: Step) -> None:
    """Look for a history that breaks a rule; the same ones each time."""
    chance = Random(7)
    for _ in range(1000):
        history = [
            Happening(
                chance.randrange(101),
                chance.choice(REASONS),
                chance.choice(ERRORS),
                chance.choice(STATUSES),
                chance.choice(HEIRS),
                chance.choice(CLAIMANTS),
            )
            for _ in range(chance.randrange(LONGEST))
        ]
        check_history(history, take)


@hypothesis.given(histories)
def test_the_rules_hold_whatever_happens(history: Sequence[Happening]) -> None:
    """No sequence of events breaks any rule of a record."""
    check_history(history, step)


def test_the_same_histories_pass_with_the_funnel_as_it_is() -> None:
    """What the controls below find is their own fault, and they had every chance to be found."""
    seen: set[tuple[State, Event]] = set()

    def take(record: Record, event: Event, now: float, **more: Any) -> Record:
        seen.add((record.state, event))
        return step(record, event, now, **more)

    check_all(take)
    assert seen == {(state, event) for state, row in TRANSITIONS.items() for event in row}


@pytest.mark.parametrize("name", BROKEN)
def test_a_funnel_that_breaks_a_rule_is_found(name: str) -> None:
    """Negative control: each broken funnel is found out."""
    with pytest.raises(AssertionError):
        check_all(BROKEN[name])
