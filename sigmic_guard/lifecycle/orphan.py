"""What is to become of a task whose owner is dead: :func:`judge`, and why.

The reaper does what it says, and ``sigmic-guard explain`` tells it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sigmic_guard.lifecycle.record import Record


class Verdict(StrEnum):
    """What is to become of an orphan."""

    REAP = "reap"  # see whether it still runs, and cancel it
    RELEASE = "release"  # on_crash="abandon": it may run on, and nobody watches it
    WAIT = "wait"  # on_crash="reattach": somebody may still ask for its key
    OTHER_CREDENTIAL = "other_credential"  # made with a credential that is not ours
    OTHER_SYSTEM = "other_system"  # made at another base URL


#: What a reaper takes over; the rest is somebody else's, or for later.
REAPABLE: Final = frozenset({Verdict.REAP, Verdict.RELEASE})


def judge(
    record: Record, *, base_url: str, credential_fingerprint: str, orphaned_at: float, now: float
) -> Verdict:
    """Judge an unfinished record whose owner is dead.

    :param base_url: the system that whoever asks can speak to.
    :param credential_fingerprint: of the credential that whoever asks has.
    :param orphaned_at: the dead owner's last sign of life, in seconds since the epoch, as ``now``.
    """
    if record.base_url != base_url:
        return Verdict.OTHER_SYSTEM
    if record.credential_fingerprint != credential_fingerprint:
        return Verdict.OTHER_CREDENTIAL
    policy = record.policy
    if record.reason is not None:
        return Verdict.REAP  # its end was decided before its owner died
    if policy.on_crash == "abandon":
        return Verdict.RELEASE
    if (
        policy.on_crash == "reattach"
        and record.key is not None
        and now < claimable_until(record, orphaned_at)
    ):
        return Verdict.WAIT
    return Verdict.REAP


def claimable_until(record: Record, orphaned_at: float) -> float:
    """Return until when the record's key can be asked for, in seconds since the epoch."""
    end = orphaned_at + record.policy.reattach_within
    return end if record.deadline_at is None else min(end, record.deadline_at)
