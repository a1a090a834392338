"""What operators are told of orphans: how many there are, since when, and what came of each."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from anyio import current_time

from sigmic_guard.lifecycle import State, Verdict
from sigmic_guard.lifecycle.orphan import is_expected
from sigmic_guard.observe import OrphanLeft, OrphanReaped, OrphansCounted
from sigmic_guard.supervisor.ground.durations import orphaned_since
from sigmic_guard.supervisor.ground.timer import Slices

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sigmic_guard.ledger import Orphan
    from sigmic_guard.lifecycle import ReapResult
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.ground import Ground


class Tally:
    """Counts the orphans that the reaper knows of.

    :param tasks: those that were taken over and live; the reaper's own set.
    """

    def __init__(
        self,
        tasks: Collection[Entry],
        ground: Ground,
    ) -> None:
        self._tasks = tasks
        self._observer = ground.observer
        self._now = ground.lifetime.now
        self._owner_id = ground.owner_id
        #: How many the last round left alone, and their intent ids.
        self._left = 0
        self._reported: set[str] = set()
        #: Those that were told of since the last report began.
        self._told: set[str] = set()
        #: Since when the oldest orphan is one, on anyio's clock.
        self._since: float | None = None
        self._closed = False

    async def report(self, left: Sequence[tuple[Orphan, Verdict]]) -> None:
        """Tell what a round left alone: each once, and how many there are in all."""
        now, since, ids, slices = current_time(), inf, set[str](), Slices()
        ahead = self._now() - now
        self._told = set()
        for (record, orphaned_at, _), verdict in left:
            if is_expected(record, verdict):
                continue
            if verdict is not Verdict.WAIT and record.intent_id not in self._reported:
                self._observer.observe(OrphanLeft(record, verdict))
                self._reported.add(record.intent_id)  # hit here, it is not told again
            ids.add(record.intent_id)
            since = min(since, orphaned_at - ahead)
            await slices.yield_if_due()
        for task in tuple(self._tasks):
            at = task.record.orphaned_at
            since = min(since, now if at is None else orphaned_since(task, at))
            await slices.yield_if_due()
        self._reported = ids - self._told
        self._left = len(self._reported)
        self._since = since if since < inf else None
        self.count()

    def count(self, fresh: Entry | None = None) -> None:
        """Tell how many there are, and for how long the oldest has been one.

        :param fresh: one that has come since the last round.
        """
        if self._closed:
            return
        if fresh is not None and (at := fresh.record.orphaned_at) is not None:
            since = orphaned_since(fresh, at)
            self._since = since if self._since is None else min(self._since, since)
        count, now = self._left + len(self._tasks), current_time()
        age = max(0.0, now - self._since) if count and self._since is not None else 0.0
        self._observer.observe(OrphansCounted(self._owner_id, count, age))

    def record(
        self,
        task: Entry,
        result: ReapResult,
        *,
        orphaned_at: float | None,
        ended_at: float | None = None,
    ) -> None:
        """Tell what came of a dead owner's task."""
        record, seconds = task.record, 0.0
        if record.state is not State.NEVER_CREATED and orphaned_at is not None:
            seconds = current_time() - orphaned_since(task, orphaned_at)
            if ended_at is not None:
                seconds = min(seconds, ended_at - orphaned_at)
            seconds = max(0.0, seconds)
        self._observer.observe(OrphanReaped(record, result, seconds))
        self._told.add(record.intent_id)
        if record.intent_id in self._reported:  # left for who asks for its key, and claimed since
            self._reported.discard(record.intent_id)
            self._left -= 1
            self.count()

    def close(self) -> None:
        """Count none any more: whoever comes next does."""
        self._closed = True
        self._observer.observe(OrphansCounted(self._owner_id, 0, 0.0))
