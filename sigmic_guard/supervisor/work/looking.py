"""Asking how one task is: by GET, and by the list where GET's answer cannot be read."""

from __future__ import annotations

from collections import OrderedDict
from random import random
from typing import TYPE_CHECKING, Final

from anyio import current_time, move_on_after, sleep

from sigmic_guard.errors import ProtocolError, SigmicGuardError
from sigmic_guard.lifecycle import Backoff

if TYPE_CHECKING:
    from sigmic_guard.sigmic.api import TaskApi
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.work.listing import Lister

#: Seconds for which an answer that is too large is not asked for again.
TOO_LARGE_SECONDS: Final = 60.0
#: How often GET is asked for the output of a completed task by who needs it, if what it says is not
#: too large but makes no sense, and how long after each time: about three seconds in all.
TRIES: Final = 5
RETRY_PAUSE: Final = Backoff(first=0.2, most=2.0)
#: Pages of the list in which a task is looked for.
MAX_PAGES: Final = 50
#: Tasks whose answers are known to be too large, at most.
MAX_TOO_LARGE: Final = 1000


class Looker:
    """Tells of tasks what can be read of them."""

    def __init__(self, api: TaskApi, lister: Lister) -> None:
        self._api = api
        self._lister = lister
        #: By id: until when GET is not asked, on anyio's clock. Those come first that end first.
        self._spared: OrderedDict[str, float] = OrderedDict()

    async def get(self, task_id: str, *, timeout: float, tries: int = 1) -> TaskInfo:
        """Return what GET tells of a task; where that cannot be read, what the list tells.

        The list has no ``output``, which only GET tells.

        :param timeout: seconds for either of them, each time.
        :param tries: how often GET is asked for the output of a task that has completed, as the
            list says, before that is given up. What is too large is asked for once.
        :raises ProtocolError: GET's answer cannot be read, and the list does not show the task.
        :raises SigmicGuardError: as GET does.
        """
        until = self._spared.get(task_id)
        if until is not None and current_time() < until:
            info = await self._find(task_id, timeout)
            if info is None:
                raise ProtocolError("what GET answers is too large, and the list does not show it")
            return info
        times = 0
        while True:
            times += 1
            try:
                return await self._api.get(task_id, timeout=timeout)
            except ProtocolError as error:
                if error.status is None or not 200 <= error.status < 300:
                    raise
                too_large = error.unreadable and not error.broken
                if too_large:
                    self._spare(task_id)
                info = await self._find(task_id, timeout)
                if info is None:
                    raise
            if too_large or info.status != "completed" or times >= tries:
                return info
            await sleep(RETRY_PAUSE.delay(times, random()))

    def _spare(self, task_id: str) -> None:
        self._spared[task_id] = current_time() + TOO_LARGE_SECONDS
        self._spared.move_to_end(task_id)
        if len(self._spared) > MAX_TOO_LARGE:
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
