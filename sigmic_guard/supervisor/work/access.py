"""Whether the API takes our credential, as it last said in its own words: :class:`Access`.

Without a working credential nobody learns how a task goes. Who waits for a result is told so, and
the log says it once. The tasks stay supervised: it may work again.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Final

from sigmic_guard.errors import AuthenticationError, PermissionDenied
from sigmic_guard.lifecycle.states import SETTLED
from sigmic_guard.observe import CredentialAccepted, CredentialRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmic_guard.errors import ApiError, SigmicGuardError
    from sigmic_guard.observe import Observer
    from sigmic_guard.supervisor.ground.entry import Entry

#: Refusals in a row that are believed: one alone may be a server that has not heard of a new key.
BELIEVED: Final = 2


class _Refusals:
    """What was said in a row, with no other answer in between."""

    __slots__ = ("error", "number", "times")

    def __init__(self) -> None:
        self.times = 0
        #: The number of the last one, among all.
        self.number = 0
        self.error: ApiError | None = None

    def add(self, error: ApiError, number: int) -> None:
        self.times += 1
        self.number = number
        self.error = error

    @property
    def believed(self) -> bool:
        return self.times >= BELIEVED


class Access:
    """Notes what the API says of our credential, and tells who waits for a result.

    :param now: returns seconds, by a clock that nobody sets.
    """

    def __init__(self, observer: Observer, now: Callable[[], float]) -> None:
        self._observer = observer
        self._now = now
        #: Asks the API how a task is, some time soon; filled in by the watcher.
        self.get_soon: Callable[[Entry], None] = _look_at_nothing
        self._refusals = 0
        #: Of the credential (401), whoever was asked for what.
        self._credential = _Refusals()
        #: Of the list (403). It alone is no reason to raise: tasks may be read all the same.
        self._list = _Refusals()
        #: Of the GETs of a task (401 or 403).
        self._tasks: dict[Entry, _Refusals] = {}
        #: How many wait for the result of each.
        self._waiting: dict[Entry, int] = {}
        #: Since when it has been told that the credential is refused.
        self._told_at: float | None = None

    @property
    def _silent(self) -> bool:
        """Whether nothing is refused."""
        return not (self._credential.times or self._list.times or self._tasks)

    def note_refusal(
        self, error: SigmicGuardError, *, read: Entry | None = None, listed: bool = False
    ) -> None:
        """Note an error that a request met with, where it is a refusal.

        401 concerns all that we do. 403 concerns what was asked for:

        :param read: the task whose GET it was.
        :param listed: whether it was the list.
        """
        if not isinstance(error, AuthenticationError | PermissionDenied):
            return
        self._refusals += 1
        concerned = []
        if isinstance(error, AuthenticationError):
            concerned.append(self._credential)
        elif listed:
            concerned.append(self._list)
        if read is not None and read.record.finished_at is None:
            concerned.append(self._tasks.setdefault(read, _Refusals()))
        for refusals in concerned:
            refusals.add(error, self._refusals)
        if self._told_at is None and any(refusals.believed for refusals in concerned):
            self._told_at = self._now()
            self._observer.observe(CredentialRefused(error.code, error.status))
        for one in tuple(self._waiting):
            if listed:  # which is not read in a hurry
                self.get_soon(one)
            one.wake()

    def worked(self, *, read: Entry | None = None, listed: bool = False) -> None:
        """Note that a request was answered."""
        if self._silent:
            return
        self._credential = _Refusals()
        if listed:
            self._list = _Refusals()
        if read is not None:
            self._tasks.pop(read, None)
        self._tell()

    def forget(self, task: Entry) -> None:
        """Let go of a task that has finished."""
        if self._tasks.pop(task, None) is not None:
            self._tell()

    def _tell(self) -> None:
        if self._told_at is not None and self._silent:
            self._observer.observe(CredentialAccepted(self._now() - self._told_at))
            self._told_at = None

    async def until_settled(self, task: Entry) -> None:
        """Wait until nobody here works on the task any more.

        :raises AuthenticationError: the credential is refused, and was asked about since.
        :raises PermissionDenied: it may not read the task.
        """
        if task.record.state in SETTLED:
            return
        since = self._refusals
        self._waiting[task] = self._waiting.get(task, 0) + 1
        try:
            if not self._silent:
                self.get_soon(task)  # what was true then need not be so now
            await task.until(
                lambda task: (
                    task.record.state in SETTLED
                    or task.unsupervised
                    or self._refusal(task, since) is not None
                )
            )
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]
        if task.record.state in SETTLED or task.unsupervised:
            return
        if (error := self._refusal(task, since)) is not None:
            raise copy(error)  # each has its own: tracebacks grow

    def _refusal(self, task: Entry, since: int) -> ApiError | None:
        """Return what was said of the task, or of all, after ``since``, if it is believed."""
        for refusals in (self._credential, self._tasks.get(task)):
            if refusals is not None and refusals.believed and refusals.number > since:
                return refusals.error
        return None


def _look_at_nothing(task: Entry) -> None:
    del task
