"""How long things took, on anyio's clock: a wall clock that is set meanwhile changes none of it.

What another process did is known from its rows alone, and so from wall clocks. That is taken into
account once, when a row becomes ours; from there on the time that passes is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.supervisor.ground.entry import Entry


def begin_now(task: Entry) -> None:
    """Count from this moment."""
    task.begun_at = task.lifetime.moment()


def begin_in_the_past(task: Entry, record: Record) -> None:
    """Count from what the row tells of a task that another process began."""
    task.begun_at = moment_of(task, record.created_at)


def moment_of(task: Entry, written: float) -> float:
    """Return when that was, on anyio's clock; never later than now.

    :param written: seconds since the epoch, as a row tells it.
    """
    return task.lifetime.moment() - max(0.0, task.lifetime.now() - written)


def seconds_of(task: Entry) -> float:
    """Return for how long it has been ours to see to, or had been when it ended."""
    ended_at = task.ended_at
    return (task.lifetime.moment() if ended_at is None else ended_at) - task.begun_at


def seconds_since_cancel(task: Entry) -> float:
    """Return for how long its end has been wanted."""
    wanted_at = None if task.ending is None else task.ending.wanted_at
    return task.lifetime.moment() - (task.begun_at if wanted_at is None else wanted_at)


def orphaned_since(task: Entry, orphaned_at: float) -> float:
    """Return when it lost its owner, on anyio's clock.

    :param orphaned_at: the same, by the clock that wrote the row.
    """
    since = task.begun_at + orphaned_at - task.record.created_at
    return min(since, task.lifetime.moment() if task.inherited_at is None else task.inherited_at)
