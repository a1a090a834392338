"""A record in words: what its state and its reason mean, and what happened to the task when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from sigmic_guard.lifecycle.states import CancelReason, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sigmic_guard.lifecycle.record import Record

#: The length of a unit in seconds, its name, and those of the next one.
_UNITS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))

#: What each state means for whoever reads of it.
STATES: Final = {
    State.INTENT: "it was to be created, and the create had not gone out",
    State.CREATING: "the create is under way, and the task has no id yet",
    State.UNKNOWN: "the create's answer was lost: it may exist, and only the list can tell",
    State.NEVER_CREATED: "it does not exist, and costs nothing",
    State.RUNNING: "it exists, and costs money",
    State.TAKEN_OVER: "its owner died, another one has taken it over, and nobody has looked since",
    State.CANCELLING: "it is to end, and there is no proof yet that it did",
    State.UNCONFIRMED: "it is to end, nobody asks for it any more, and it may still run",
    State.COMPLETED: "it completed",
    State.FAILED: "it failed",
    State.CANCELLED: "it was cancelled",
    State.DETACHED: "it was let go, and may run on",
    State.HANDED_OVER: "it runs on, for whoever asks for its key; its owner left in good order",
}
#: What a state means where nothing is to come any more, if that is another thing.
_PAST: Final = {
    State.NEVER_CREATED: "it never existed, and cost nothing",
    State.DETACHED: "it was let go, and may have run on",
}
#: And each reason.
REASONS: Final = {
    CancelReason.USER: "somebody asked for it",
    CancelReason.SCOPE: "the code around it was cancelled, or left",
    CancelReason.ERROR: "the code around it raised",
    CancelReason.DEADLINE: "its deadline had passed",
    CancelReason.SHUTDOWN: "its supervisor shut down",
    CancelReason.REMOTE: "somebody else cancelled it at the API",
    CancelReason.ORPHAN: "its owner had died",
    CancelReason.DISCONNECT: "the client whose request it belonged to had hung up",
}


class Moment(NamedTuple):
    """Something that happened to a task; ``at`` is in seconds since the epoch, if it is known."""

    at: float | None
    text: str


def state_in_words(record: Record) -> str:
    """Tell what a record's state means or, of one that has finished, what it meant."""
    past = _PAST.get(record.state) if record.finished_at is not None else None
    return past or STATES[record.state]


def history(record: Record, now: float, *, key: bool = True) -> Iterator[Moment]:
    """Tell what happened, in the order in which it did.

    :param now: seconds since the epoch.
    :param key: whether to tell the task's key, which is its user's.
    """
    known = sorted(_known(record, now, key=key), key=lambda moment: moment.at or 0.0)
    yield from known
    if record.attempts:
        plural = "s" if record.attempts > 1 else ""
        yield Moment(None, f"{record.attempts} DELETE{plural} proved nothing")
    if record.last_error is not None:
        yield Moment(None, f"the last error: {record.last_error}")
    if record.remote_status is not None:
        yield Moment(None, f"the last status that the API told: {record.remote_status}")


def _known(record: Record, now: float, *, key: bool) -> Iterator[Moment]:
    named = f", with the key {record.key!r}" if key and record.key is not None else ""
    yield Moment(record.created_at, f"taken on in the namespace {record.namespace!r}{named}")
    if record.posted_at is not None:
        yield Moment(record.posted_at, f"the create went out to {record.base_url}")
    if record.lost_at is not None:
        yield Moment(record.lost_at, "the create's answer was given up for lost")
    if record.orphaned_at is not None:
        yield Moment(
            record.orphaned_at, "last sign of life of an owner that died; it was taken over since"
        )
    if record.cancel_requested_at is not None and record.reason is not None:
        because = REASONS[record.reason]
        was = "" if record.finished_at is None else "was "
        text = f"{was}to be cancelled ({record.reason}): {because}"
        yield Moment(record.cancel_requested_at, text)
    if record.deadline_at is not None:
        ended = record.finished_at
        passed = record.deadline_at <= (now if ended is None else ended)
        later = "will pass" if ended is None else "would have passed"
        yield Moment(record.deadline_at, f"its deadline {'passed' if passed else later}")
    if record.finished_at is not None:
        outcome = f", outcome {record.outcome}" if record.outcome is not None else ""
        yield Moment(record.finished_at, f"off the books as {record.state}{outcome}")


def utc_time(at: float | None) -> str:
    """Return a time, in seconds since the epoch, as UTC; an unknown one is empty."""
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return f"{at:g}"  # written by hand


def span(seconds: float) -> str:
    """Return a time span in its two largest units: ``"4m05s"``."""
    rest = int(abs(seconds))
    sign = "-" if seconds <= -1 else ""
    for size, unit, smaller, small in _UNITS:
        if rest >= size:
            return f"{sign}{rest // size}{unit}{rest % size // smaller:02}{small}"
    return f"{sign}{rest}s"
