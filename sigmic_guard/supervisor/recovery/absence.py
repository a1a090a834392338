"""What a complete scan of the list proves, where it showed items that tell no task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sigmic_guard.supervisor.ground.marking import MARKER, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.sigmic.models import Scrap


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
