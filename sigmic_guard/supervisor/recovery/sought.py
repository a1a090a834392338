"""A task whose create got no answer, and since when it may exist."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from anyio import current_time

from sigmic_guard.supervisor.recovery.candidates import NEAR, WRONG_CLOCK
from sigmic_guard.supervisor.work.listing import seconds_of

if TYPE_CHECKING:
    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.ground.entry import Entry

#: Seconds by which the server's clock and ours may differ: a scan ends at tasks that were last
#: active so long before the create.
CLOCK_SKEW: Final = WRONG_CLOCK
#: And by which a time in a row may be wrong beyond that: another clock wrote it.
WRITTEN_CLOCK_SKEW: Final = WRONG_CLOCK + NEAR


class Sought:
    """An ``UNKNOWN`` task that is looked for.

    :param create_timeout: seconds for which the server may be at work on its POST.
    """

    __slots__ = ("answered_by", "scans", "sent_by", "task")

    def __init__(self, task: Entry, create_timeout: float) -> None:
        self.task = task
        #: When its POST had been sent at the latest, on anyio's clock: a dead owner may have sent
        #: it, unwritten, until the moment it died, and that was before we took it over.
        self.sent_by = current_time()
        create = task.create
        if task.inherited_at is None and create is not None and create.posted_at is not None:
            self.sent_by = create.posted_at
        #: After that it is there, or will never be.
        self.answered_by = self.sent_by + create_timeout
        #: Complete scans that did not show it, past that.
        self.scans = 0

    def may_exist_since(self, now: float) -> float:
        """Return since when it may exist, in seconds since the epoch, as ``now``."""
        if self.task.inherited_at is not None:
            return may_exist_since(self.task.record, now)
        return now - (current_time() - self.sent_by)

    def is_too_young(self, info: TaskInfo, now: float) -> bool:
        """Tell whether a task with its mark was created when the POST was certainly answered."""
        created_at = seconds_of(info.created_at)
        return created_at is not None and created_at > (
            now - (current_time() - self.answered_by) + NEAR
        )


def may_exist_since(record: Record, now: float) -> float:
    """Return since when a record's task may exist, by our clock, of which another wrote a row."""
    at = record.posted_at or record.created_at
    if at > now + CLOCK_SKEW + WRITTEN_CLOCK_SKEW:
        return -inf  # a clock so far ahead tells nothing
    return min(at, now) - WRITTEN_CLOCK_SKEW
