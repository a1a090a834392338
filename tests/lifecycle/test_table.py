"""States and events, all pairs of them: each pair leads where it is written here, or is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
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
    outcome_of,
    states,
    step,
)
from sigmic_guard.lifecycle.states import ENDED, NAMELESS, OPEN, SETTLED, TO_BE_ENDED, TRANSITIONS
from sigmic_guard.testing.records import make_record

# Written by hand, from what each state means, and not drawn from the table.
LATE = "cancel attempt give_up complete fail cancelled detach hand_over"
ENDS = "complete>completed fail>failed cancelled>cancelled"
LETTING_GO = "detach hand_over"  # of what has no name: its terms say so from then on
FORGET = "forget>detached"
LOST = f"take_over>unknown reattach>unknown {FORGET}"
LEFT = f"take_over>taken_over {FORGET}"
EXPECTED = {
    "intent": f"post>creating withdraw>never_created adopt>running cancel {LOST}",
    "creating": f"created>running refuse>never_created lose>unknown cancel {LETTING_GO} {LOST}",
    "unknown": f"created>running absent>never_created cancel {LETTING_GO} {LOST}",
    "running": (
        f"{ENDS} cancel>cancelling detach>detached hand_over>handed_over follow_up reattach "
        f"mistaken>unknown {LEFT}"
    ),
    "taken_over": f"{ENDS} cancel>cancelling detach>detached mistaken>unknown {LEFT}",
    "cancelling": f"{ENDS} cancel attempt give_up>unconfirmed mistaken>unknown {LEFT}",
    "unconfirmed": f"{ENDS} cancel attempt give_up mistaken>unknown {LEFT}",
    "completed": f"{LATE} close follow_up>running reattach>running {LEFT}",
    "failed": f"{LATE} close",
    "cancelled": f"{LATE} close",
    "detached": f"{LATE} close",
    "handed_over": f"{LATE} reattach>running {LEFT}",
    "never_created": "cancel close",
}
#: A closed task takes none of these, whatever the table says.
BEFORE_CLOSE = {"follow_up", "take_over", "reattach", "forget"}

PAIRS = list(itertools.product(State, Event))
ARGUMENTS: dict[Event, dict[str, Any]] = {
    Event.CREATED: {"remote_id": "r1"},
    Event.ADOPT: {"remote_id": "r1"},
    Event.CANCEL: {"reason": CancelReason.USER},
    Event.TAKE_OVER: {"heir": TakeOver("owner-2", 5.0)},
    Event.REATTACH: {"heir": Reattachment("owner-2", TaskPolicy(), None)},
}


@cache
def expected(state: State, event: Event) -> State | None:
    """Where the pair leads; None if it is refused."""
    row = dict(entry.partition(">")[::2] for entry in EXPECTED[state].split())
    return State(row[event] or state) if event in row else None


def record_in(
    state: State, reason: CancelReason | None, *, closed: bool = False, orphan: bool = False
) -> Record:
    """A record as it stands in that state; a completed one is open unless ``closed``."""
    ended = state in ENDED - OPEN
    return make_record(
        state=state,
        version=7,
        remote_id=None if state in NAMELESS or state is State.NEVER_CREATED else "r1",
        reason=reason,
        orphaned_at=4.0 if orphan else None,
        finished_at=5.0 if ended or closed else None,
    )


def complaints(which: Iterable[State] = State) -> Iterator[str]:
    """Sweep every pair, orphans too, with and without a remembered cancel; yield what is wrong."""
    for state, event, reason, closed, orphan in itertools.product(
        which, Event, (None, CancelReason.SCOPE), (False, True), (False, True)
    ):
        if state is State.RUNNING and reason is not None:
            continue  # there is no such record: tests/lifecycle/test_properties.py
        if closed and state is not State.COMPLETED:
            continue
        if state is (State.RUNNING if orphan else State.TAKEN_OVER):
            continue  # nor such a one
        record = record_in(state, reason, closed=closed, orphan=orphan)
        before = repr(record)
        target = expected(state, event)
        if target is State.RUNNING and orphan and event is not Event.REATTACH:
            target = State.TAKEN_OVER
        elif target is State.RUNNING and reason is not None:
            target = State.CANCELLING
        if closed and event in BEFORE_CLOSE:
            target = None
        try:
            after = step(record, event, 9.0, **ARGUMENTS.get(event, {}))
        except IllegalTransition as error:
            right = target is None and (error.state, error.event) == (state, event)
        else:
            right = after.state is target and after.version == 7 + (after is not record)
        if not right or repr(record) != before:
            yield f"{state}, {event} ({reason}, {closed}, {orphan})"


def test_the_table_here_knows_every_state_and_event() -> None:
    """No state and no event is left out of the sweep."""
    assert set(EXPECTED) == set(State)
    words = {entry.partition(">")[0] for row in EXPECTED.values() for entry in row.split()}
    assert words == set(Event)


def test_every_pair_leads_where_it_should_or_is_refused() -> None:
    """All pairs of state and event, through the funnel."""
    assert list(complaints()) == []


def mutants() -> list[tuple[State, Event, State | None]]:
    """Every wrong entry: one that is missing, one too many, one that leads elsewhere."""
    wrong: list[tuple[State, Event, State | None]] = []
    for state, event in PAIRS:
        target = expected(state, event)
        if target is None:
            wrong.append((state, event, State.RUNNING))
        else:
            elsewhere = State.FAILED if target is not State.FAILED else State.CANCELLED
            wrong += [(state, event, None), (state, event, elsewhere)]
    return wrong


def test_the_sweep_finds_every_wrong_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: whatever single entry of the table is wrong, the sweep complains."""
    assert list(complaints()) == []
    blind = set()
    for state, event, target in mutants():
        row = {**TRANSITIONS[state]}
        if target is None:
            del row[event]
        else:
            row[event] = target
        monkeypatch.setattr(states, "TRANSITIONS", {**TRANSITIONS, state: row})
        if not any(complaints([state])):
            assert target is not None
            blind.add((state, event))
    # The funnel itself keeps these where they are; the next test looks at the table alone.
    assert blind == {
        *itertools.product(ENDED, [Event.CANCEL]),
        *itertools.product(ENDED - {State.HANDED_OVER}, [Event.CLOSE]),
        *itertools.product({State.CANCELLING, State.UNCONFIRMED}, [Event.ATTEMPT]),
        *itertools.product(ENDED - OPEN, [Event(event) for event in BEFORE_CLOSE]),
    }


def test_the_table_agrees_entry_by_entry() -> None:
    """The table itself, where the funnel does not ask it for the target."""
    for state, event in PAIRS:
        assert TRANSITIONS[state].get(event) is expected(state, event)


def test_the_table_cannot_be_changed() -> None:
    """The table is one for all: nobody can write into it."""
    assert isinstance(TRANSITIONS, MappingProxyType)
    with pytest.raises(TypeError):
        TRANSITIONS[State.INTENT] = {}  # type: ignore[index]


def reachable(table: Mapping[State, Mapping[Event, State]]) -> set[State]:
    found, front = {State.INTENT}, [State.INTENT]
    while front:
        fresh = set(table[front.pop()].values()) - found
        found |= fresh
        front += fresh
    return found


def test_every_state_can_be_reached() -> None:
    """From the intent a way leads to every state."""
    assert reachable(TRANSITIONS) == set(State)


def test_every_state_can_be_ended() -> None:
    """From every state a way leads to one in which nothing is left to do."""
    for state in State:
        found, front = {state}, [state]
        while front:
            fresh = set(TRANSITIONS[front.pop()].values()) - found
            found |= fresh
            front += fresh
        assert found & ENDED


def test_the_sets_of_states_are_what_their_words_say() -> None:
    """The sets of states are those of the design."""
    ended = {"completed", "failed", "cancelled", "never_created", "detached", "handed_over"}
    assert ended == ENDED
    assert ended | {"unconfirmed"} == SETTLED
    assert {"completed", "handed_over"} == OPEN
    assert {"intent", "creating", "unknown"} == NAMELESS
    assert {"cancelling", "unconfirmed"} == TO_BE_ENDED


@pytest.mark.parametrize("reason", [None, *CancelReason])
@pytest.mark.parametrize("state", State)
def test_the_outcome_follows_from_state_and_reason(
    state: State, reason: CancelReason | None
) -> None:
    """A deadline makes a cancellation a time-out, and nothing else changes an outcome."""
    cancelled = Outcome.TIMED_OUT if reason is CancelReason.DEADLINE else Outcome.CANCELLED
    told = {
        "completed": Outcome.COMPLETED,
        "failed": Outcome.FAILED,
        "detached": Outcome.DETACHED,
        "handed_over": Outcome.DETACHED,
        "cancelled": cancelled,
        "unconfirmed": cancelled,
        "never_created": Outcome.FAILED if reason is None else cancelled,
    }
    assert outcome_of(state, reason) is told.get(state)
    record = msgspec.structs.replace(make_record(), state=state, reason=reason)
    assert record.outcome is told.get(state)
