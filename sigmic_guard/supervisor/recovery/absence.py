"""What a complete scan of the list proves, and for how long that is not the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import current_time

from sigmic_guard.lifecycle.orphan import WRONG_CLOCK
from sigmic_guard.supervisor.ground.marking import MARKER, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.models import Scrap

#: Seconds for which a task may still appear after its absence was proven.
AFTERLIFE: Final = 600.0
#: Seconds by which the wall clocks of who wrote a row and of who reads it may differ.
APART: Final = 2 * WRONG_CLOCK
#: Seconds after which it is forgotten when a row was first seen: no clock lets it come back.
FORGOTTEN: Final = AFTERLIFE + 2 * APART


class Absence:
    """Tells of whom such a scan proves that it did not show them.

    An item that tells nothing, or was too large to be read, may be anybody. An object without an id
    is somebody's: of those who carry a mark only his whose mark is in it, of the others only his
    whose message it has.

    :param scraps: what told no task.
    """

    def __init__(self, scraps: Sequence[Scrap]) -> None:
        self._anybody = any(not scrap.tells_something for scrap in scraps)
        marker = MARKER.encode()
        self._marked = [scrap.raw for scrap in scraps if marker in scrap.raw]
        self._messages = {digest(one.message) for one in scraps if one.message is not None}

    def is_proven(self, record: Record) -> bool:
        """Tell whether none of them can be the task of this record."""
        if self._anybody or record.message_digest in self._messages:
            return False
        intent_id = record.intent_id.encode()
        return not any(intent_id in raw for raw in self._marked)


class Afterlife:
    """Tells whether a task may still appear whose absence was proven.

    The wall clock of who proved it says nothing to the minute, and ours may have been set since. So
    that time is counted here, from when we proved it ourselves or first saw the row of it.
    """

    def __init__(self) -> None:
        #: By intent id, on anyio's clock; the first is the oldest.
        self._since: dict[str, float] = {}

    def begin(self, record: Record) -> None:
        """Count from now, unless that has begun."""
        self._since.setdefault(record.intent_id, current_time())

    def lasts(self, record: Record) -> bool:
        """Tell whether it may still appear; an unknown one is seen for the first time."""
        now = current_time()
        began = self._since.setdefault(record.intent_id, now)
        while self._since and now - next(iter(self._since.values())) > FORGOTTEN:
            del self._since[next(iter(self._since))]
        return now - began <= AFTERLIFE

    @staticmethod
    def since(now: float) -> float:
        """Return since when a row may tell of one, in seconds since the epoch as ``now``."""
        return now - AFTERLIFE - APART
