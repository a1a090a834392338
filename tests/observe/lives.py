"""Records for these tests, moved by the real funnel only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from sigmic_guard.lifecycle import (
    CancelReason,
    Event,
    Reattachment,
    Record,
    State,
    TakeOver,
    TaskPolicy,
    step,
)
from sigmic_guard.lifecycle.states import TRANSITIONS
from sigmic_guard.observe import TaskChanged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sigmic_guard.observe import Observer

ID = "c37c1d78-4d23-4e53-949a-ddd775f25e01"
INTENT = "0123456789abcdef"

CREATED = (Event.POST, Event.CREATED)
CANCELLED = (*CREATED, Event.CANCEL, Event.CANCELLED)
COMPLETED = (*CREATED, Event.COMPLETE, Event.CLOSE)
FAILED = (*CREATED, Event.FAIL)
DETACHED = (*CREATED, Event.DETACH)
HANDED_OVER = (*CREATED, Event.HAND_OVER)
REFUSED = (Event.POST, Event.REFUSE)
TAKEN_OVER = (*CREATED, Event.TAKE_OVER)
GIVEN_UP = (*CREATED, Event.CANCEL, Event.ATTEMPT, Event.GIVE_UP)

#: How a dead owner can leave a task.
LEFT: tuple[tuple[Event, ...], ...] = (
    (),
    (Event.POST,),
    (Event.POST, Event.LOSE),
    (Event.POST, Event.CANCEL),
    CREATED,
    (*CREATED, Event.CANCEL),
    (*CREATED, Event.COMPLETE),
    (*CREATED, Event.CANCEL, Event.COMPLETE),
    GIVEN_UP,
    HANDED_OVER,
)

#: And of these somebody can get it by its key.
CLAIMABLE: tuple[tuple[Event, ...], ...] = (
    (),
    (Event.POST,),
    (Event.POST, Event.LOSE),
    CREATED,
    (*CREATED, Event.COMPLETE),
    HANDED_OVER,
)

_BEFORE_CLOSE = {Event.FOLLOW_UP, Event.TAKE_OVER, Event.REATTACH, Event.FORGET}


def born(**fields: Any) -> Record:
    return Record(
        **{
            "intent_id": INTENT,
            "namespace": "default",
            "base_url": "https://api.example",
            "credential_fingerprint": "f00d",
            "owner_id": "me",
            "policy": TaskPolicy(),
            "created_at": 100.0,
            **fields,
        }
    )


def heirs(now: float) -> dict[Event, TakeOver | Reattachment]:
    """Who takes a dead owner's task over, or gets it by its key."""
    return {
        Event.TAKE_OVER: TakeOver("me", now - 0.5),
        Event.REATTACH: Reattachment("me", TaskPolicy(), None),
    }


def moved(record: Record, event: Event, now: float, reason: CancelReason) -> Record:
    """Step with the arguments that the event needs."""
    naming = event in {Event.CREATED, Event.ADOPT}
    return step(
        record,
        event,
        now,
        remote_id=ID if naming else None,
        reason=reason if event is Event.CANCEL else None,
        error="DELETE answered 503" if event is Event.ATTEMPT else None,
        heir=heirs(now).get(event),
    )


def left_behind(*events: Event, **fields: Any) -> Record:
    """Return the record of a dead owner as ``events`` left it."""
    record = born(**{"intent_id": "fedcba9876543210", "owner_id": "dead"} | fields)
    for second, event in enumerate(events, 1):
        record = moved(record, event, record.created_at + second, CancelReason.USER)
    return record


def taken_over(*events: Event, **fields: Any) -> Record:
    """Return that record as it is when it has become ours."""
    record = left_behind(*events, **fields)
    return moved(record, Event.TAKE_OVER, record.created_at + 60, CancelReason.USER)


def reattached(*events: Event, **fields: Any) -> Record:
    """Return that record as it is when somebody has got it by its key."""
    record = left_behind(*events, **fields)
    return moved(record, Event.REATTACH, record.created_at + 60, CancelReason.USER)


def changes(
    *events: Event, reason: CancelReason = CancelReason.USER, **fields: Any
) -> Iterator[TaskChanged]:
    """Yield the birth of a task and what ``events`` make of it, each a second after the other."""
    record = born(**fields)
    yield TaskChanged(None, record, None)
    for second, event in enumerate(events, 1):
        after = moved(record, event, record.created_at + second, reason)
        if after is not record:
            yield changed(record, after, event)
        record = after


def changed(before: Record | None, after: Record, event: Event | None) -> TaskChanged:
    """Return the event of one step, with how long the task took if it was its last."""
    ended_at = after.finished_at
    seconds = None if ended_at is None else max(0.0, ended_at - after.created_at)
    return TaskChanged(before, after, event, seconds)


def live(
    observer: Observer,
    *events: Event,
    reason: CancelReason = CancelReason.USER,
    **fields: Any,
) -> Record:
    """Tell ``observer`` a whole life, and return the last record."""
    record = None
    for change in changes(*events, reason=reason, **fields):
        observer.observe(change)
        record = change.after
    assert record is not None
    return record


@st.composite
def walks(draw: st.DrawFn) -> list[TaskChanged]:
    """Draw a life: any events, in any order that the table allows.

    It begins with an intent of ours, with a dead owner's task, or with an intent that turns out to
    be a dead owner's task, and may turn out not to exist and be begun anew.
    """
    record = born(created_at=draw(st.sampled_from([100.0, 1e9])))
    beginning = draw(st.sampled_from(["ours", "theirs", "claimed"]))
    left = draw(st.sampled_from(LEFT))
    if beginning == "theirs":
        record = taken_over(*left)
        life = [TaskChanged(None, record, Event.TAKE_OVER)]
    else:
        life = [TaskChanged(None, record, None)]
    if beginning == "claimed":
        left = draw(st.sampled_from(CLAIMABLE))
        life.append(TaskChanged(record, reattached(*left), Event.REATTACH))
        record = life[-1].after
        if record.state is State.UNKNOWN and draw(st.booleans()):
            life.append(TaskChanged(record, born(intent_id="another"), None))
            record = life[-1].after
    for _ in range(draw(st.integers(0, 12))):
        if record.state is State.HANDED_OVER:
            break  # what comes after is told to somebody else, as of a dead owner's
        event = draw(st.sampled_from(list(TRANSITIONS[record.state])))
        if event in _BEFORE_CLOSE and record.finished_at is not None:
            continue  # in the table, but CLOSE said that nothing comes after
        after = moved(record, event, 200.0, draw(st.sampled_from(CancelReason)))
        if after is not record:
            life.append(changed(record, after, event))
        record = after
    return life


@st.composite
def interleaved(draw: st.DrawFn) -> list[tuple[int, TaskChanged]]:
    """Draw the lives of some tasks of two supervisors, 0 and 1, all mixed up."""
    lives = draw(st.lists(st.tuples(st.integers(0, 1), walks()), min_size=1, max_size=6))
    order = draw(st.permutations([number for number, one in enumerate(lives) for _ in one[1]]))
    steps = [(supervisor, iter(life)) for supervisor, life in lives]
    return [(steps[number][0], next(steps[number][1])) for number in order]
