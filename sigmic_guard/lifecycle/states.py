"""The states of a task, the events that move it, and the one table that says how.

Theory of operation
===================

A remote task is billed from its creation until it ends, so the states do not describe what our
code is doing but **what we may believe about the remote side**:

* ``INTENT``: it does not exist; we have promised ourselves to create it.
* ``CREATING``: the POST is under way. It may exist by now, without a name.
* ``UNKNOWN``: the POST's answer was lost, or told of another create's task. It may exist, and only
  the list can tell.
* ``RUNNING``: it exists, we have its id, it costs money.
* ``TAKEN_OVER``: its owner died, and it is ours to see to. It existed, and nobody has looked since.
* ``CANCELLING``: it exists, and we have decided that it must end. There is no way back to
  ``RUNNING``: a decision to cancel is never taken back. Where somebody else turns out to want the
  task this record of it is forgotten, and theirs counts.
* ``UNCONFIRMED``: the same, but nobody is asking any more; somebody must come back for it.
* ``COMPLETED``, ``FAILED``, ``CANCELLED``, ``NEVER_CREATED``: it costs nothing any more.
* ``DETACHED``: it may run on; somebody said that this is wanted.
* ``HANDED_OVER``: it runs on, and its owner left in good order: whoever asks for its key has it.
  For the one that left it is over; in the ledger it is unfinished, so that its key stays taken.

Two rules keep the promise inside this file:

1. **A cancel is remembered.** In ``INTENT``, ``CREATING`` and ``UNKNOWN`` there is nothing to send
   a DELETE for, so ``CANCEL`` only leaves its reason in the record. The moment the id is known the
   funnel (``record.step``) sees the reason and goes on from ``RUNNING`` to ``CANCELLING`` within
   the same step: no instant exists in which such a task is merely running.
2. **The first cause stays.** ``CANCEL`` never changes a reason that is there.

What was believed to be ours can turn out to be another create's, if the answers of two were mixed
up on the way: ``MISTAKEN`` takes the id back, and the task is looked for again. A reason to cancel
is remembered as ever, so that it takes effect on the right task.

A third one holds for what a dead owner left behind, an *orphan*. **Its last step may be missing**:
it can have sent the POST, or a follow-up, and died before it wrote that down. So ``TAKE_OVER``
makes whatever has no name ``UNKNOWN``, and only the list can tell; and all that has one becomes
``TAKEN_OVER``, whatever it was, until a GET tells: what had ``COMPLETED`` may run again, and what
was ``UNCONFIRMED`` may have ended. An orphan is never ``RUNNING``: when its id becomes known the
funnel goes on from there to ``TAKEN_OVER`` within the same step. From ``TAKEN_OVER`` it goes the
ordinary way: it has ended, or ``CANCEL`` has it ended for the reason that it has, else the new one,
or its terms say that it may run on, and it is let go. Who asks for its key in time has it as if
nothing had happened (``REATTACH``), and it is no orphan.

An owner that leaves in good order lets go of what may run on: ``DETACH``, or ``HAND_OVER``. **What
has no name yet stays as it is**, and its terms say from then on what was decided: as if its owner
died, it is to be let go, or kept for its key. Who finds it does that.

What the remote side tells (``COMPLETE``, ``FAIL``, ``CANCELLED``) is a fact, not a request, and
facts can come late or twice. In states that have ended they change nothing. ``COMPLETED`` alone
can be left again, by a follow-up message, until ``CLOSE`` says that nobody will send one.

A pair that is not in the table is a bug of ours, and the funnel refuses it.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """What we may believe about the remote task."""

    INTENT = "intent"
    CREATING = "creating"
    UNKNOWN = "unknown"
    NEVER_CREATED = "never_created"
    RUNNING = "running"
    TAKEN_OVER = "taken_over"
    CANCELLING = "cancelling"
    UNCONFIRMED = "unconfirmed"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DETACHED = "detached"
    HANDED_OVER = "handed_over"


class Event(StrEnum):
    """What can happen to a task, as far as its state is concerned."""

    POST = "post"  # the create goes out now
    WITHDRAW = "withdraw"  # cancelled before the create went out
    ADOPT = "adopt"  # something else created it, and we own it from now on
    CREATED = "created"  # its id is known
    REFUSE = "refuse"  # the create was refused outright
    LOSE = "lose"  # the create's answer was lost
    MISTAKEN = "mistaken"  # the id that the create was answered with is another create's
    ABSENT = "absent"  # complete scans of the list prove that it does not exist
    CANCEL = "cancel"  # somebody wants it ended
    ATTEMPT = "attempt"  # a DELETE went out and proved nothing
    GIVE_UP = "give_up"  # the budget is spent, or we may not ask again
    CANCELLED = "cancelled"  # proof, or acknowledgement, that it was cancelled
    COMPLETE = "complete"  # seen completed
    FAIL = "fail"  # seen failed
    FOLLOW_UP = "follow_up"  # a message asks it again
    DETACH = "detach"  # let it run without us
    HAND_OVER = "hand_over"  # the same, and let its key lead to it
    CLOSE = "close"  # no follow-up can come any more
    TAKE_OVER = "take_over"  # its owner is dead, and somebody else sees to it from now on
    REATTACH = "reattach"  # its owner is gone, and who asked for its key has it from now on
    FORGET = "forget"  # taken off the books: by hand, or because another record counts


class Outcome(StrEnum):
    """How a task ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    DETACHED = "detached"


class CancelReason(StrEnum):
    """Why a task was cancelled: the first cause, recorded at its trigger."""

    USER = "user"
    SCOPE = "scope"
    ERROR = "error"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"
    REMOTE = "remote"
    ORPHAN = "orphan"
    DISCONNECT = "disconnect"  # read, and not written yet: an older version could not read it


class IllegalTransition(AssertionError):
    """The table has no such pair: a bug in this library, never the user's fault.

    The record is unchanged after the raise.
    """

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"a task that is {state.value} cannot take {event.value!r}")
        self.state = state
        self.event = event

    def __reduce__(self) -> tuple[type[IllegalTransition], tuple[State, Event]]:
        return type(self), (self.state, self.event)


_S, _E = State, Event

_ENDS: Final = {_E.COMPLETE: _S.COMPLETED, _E.FAIL: _S.FAILED, _E.CANCELLED: _S.CANCELLED}


#: What can still come where an end has come already.
_LATE: Final = (*_ENDS, _E.CANCEL, _E.ATTEMPT, _E.GIVE_UP, _E.DETACH, _E.HAND_OVER)


#: What a dead owner leaves unfinished can be taken over, or forgotten.
_LEFT: Final = {_E.TAKE_OVER: _S.TAKEN_OVER, _E.FORGET: _S.DETACHED}
#: The same before the id is known.
_LEFT_NAMELESS: Final = {**_LEFT, _E.TAKE_OVER: _S.UNKNOWN, _E.REATTACH: _S.UNKNOWN}


def _ended(state: State) -> dict[Event, State]:
    """In an ended state, late facts and late cancels change nothing."""
    return dict.fromkeys((*_LATE, _E.CLOSE), state)


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = MappingProxyType(
    {
        _S.INTENT: {
            _E.POST: _S.CREATING,
            _E.WITHDRAW: _S.NEVER_CREATED,
            _E.ADOPT: _S.RUNNING,
            _E.CANCEL: _S.INTENT,
            **_LEFT_NAMELESS,
        },
        _S.CREATING: {
            _E.CREATED: _S.RUNNING,
            _E.REFUSE: _S.NEVER_CREATED,
            _E.LOSE: _S.UNKNOWN,
            _E.CANCEL: _S.CREATING,
            _E.DETACH: _S.CREATING,
            _E.HAND_OVER: _S.CREATING,
            **_LEFT_NAMELESS,
        },
        _S.UNKNOWN: {
            _E.CREATED: _S.RUNNING,
            _E.ABSENT: _S.NEVER_CREATED,
            _E.CANCEL: _S.UNKNOWN,
            _E.DETACH: _S.UNKNOWN,
            _E.HAND_OVER: _S.UNKNOWN,
            **_LEFT_NAMELESS,
        },
        _S.RUNNING: {
            **_ENDS,
            _E.CANCEL: _S.CANCELLING,
            _E.DETACH: _S.DETACHED,
            _E.HAND_OVER: _S.HANDED_OVER,
            _E.FOLLOW_UP: _S.RUNNING,
            _E.MISTAKEN: _S.UNKNOWN,
            _E.REATTACH: _S.RUNNING,
            **_LEFT,
        },
        _S.TAKEN_OVER: {
            **_ENDS,
            _E.CANCEL: _S.CANCELLING,
            _E.DETACH: _S.DETACHED,
            _E.MISTAKEN: _S.UNKNOWN,
            **_LEFT,
        },
        _S.CANCELLING: {
            **_ENDS,
            _E.CANCEL: _S.CANCELLING,
            _E.ATTEMPT: _S.CANCELLING,
            _E.GIVE_UP: _S.UNCONFIRMED,
            _E.MISTAKEN: _S.UNKNOWN,
            **_LEFT,
        },
        _S.UNCONFIRMED: {
            **_ENDS,
            _E.CANCEL: _S.UNCONFIRMED,
            _E.ATTEMPT: _S.UNCONFIRMED,
            _E.GIVE_UP: _S.UNCONFIRMED,
            _E.MISTAKEN: _S.UNKNOWN,
            **_LEFT,
        },
        _S.COMPLETED: {
            **_ended(_S.COMPLETED),
            _E.FOLLOW_UP: _S.RUNNING,
            _E.REATTACH: _S.RUNNING,
            **_LEFT,
        },
        _S.FAILED: _ended(_S.FAILED),
        _S.CANCELLED: _ended(_S.CANCELLED),
        _S.DETACHED: _ended(_S.DETACHED),
        _S.HANDED_OVER: {
            **dict.fromkeys(_LATE, _S.HANDED_OVER),
            _E.REATTACH: _S.RUNNING,
            **_LEFT,
        },
        # A task that is found after all belongs to a new record, not to this one.
        _S.NEVER_CREATED: {_E.CANCEL: _S.NEVER_CREATED, _E.CLOSE: _S.NEVER_CREATED},
    }
)

#: It costs nothing any more, or is no longer ours: nothing is left to do for us.
ENDED: Final = frozenset(
    {_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.NEVER_CREATED, _S.DETACHED, _S.HANDED_OVER}
)

#: And somebody may go on with it all the same: its row is not finished.
OPEN: Final = frozenset({_S.COMPLETED, _S.HANDED_OVER})

#: Nobody here is working on it any more: it ended, or we had to give up.
SETTLED: Final = ENDED | {_S.UNCONFIRMED}

#: It is to end, and there is no proof yet that it did.
TO_BE_ENDED: Final = frozenset({_S.CANCELLING, _S.UNCONFIRMED})

#: The id is not known yet.
NAMELESS: Final = frozenset({_S.INTENT, _S.CREATING, _S.UNKNOWN})


def next_state(state: State, event: Event) -> State:
    """Look the pair up.

    :raises IllegalTransition: if the table has no such pair.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def outcome_of(state: State, reason: CancelReason | None) -> Outcome | None:
    """Derive how a task ended; ``None`` while it has not.

    An unconfirmed task has the outcome that was asked for: the proof is what is missing.
    """
    match state:
        case State.COMPLETED:
            return Outcome.COMPLETED
        case State.FAILED:
            return Outcome.FAILED
        case State.DETACHED | State.HANDED_OVER:
            return Outcome.DETACHED
        case State.NEVER_CREATED if reason is None:
            return Outcome.FAILED
        case State.CANCELLED | State.UNCONFIRMED | State.NEVER_CREATED:
            timed_out = reason is CancelReason.DEADLINE
            return Outcome.TIMED_OUT if timed_out else Outcome.CANCELLED
        case _:
            return None
