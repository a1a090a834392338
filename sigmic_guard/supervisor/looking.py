"""Asking how one task is: by GET, and by the list where GET's answer cannot be read."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from anyio import current_time, move_on_after

from sigmic_guard.errors import ProtocolError, SigmicGuardError

if TYPE_CHECKING:
    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.listing import Lister

#: Seconds for which an answer that is too large is not asked for again.
SPARED: Final = 60.0
#: Pages of the list in which a task is looked for.
MAX_PAGES: Final = 50
#: Tasks whose answers are known to be too large, at most.
MAX_SPARED: Final = 1000


class Looker:
    """Tells of tasks what can be read of them."""

    def __init__(self, api: TaskApi, lister: Lister) -> None:
        self._api = api
        self._lister = lister
        #: By id: until when GET is not asked, on anyio's clock. Those come first that end first.
        self._spared: OrderedDict[str, float] = OrderedDict()

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        """Return what GET tells of a task; where that cannot be read, what the list tells.

        The list has no ``output``.

        :param timeout: seconds for either of them.
        :raises ProtocolError: GET's answer cannot be read, and the list does not show the task.
        :raises SigmicGuardError: as GET does.
        """
        until = self._spared.get(task_id)
        if until is not None and current_time() < until:
            info = await self._find(task_id, timeout)
            if info is None:
                raise ProtocolError("what GET answers is too large, and the list does not show it")
            return info
        try:
            return await self._api.get(task_id, timeout=timeout)
        except ProtocolError as error:
            if error.status is None or not 200 <= error.status < 300:
                raise
            if error.unreadable:
                self._spare(task_id)
            info = await self._find(task_id, timeout)
            if info is None:
                raise
            return info

    def _spare(self, task_id: str) -> None:
        self._spared[task_id] = current_time() + SPARED
        self._spared.move_to_end(task_id)
        if len(self._spared) > MAX_SPARED:
            self._spared.popitem(last=False)

    async def _find(self, task_id: str, timeout: float) -> TaskInfo | None:
        """Look for a task in the list, from its top: what has ended lately is there."""
        listing = self._lister.read(pages=MAX_PAGES)
        with move_on_after(timeout):
            try:
                while page := await listing.next_page():
                    for info in page:
                        if info.id == task_id:
                            return info
            except SigmicGuardError:
                pass  # what GET said counts
        return None
