"""The record of a task, and :func:`step`, the only function that makes a new one.

A record is immutable: it is the ledger's row, the row of a snapshot and what observers are shown,
all in one. :func:`step` validates, and then returns the record that follows.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, NamedTuple

import msgspec

from sigmic_guard.lifecycle.policy import OnShutdown, TaskPolicy
from sigmic_guard.lifecycle.states import (
    ENDED,
    NAMELESS,
    OPEN,
    CancelReason,
    Event,
    IllegalTransition,
    Outcome,
    State,
    next_state,
    outcome_of,
)

_replace = msgspec.structs.replace


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One task as we know it, and one row of the ledger.

    Times are seconds since the epoch (wall clock), so that they mean something to another process.
    """

    intent_id: str
    namespace: str
    base_url: str
    credential_fingerprint: str
    owner_id: str
    policy: TaskPolicy
    created_at: float
    state: State = State.INTENT
    #: Grows by one with each step; the ledger compares it before it writes.
    version: int = 1
    remote_id: str | None = None
    deadline_at: float | None = None
    key: str | None = None
    posted_at: float | None = None
    #: When the create's answer was lost or proved to be another's, or its owner was found dead
    #: before the id was known.
    lost_at: float | None = None
    #: Of a create that carries no marker: the digest of its message, by which it may be told.
    message_digest: str | None = None
    #: When the owner gave its last sign of life from whom it was taken over. Set means that it is
    #: an orphan: nobody who lives had begun it, or asked for its key.
    orphaned_at: float | None = None
    #: When a follow-up was about to be sent: it may arrive when its sender is dead.
    asked_at: float | None = None
    #: Why it is to end: the first cause. Set means that a cancel was asked for, in every state.
    reason: CancelReason | None = None
    cancel_requested_at: float | None = None
    #: DELETEs that proved nothing.
    attempts: int = 0
    last_error: str | None = None
    #: Set once, when nothing can come after: the task ended and no follow-up is possible.
    finished_at: float | None = None
    remote_status: str | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show all but the key, which is the user's: reprs end up in logs and error reports."""
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, "…" if name == "key" and value else value) for name, value in fields]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Record({shown})"

    @property
    def outcome(self) -> Outcome | None:
        """How the task ended, or ``None`` while it has not."""
        return outcome_of(self.state, self.reason)

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it by its owner: it is finished, or was handed over."""
        return self.finished_at is not None or self.state is State.HANDED_OVER

    @property
    def orphan(self) -> bool:
        """Whether it is a dead owner's, and somebody has taken it over to see to its end."""
        return self.orphaned_at is not None

    @property
    def to_be_released(self) -> bool:
        """Whether it was taken over to be let go: it may run on, or another record counts."""
        return self.orphan and self.policy.on_crash == "abandon"

    @property
    def on_shutdown(self) -> OnShutdown:
        """What its owner's shutdown does with it: without a key nobody could ask for it."""
        how = self.policy.on_shutdown
        return "cancel" if how == "reattach" and self.key is None else how


def contradiction(record: Record) -> str | None:
    """Tell what cannot be true of an unfinished record, if anything: :func:`step` made none such.

    Whoever is to act on records that others wrote asks before believing them.
    """
    state = record.state
    if record.finished_at is not None:
        return None
    if state in ENDED - OPEN:
        return f"it is {state}, and not finished"
    if (state in NAMELESS) is not (record.remote_id is None):
        return f"it is {state}, and {'has an id' if record.remote_id else 'has no id'}"
    if state is State.TAKEN_OVER and not record.orphan:
        return f"it is {state}, and nobody's orphan"
    return None


class TakeOver(NamedTuple):
    """Who takes a dead owner's task over, to see to its end or to let it go."""

    owner_id: str
    #: The dead owner's last sign of life, in seconds since the epoch.
    orphaned_at: float
    #: Whether it is let go.
    release: bool = False


class Reattachment(NamedTuple):
    """Who gets a task by its key, and on which terms."""

    owner_id: str
    policy: TaskPolicy
    deadline_at: float | None


def terms_of_orphan(policy: TaskPolicy, *, release: bool = False) -> TaskPolicy:
    """Return what the terms of a task are once it is taken over.

    They say what was decided, so that the next one does the same, should whoever took it over die
    as well. Nobody is left whom the end could be told, so only what GET shows is proof of it.
    """
    if release:
        return policy.but(on_crash="abandon")
    return policy.but(on_crash="cancel", confirm="terminal")


def step(
    record: Record,
    event: Event,
    now: float,
    *,
    remote_id: str | None = None,
    reason: CancelReason | None = None,
    error: str | None = None,
    status: str | None = None,
    heir: TakeOver | Reattachment | None = None,
) -> Record:
    """Return the record that follows ``event`` at ``now``; the same object if nothing changed.

    :param remote_id: goes with ``CREATED`` and ``ADOPT``, and only with them.
    :param reason: goes with ``CANCEL``, and only with it.
    :param error: what went wrong, in one line without secrets.
    :param status: the remote status that was seen, whatever its spelling.
    :param heir: goes with ``TAKE_OVER`` and ``REATTACH``, each with its own, and only with them.
    :raises IllegalTransition: the table has no such pair, or it is a follow-up or a
        take-over after ``CLOSE``; ``record`` still stands.
    :raises ValueError: the event lacks its argument, or has one that is not its own.
    """
    # An empty id would leave a task running that nobody can name.
    if bool(remote_id) != (event in _NAMING):
        raise ValueError(f"{event.value} {'takes no' if remote_id else 'needs'} remote_id")
    if (reason is not None) != (event is Event.CANCEL):
        raise ValueError(f"{event.value} {'needs' if reason is None else 'takes no'} reason")
    if type(heir) is not _HEIRS.get(event, NoneType):
        raise ValueError(f"{event.value} {'needs an' if event in _HEIRS else 'takes no'} heir")
    before, state = record.state, next_state(record.state, event)
    if event in _BEFORE_CLOSE and record.finished_at is not None:
        raise IllegalTransition(before, event)  # CLOSE said that nothing comes after

    if event is Event.CANCEL:
        first = record.reason is None
        if before in ENDED or (not first and state is before):
            return record
        return _replace(
            record,
            version=record.version + 1,
            state=state,
            reason=reason if first else record.reason,
            cancel_requested_at=now if first else record.cancel_requested_at,
        )
    if event is Event.CLOSE:
        if record.finished_at is not None:
            return record
        return _replace(record, version=record.version + 1, finished_at=now)
    if event is Event.ATTEMPT and before not in ENDED:
        return _replace(
            record,
            version=record.version + 1,
            attempts=record.attempts + 1,
            last_error=error,
            remote_status=status or record.remote_status,
        )
    if event in _LET_GO and state in NAMELESS:
        return _let_go(record, event)
    if state is State.RUNNING and record.orphan and event is not Event.REATTACH:
        state = State.TAKEN_OVER  # rule 3 of the theory: nobody has looked at it yet
    elif state is State.RUNNING and record.reason is not None:
        state = State.CANCELLING  # rule 1: the remembered cancel takes effect
    if heir is not None:
        return _inherit(record, state, now, heir)
    if state is before and event is not Event.FOLLOW_UP:
        return record  # a fact that comes late, or twice

    if state is State.CANCELLED and record.reason is None:
        reason = CancelReason.REMOTE
    return _replace(
        record,
        version=record.version + 1,
        state=state,
        remote_id=None if event is Event.MISTAKEN else remote_id or record.remote_id,
        posted_at=now if event is Event.POST else record.posted_at,
        lost_at=now if event in _LOSING and record.lost_at is None else record.lost_at,
        asked_at=now if event is Event.FOLLOW_UP else record.asked_at,
        reason=reason or record.reason,
        cancel_requested_at=now if reason is not None else record.cancel_requested_at,
        last_error=error or record.last_error,
        # What was seen of another create's task says nothing of this one.
        remote_status=None if event is Event.MISTAKEN else status or record.remote_status,
        # A completed task stays open for a follow-up until CLOSE, one that was handed over for
        # whoever asks for its key.
        finished_at=now if state in ENDED - OPEN else None,
    )


def _inherit(record: Record, state: State, now: float, heir: TakeOver | Reattachment) -> Record:
    after = _replace(
        record,
        version=record.version + 1,
        state=state,
        owner_id=heir.owner_id,
        lost_at=now if state is State.UNKNOWN and record.lost_at is None else record.lost_at,
    )
    if isinstance(heir, TakeOver):
        policy = terms_of_orphan(record.policy, release=heir.release)
        return _replace(after, policy=policy, orphaned_at=heir.orphaned_at)
    policy, deadline_at = heir.policy, heir.deadline_at
    return _replace(after, policy=policy, deadline_at=deadline_at, orphaned_at=None)


def _let_go(record: Record, event: Event) -> Record:
    """Leave word for whoever finds a task that has no name yet."""
    policy = record.policy.but(on_crash=_LET_GO[event])
    if policy == record.policy:
        return record
    return _replace(record, version=record.version + 1, policy=policy)


#: And what the terms are to say of it then.
_LET_GO = {Event.DETACH: "abandon", Event.HAND_OVER: "reattach"}
_NAMING = frozenset({Event.CREATED, Event.ADOPT})
_LOSING = frozenset({Event.LOSE, Event.MISTAKEN})
_HEIRS = {Event.TAKE_OVER: TakeOver, Event.REATTACH: Reattachment}
_BEFORE_CLOSE = frozenset({Event.FOLLOW_UP, Event.FORGET, *_HEIRS})
