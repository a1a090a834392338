"""The funnel: which arguments go with which event, and what each event leaves in the record."""

from __future__ import annotations

import pickle
from typing import Any

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
from sigmic_guard.testing.records import make_record

NAMING = [Event.CREATED, Event.ADOPT]
KEPT = TaskPolicy(on_crash="reattach")
HEIRS: dict[Event, TakeOver | Reattachment] = {
    Event.TAKE_OVER: TakeOver("owner-2", 1.0),
    Event.REATTACH: Reattachment("owner-2", KEPT, 7.0),
}


def play(*events: Event, **fields: Any) -> Record:
    """Take the events one after the other, one second apart, with the arguments they need."""
    record = make_record(**fields)
    for now, event in enumerate(events, 1):
        arguments: dict[str, Any] = {}
        if event in NAMING:
            arguments["remote_id"] = "r1"
        if event is Event.CANCEL:
            arguments["reason"] = CancelReason.USER
        if event is Event.TAKE_OVER:
            arguments["heir"] = TakeOver("owner-2", now - 0.5)
        if event is Event.REATTACH:
            arguments["heir"] = Reattachment("owner-2", KEPT, None)
        record = step(record, event, float(now), **arguments)
    return record


@pytest.mark.parametrize("event", Event)
def test_a_remote_id_goes_with_the_events_that_learn_one(event: Event) -> None:
    """An id is asked of CREATED and ADOPT, and refused by all others, before the table is asked."""
    reason = CancelReason.USER if event is Event.CANCEL else None
    wrong = [None, ""] if event in NAMING else ["r1"]
    for remote_id in wrong:
        with pytest.raises(ValueError, match="remote_id"):
            step(make_record(), event, 1.0, remote_id=remote_id, reason=reason)


@pytest.mark.parametrize("event", Event)
def test_a_reason_goes_with_cancel(event: Event) -> None:
    """A reason is asked of CANCEL, and refused by all others, before the table is asked."""
    remote_id = "r1" if event in NAMING else None
    reason = None if event is Event.CANCEL else CancelReason.USER
    with pytest.raises(ValueError, match="reason"):
        step(make_record(), event, 1.0, remote_id=remote_id, reason=reason)


@pytest.mark.parametrize("event", Event)
def test_each_heir_goes_with_its_event(event: Event) -> None:
    """TAKE_OVER and REATTACH need theirs, and all others none, before the table is asked."""
    remote_id = "r1" if event in NAMING else None
    reason = CancelReason.USER if event is Event.CANCEL else None
    for heir in {None, *HEIRS.values()} - {HEIRS.get(event)}:
        with pytest.raises(ValueError, match="heir"):
            step(make_record(), event, 1.0, remote_id=remote_id, reason=reason, heir=heir)


def test_a_task_that_nobody_cancels() -> None:
    """From the intent to the end each time and the id are kept."""
    record = play(Event.POST, Event.CREATED, Event.COMPLETE)
    assert (record.state, record.outcome) == (State.COMPLETED, Outcome.COMPLETED)
    assert (record.posted_at, record.remote_id, record.version) == (1.0, "r1", 4)
    assert record.finished_at is None, "a follow-up may come"
    assert step(record, Event.CLOSE, 9.0).finished_at == 9.0


@pytest.mark.parametrize("first", [Event.CREATED, Event.ADOPT])
def test_a_remembered_cancel_takes_effect_in_the_step_that_learns_the_id(first: Event) -> None:
    """A task that was cancelled before it had a name is never RUNNING."""
    before = [Event.POST] if first is Event.CREATED else []
    record = play(*before, Event.CANCEL)
    assert record.state in {State.INTENT, State.CREATING}
    after = step(record, first, 5.0, remote_id="r1")
    assert (after.state, after.reason) == (State.CANCELLING, CancelReason.USER)
    assert after.cancel_requested_at == record.cancel_requested_at
    assert after.version == record.version + 1


def test_a_cancel_while_the_answer_is_lost_is_remembered_too() -> None:
    """UNKNOWN keeps the cancel until the list has shown the id."""
    record = play(Event.POST, Event.LOSE, Event.CANCEL)
    assert record.state is State.UNKNOWN
    assert step(record, Event.CREATED, 9.0, remote_id="r1").state is State.CANCELLING
    assert step(record, Event.ABSENT, 9.0).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("after", [[], [Event.CANCEL], [Event.CANCEL, Event.GIVE_UP]])
def test_an_id_that_proves_to_be_anothers_is_taken_back(after: list[Event]) -> None:
    """The task is looked for, and a cancel takes effect as soon as it is found."""
    before = play(Event.POST, Event.CREATED, *after)
    record = step(before, Event.MISTAKEN, 9.0, error="mixed up")
    assert (record.state, record.remote_id, record.remote_status) == (State.UNKNOWN, None, None)
    assert (record.lost_at, record.last_error) == (9.0, "mixed up")
    assert (record.reason, record.posted_at) == (before.reason, before.posted_at)
    found = step(record, Event.CREATED, 10.0, remote_id="r2")
    assert found.remote_id == "r2"
    assert found.state is (State.CANCELLING if after else State.RUNNING)


def test_the_first_cause_stays() -> None:
    """A second cancel changes nothing: the same record comes back."""
    record = play(Event.POST, Event.CREATED, Event.CANCEL)
    assert step(record, Event.CANCEL, 9.0, reason=CancelReason.SHUTDOWN) is record


def test_a_cancellation_by_somebody_else_has_the_reason_remote() -> None:
    """CANCELLED without a cancel of ours was somebody else's, and is timed when it was seen."""
    record = play(Event.POST, Event.CREATED, Event.CANCELLED)
    assert (record.reason, record.cancel_requested_at) == (CancelReason.REMOTE, 3.0)


def test_attempts_are_counted_with_what_went_wrong() -> None:
    """Each DELETE that proved nothing counts, and leaves its error; seen statuses stay."""
    record = play(Event.POST, Event.CREATED, Event.CANCEL)
    record = step(record, Event.ATTEMPT, 4.0, error="HTTP 503", status="running")
    record = step(record, Event.ATTEMPT, 5.0, error="timed out")
    assert (record.attempts, record.last_error) == (2, "timed out")
    assert (record.state, record.remote_status) == (State.CANCELLING, "running")
    record = step(record, Event.GIVE_UP, 6.0)
    assert (record.state, record.last_error) == (State.UNCONFIRMED, "timed out")
    assert (record.finished_at, record.outcome) == (None, Outcome.CANCELLED)
    assert step(record, Event.CANCELLED, 7.0).finished_at == 7.0


def test_a_task_that_won_the_race_keeps_its_outcome_and_the_reason() -> None:
    """Cancelled by us, completed all the same: the outcome is completed."""
    record = play(Event.POST, Event.CREATED, Event.CANCEL, Event.COMPLETE)
    assert (record.outcome, record.reason) == (Outcome.COMPLETED, CancelReason.USER)


def test_a_follow_up_opens_a_completed_task_again() -> None:
    """A completed task runs again, and may be cancelled then."""
    record = play(Event.POST, Event.CREATED, Event.COMPLETE, Event.FOLLOW_UP)
    assert (record.state, record.outcome, record.finished_at) == (State.RUNNING, None, None)
    assert step(record, Event.CANCEL, 9.0, reason=CancelReason.SCOPE).state is State.CANCELLING


def test_no_follow_up_comes_after_the_close() -> None:
    """CLOSE is final: a finished row stays finished."""
    record = play(Event.POST, Event.CREATED, Event.COMPLETE, Event.CLOSE)
    with pytest.raises(IllegalTransition):
        step(record, Event.FOLLOW_UP, 9.0)
    assert step(record, Event.CLOSE, 9.0) is record


@pytest.mark.parametrize("before", [[], [Event.POST], [Event.POST, Event.LOSE]])
def test_what_a_dead_owner_left_without_a_name_is_looked_for(before: list[Event]) -> None:
    """A take-over makes it UNKNOWN, since when is known, and a cancel is still remembered."""
    record = play(*before, Event.CANCEL, Event.TAKE_OVER)
    assert (record.state, record.owner_id, record.reason) == (
        State.UNKNOWN,
        "owner-2",
        CancelReason.USER,
    )
    lost_earlier = Event.LOSE in before
    assert record.lost_at == (2.0 if lost_earlier else len(before) + 2.0)
    assert record.orphaned_at == len(before) + 1.5
    found = step(record, Event.CREATED, 9.0, remote_id="r1")
    assert (found.state, found.reason) == (State.TAKEN_OVER, CancelReason.USER)
    ending = step(found, Event.CANCEL, 10.0, reason=CancelReason.ORPHAN)
    assert (ending.state, ending.reason) == (State.CANCELLING, CancelReason.USER)


def test_a_stray_is_an_orphan_from_its_adoption_on() -> None:
    """Its intent says so, and it is never RUNNING."""
    record = play(Event.ADOPT, orphaned_at=0.5)
    assert (record.state, record.remote_id) == (State.TAKEN_OVER, "r1")


def test_an_orphan_leaves_for_what_a_get_shows() -> None:
    """It has ended, it is to end, or it is let go: nothing else comes of it here."""
    record = play(Event.POST, Event.CREATED, Event.TAKE_OVER)
    assert (record.state, record.reason, record.orphan) == (State.TAKEN_OVER, None, True)
    ending = step(record, Event.CANCEL, 9.0, reason=CancelReason.ORPHAN)
    assert (ending.state, ending.reason) == (State.CANCELLING, CancelReason.ORPHAN)
    assert ending.cancel_requested_at == 9.0
    assert step(record, Event.COMPLETE, 9.0).state is State.COMPLETED
    released = step(record, Event.DETACH, 9.0)
    assert (released.state, released.outcome) == (State.DETACHED, Outcome.DETACHED)
    with pytest.raises(IllegalTransition):
        step(record, Event.HAND_OVER, 9.0)


@pytest.mark.parametrize("release", [False, True])
def test_a_take_over_writes_its_terms(release: bool) -> None:
    """Whoever reads the row does the same: it is ended with proof, or let go."""
    policy = TaskPolicy(on_crash="reattach", cancel_wait=2.0)
    record = make_record(state=State.RUNNING, remote_id="r1", policy=policy)
    after = step(record, Event.TAKE_OVER, 9.0, heir=TakeOver("owner-2", 8.0, release))
    assert after.to_be_released is release
    if release:
        assert after.policy == policy.but(on_crash="abandon")
    else:
        assert after.policy == policy.but(on_crash="cancel", confirm="terminal")


def test_who_gets_a_task_by_its_key_has_no_orphan() -> None:
    """It runs, or is looked for, on the new terms; what is to end is nobody's to get."""
    record = play(Event.POST, Event.CREATED, Event.HAND_OVER, Event.REATTACH)
    assert (record.state, record.orphan, record.policy) == (State.RUNNING, False, KEPT)
    assert play(Event.POST, Event.REATTACH).state is State.UNKNOWN
    for before in [Event.CANCEL], [Event.CANCEL, Event.GIVE_UP], [Event.TAKE_OVER]:
        left = play(Event.POST, Event.CREATED, *before)
        with pytest.raises(IllegalTransition):
            step(left, Event.REATTACH, 9.0, heir=HEIRS[Event.REATTACH])


def test_a_take_over_looks_at_an_unconfirmed_task_again() -> None:
    """What a dead owner gave up is TAKEN_OVER, with its cause and its attempts."""
    events = [Event.POST, Event.CREATED, Event.CANCEL, Event.ATTEMPT, Event.GIVE_UP]
    record = play(*events, Event.TAKE_OVER)
    assert (record.state, record.reason, record.attempts) == (
        State.TAKEN_OVER,
        CancelReason.USER,
        1,
    )
    assert (record.remote_id, record.cancel_requested_at, record.version) == ("r1", 3.0, 7)


def test_a_take_over_believes_no_completion() -> None:
    """A follow-up may have gone out unwritten: a completed task may run, its id and times kept."""
    record = play(Event.POST, Event.CREATED, Event.COMPLETE, Event.TAKE_OVER)
    assert (record.state, record.remote_id, record.outcome) == (State.TAKEN_OVER, "r1", None)
    assert (record.posted_at, record.orphaned_at, record.finished_at) == (1.0, 3.5, None)
    assert step(record, Event.COMPLETE, 9.0).state is State.COMPLETED


def test_a_take_over_of_a_completed_task_keeps_the_cancel_that_lost_the_race() -> None:
    """Asked again or not, it is to end for its first cause, and is never RUNNING."""
    record = play(Event.POST, Event.CREATED, Event.CANCEL, Event.COMPLETE, Event.TAKE_OVER)
    assert (record.state, record.reason) == (State.TAKEN_OVER, CancelReason.USER)
    assert (record.cancel_requested_at, record.version) == (3.0, 6)


def test_a_task_can_be_taken_over_again() -> None:
    """The heir of an heir owns it, and the last death counts."""
    record = play(Event.POST, Event.CREATED, Event.TAKE_OVER)
    record = step(record, Event.TAKE_OVER, 9.0, heir=TakeOver("owner-3", 8.0))
    assert (record.owner_id, record.orphaned_at, record.version) == ("owner-3", 8.0, 5)
    assert record.state is State.TAKEN_OVER


def test_the_deadline_is_the_heirs_only_where_the_task_is_wanted() -> None:
    """Who takes it over has none of his own; who gets it by its key brings his, also none."""
    record = make_record(state=State.RUNNING, remote_id="r1", deadline_at=50.0)
    assert step(record, Event.TAKE_OVER, 9.0, heir=HEIRS[Event.TAKE_OVER]).deadline_at == 50.0
    for deadline in 70.0, None:
        heir = Reattachment("owner-2", KEPT, deadline)
        after = step(record, Event.REATTACH, 9.0, heir=heir)
        assert (after.policy, after.deadline_at) == (KEPT, deadline)


@pytest.mark.parametrize("event", [Event.TAKE_OVER, Event.REATTACH, Event.FORGET])
@pytest.mark.parametrize(
    "end", [[Event.COMPLETE, Event.CLOSE], [Event.FAIL], [Event.CANCELLED], [Event.DETACH]]
)
def test_what_is_finished_is_nobodys_to_take(event: Event, end: list[Event]) -> None:
    """Neither a take-over nor a forget comes after the end."""
    record = play(Event.POST, Event.CREATED, *end)
    with pytest.raises(IllegalTransition):
        step(record, event, 9.0, heir=HEIRS.get(event))


def test_a_forgotten_task_is_detached_and_says_why_it_was_to_end() -> None:
    """FORGET ends the record, not the task: its outcome is detached, its reason stays."""
    record = play(Event.POST, Event.CREATED, Event.CANCEL, Event.GIVE_UP, Event.FORGET)
    assert (record.state, record.outcome) == (State.DETACHED, Outcome.DETACHED)
    assert (record.finished_at, record.reason) == (5.0, CancelReason.USER)


def test_a_record_cannot_be_written() -> None:
    """The funnel is the only way to another record."""
    with pytest.raises(AttributeError):
        make_record().state = State.RUNNING  # type: ignore[misc]


def test_an_illegal_transition_says_what_and_can_be_pickled() -> None:
    """The error names the state and the event, and crosses processes with both."""
    with pytest.raises(IllegalTransition, match=r"intent.*complete") as caught:
        step(make_record(), Event.COMPLETE, 1.0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.state, copy.event) == (State.INTENT, Event.COMPLETE)
    assert str(copy) == str(caught.value)


def test_a_record_can_be_pickled_and_encoded() -> None:
    """A record is plain data, its policy included."""
    record = play(Event.POST, Event.CREATED, Event.CANCEL)
    assert pickle.loads(pickle.dumps(record)) == record
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record
