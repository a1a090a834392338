"""One page of a snapshot's rows, beside how many there are of each state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from anyio.lowlevel import checkpoint

from sigmic_guard import State, TaskRow

if TYPE_CHECKING:
    from sigmic_guard import Snapshot

#: Rows of a page.
PAGE: Final = 100
#: Rows that are looked at in one turn of the event loop: about a millisecond.
SLICE: Final = 2000


class Listing(NamedTuple):
    """What is shown.

    :ivar counts: all tasks, by state.
    :ivar state: the one whose tasks are listed; ``None``: all.
    :ivar page: which page of these; counted from 1. It may be past the last one.
    :ivar taken_at: seconds since the epoch.
    """

    counts: Mapping[State, int]
    state: State | None
    page: int
    rows: Sequence[TaskRow]
    taken_at: float

    @property
    def total(self) -> int:
        """How many tasks are listed on all pages."""
        return sum(self.counts.values()) if self.state is None else self.counts[self.state]

    @property
    def first(self) -> int:
        """The number of the first row, counted from 1."""
        return (self.page - 1) * PAGE + 1

    @property
    def last_page(self) -> int:
        """The number of the last page; 1 where there is no task."""
        return max(1, -(-self.total // PAGE))


async def list_tasks(snapshot: Snapshot, state: State | None, page: int) -> Listing:
    """Look all rows through, however many, without keeping the event loop."""
    counts: Counter[State] = Counter()
    found: list[int] = []
    states, start = snapshot.states(), 0
    while part := list(islice(states, SLICE)):
        counts.update(part)
        if state is not None:
            found += [start + i for i, it in enumerate(part) if it is state]
        start += SLICE
        await checkpoint()
    first = (page - 1) * PAGE
    which = range(len(snapshot)) if state is None else found
    rows = [snapshot[index] for index in which[first : first + PAGE]]
    return Listing(counts, state, page, rows, snapshot.taken_at)
