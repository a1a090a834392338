"""What is to become of a task whose owner is dead: :func:`judge`, and why.

The reaper does what it says, and ``sigmic-guard explain`` tells it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sigmic_guard.lifecycle.states import TO_BE_ENDED, State

if TYPE_CHECKING:
    from sigmic_guard.lifecycle.record import Record


class Verdict(StrEnum):
    """What is to become of an orphan."""

    REAP = "reap"  # see whether it still runs, and cancel it
    RELEASE = "release"  # on_crash="abandon": it may run on, and nobody watches it
    WAIT = "wait"  # on_crash or on_shutdown="reattach": somebody may still ask for its key
    OTHER_CREDENTIAL = "other_credential"  # made with a credential that is not ours
    OTHER_SYSTEM = "other_system"  # made at another base URL


#: What a reaper takes over; the rest is somebody else's, or for later.
REAPABLE: Final = frozenset({Verdict.REAP, Verdict.RELEASE})


#: Seconds by which a wall clock may be wrong, another process's or our own: no wait is cut short
#: because of such a difference, and a longer one ends all waits.
WRONG_CLOCK: Final = 3600.0


def judge(
    record: Record,
    *,
    base_url: str,
    credential_fingerprint: str,
    orphaned_at: float,
    dead_for: float,
    now: float,
    wanted: bool = False,
) -> Verdict:
    """Judge an unfinished record whose owner is dead.

    :param base_url: the system that whoever asks can speak to.
    :param credential_fingerprint: of the credential that whoever asks has.
    :param orphaned_at: the dead owner's last sign of life, in seconds since the epoch, as ``now``;
        by a clock that need not have been ours.
    :param dead_for: seconds since somebody first saw that the owner is dead.
    :param wanted: whether another row :func:`wants` the task. That makes a difference only where
        the verdict would be to reap it.
    """
    if record.base_url != base_url:
        return Verdict.OTHER_SYSTEM
    if record.credential_fingerprint != credential_fingerprint:
        return Verdict.OTHER_CREDENTIAL
    policy, to_be_ended = record.policy, Verdict.RELEASE if wanted else Verdict.REAP
    if record.reason is not None or record.state in TO_BE_ENDED:
        return to_be_ended  # as was decided before its owner died
    handed_over = record.state is State.HANDED_OVER  # whatever was to become of it by a crash
    if policy.on_crash == "abandon" and not handed_over:
        return Verdict.RELEASE
    if (
        (handed_over or policy.on_crash == "reattach")
        and record.key is not None
        and not record.orphan  # else a reaper has judged that its time is over
        and claimable_for(record, orphaned_at, dead_for, now) > 0
    ):
        return Verdict.WAIT
    return to_be_ended


def wants(other: Record, record: Record, *, alive: bool) -> bool:
    """Tell whether the owner of ``other``, or whoever has its key, wants the task of ``record``.

    Whoever is about to end a task that he did not decide to end asks this of every other row of it,
    whatever the state of his own. An owner that has a reason to end the task does not want it. Nor
    does one that has taken it over, except where nobody has taken ``record`` over or decided on it:
    two rows must not spare a task for each other's sake.

    :param alive: whether the owner of ``other`` lives.
    """
    return (
        other.intent_id != record.intent_id
        and other.remote_id == record.remote_id is not None
        and other.finished_at is None
        and other.reason is None
        and other.base_url == record.base_url
        and other.credential_fingerprint == record.credential_fingerprint
        and (alive or is_kept_for_its_key(other))
        and (not other.orphan or not (record.orphan or record.reason))
    )


def is_kept_for_its_key(record: Record) -> bool:
    """Tell whether somebody may ask for the task by its key, whether or not its owner lives."""
    return (
        record.key is not None
        and not record.orphan
        and (record.state is State.HANDED_OVER or record.policy.on_crash == "reattach")
    )


def may_be_wanted(record: Record) -> bool:
    """Tell whether somebody else may come to want a task whose end was decided here.

    A dead owner's task may have been adopted; and should we die now, one that is kept for its key
    may be asked for, unless its row says that it is to end. So that has to be written first.
    """
    return record.orphan or is_kept_for_its_key(record)


def is_expected(record: Record, verdict: Verdict) -> bool:
    """Tell whether an orderly deploy left it, and somebody may still come: nothing went wrong."""
    return record.state is State.HANDED_OVER and verdict is Verdict.WAIT


def orphan_since(record: Record, orphaned_at: float, dead_for: float, now: float) -> float:
    """Return since when nobody wants it: at the owner's last sign of life, or later.

    What was handed over is wanted for as long as its key can be asked for. All are by our clock,
    but for ``orphaned_at``.
    """
    if record.state is not State.HANDED_OVER:
        return orphaned_at
    left = claimable_for(record, orphaned_at, dead_for, now)
    return max(orphaned_at, now + min(left, 0.0))


def claimable_for(record: Record, orphaned_at: float, dead_for: float, now: float) -> float:
    """Return for how many seconds more the record's key can be asked for.

    That time begins when the owner's death was seen, and is no longer than the time-out that the
    task was given: its deadline was written by a clock that may have been set since. Whoever sees
    the death for the first time long after the last sign of life waits no more.
    """
    policy = record.policy
    allowed = policy.reattach_within
    if policy.timeout is not None:
        allowed = min(allowed, policy.timeout)
    elif record.deadline_at is not None and record.deadline_at > record.created_at:
        # Of a row that was claimed two clocks wrote these, and their difference may be anything.
        allowed = min(allowed, record.deadline_at - record.created_at)
    # Both clocks may be wrong, in opposite directions.
    return min(allowed - dead_for, orphaned_at + allowed + 2 * WRONG_CLOCK - now)
