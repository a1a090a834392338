"""Funnels that break one rule each; ``test_properties.py`` has to find them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sigmic_guard.lifecycle import Event, Record, State, step

Step = Callable[..., Record]
but = msgspec.structs.replace


def forgets_the_first_cause(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return but(after, reason=more.get("reason") or after.reason)


def forgets_the_remembered_cancel(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    if event in {Event.CREATED, Event.ADOPT}:
        return but(after, state=State.RUNNING)
    return after


def keeps_the_version(record: Record, event: Event, now: float, **more: Any) -> Record:
    return but(step(record, event, now, **more), version=1)


def always_a_new_record(record: Record, event: Event, now: float, **more: Any) -> Record:
    return but(step(record, event, now, **more))


def finishes_again(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    if after.finished_at is None or event is not Event.CLOSE:
        return after
    return but(after, finished_at=now, version=record.version + 1)


def follows_up_after_the_close(record: Record, event: Event, now: float, **more: Any) -> Record:
    if event is Event.FOLLOW_UP:
        record = but(record, finished_at=None)
    return step(record, event, now, **more)


def asks_in_secret(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return but(after, asked_at=record.asked_at) if event is Event.FOLLOW_UP else after


def loses_the_id(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return but(after, remote_id=None) if event is Event.GIVE_UP else after


def blames_nobody(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    if after.state is State.CANCELLED and record.reason is None:
        return but(after, reason=None)
    return after


#: What a broken take-over makes of the record before and of the record after it.
Wrong = Callable[[Record, Record], dict[str, Any]]

TAKE_OVERS: dict[str, Wrong] = {
    "forgets_the_reason": lambda _, after: {"reason": None, "cancel_requested_at": None},
    "keeps_the_owner": lambda before, _: {"owner_id": before.owner_id},
    "keeps_the_version": lambda before, _: {"version": before.version},
    "leaves_an_intent_as_it_was": lambda before, _: (
        {"state": before.state, "lost_at": before.lost_at} if before.state is State.INTENT else {}
    ),
    "tells_no_time_of_the_loss": lambda before, _: {"lost_at": before.lost_at},
    "forgets_the_time_of_the_loss": lambda before, _: (
        {"lost_at": None} if before.lost_at is not None else {}
    ),
    "changes_the_time_of_the_loss": lambda before, after: (
        {"lost_at": after.orphaned_at} if before.lost_at is not None else {}
    ),
    "asks_nobody_again": lambda before, _: (
        {"state": before.state} if before.state is State.UNCONFIRMED else {}
    ),
    "believes_completed": lambda before, _: (
        {"state": before.state} if before.state is State.COMPLETED else {}
    ),
    "believes_it_runs": lambda before, _: (
        {"state": before.state} if before.state is State.RUNNING else {}
    ),
    "ends_it_without_a_look": lambda before, _: (
        {"state": before.state} if before.state is State.CANCELLING else {}
    ),
    "counts_the_attempts_anew": lambda *_: {"attempts": 0},
    "begins_anew": lambda *_: {"created_at": 1.0},
    "renames": lambda _, after: {"remote_id": "r2"} if after.remote_id else {},
    "drops_the_deadline": lambda *_: {"deadline_at": None},
    "keeps_the_terms": lambda before, _: {"policy": before.policy},
    "forgets_the_death": lambda *_: {"orphaned_at": None},
}


def takes_over(wrong: Wrong) -> Step:
    """A funnel that is right but for its take-over."""

    def take(record: Record, event: Event, now: float, **more: Any) -> Record:
        after = step(record, event, now, **more)
        return but(after, **wrong(record, after)) if event is Event.TAKE_OVER else after

    return take


def runs_an_orphan(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    found = event in {Event.CREATED, Event.ADOPT} and after.state is State.TAKEN_OVER
    return but(after, state=State.RUNNING) if found else after


def reattaches_an_orphan(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return but(after, orphaned_at=5.0) if event is Event.REATTACH else after


def reattaches_on_the_old_terms(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return but(after, deadline_at=record.deadline_at) if event is Event.REATTACH else after


def takes_over_what_is_finished(record: Record, event: Event, now: float, **more: Any) -> Record:
    if event is Event.TAKE_OVER:
        after = step(but(record, finished_at=None), event, now, **more)
        return but(after, finished_at=record.finished_at)
    return step(record, event, now, **more)


def forgets_without_an_end(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    return but(after, finished_at=None) if event is Event.FORGET else after


def forgets_what_is_finished(record: Record, event: Event, now: float, **more: Any) -> Record:
    if event is Event.FORGET:
        record = but(record, finished_at=None)
    return step(record, event, now, **more)


def forgets_why(record: Record, event: Event, now: float, **more: Any) -> Record:
    after = step(record, event, now, **more)
    if event is Event.FORGET:
        return but(after, reason=None, cancel_requested_at=None)
    return after


BROKEN: dict[str, Step] = {
    "forgets_the_first_cause": forgets_the_first_cause,
    "forgets_the_remembered_cancel": forgets_the_remembered_cancel,
    "keeps_the_version": keeps_the_version,
    "always_a_new_record": always_a_new_record,
    "finishes_again": finishes_again,
    "follows_up_after_the_close": follows_up_after_the_close,
    "loses_the_id": loses_the_id,
    "asks_in_secret": asks_in_secret,
    "blames_nobody": blames_nobody,
    "runs_an_orphan": runs_an_orphan,
    "reattaches_an_orphan": reattaches_an_orphan,
    "reattaches_on_the_old_terms": reattaches_on_the_old_terms,
    "takes_over_what_is_finished": takes_over_what_is_finished,
    "forgets_without_an_end": forgets_without_an_end,
    "forgets_what_is_finished": forgets_what_is_finished,
    "forgets_why": forgets_why,
    **{f"take_over_{name}": takes_over(wrong) for name, wrong in TAKE_OVERS.items()},
}
