"""The handle of one remote task, as users hold it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import ref

from anyio import move_on_after

from sigmic_guard.errors import ConfigurationError, ProtocolError, TaskError
from sigmic_guard.lifecycle import CancelReason, State
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.lifecycle.text import shown_id
from sigmic_guard.lifecycle.values import shown
from sigmic_guard.supervisor.ground.from_entry import cancellation_of, error_of, result_of
from sigmic_guard.supervisor.work.wish import Wish

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from sigmic_guard.lifecycle import Outcome, Record
    from sigmic_guard.sigmic.api import ApprovalOutcome
    from sigmic_guard.sigmic.models import TaskInfo
    from sigmic_guard.supervisor.face.core import Core
    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.results import Cancellation, TaskResult
    from sigmic_guard.supervisor.work.events import TaskEvents


class RemoteTask:
    """A remote task that this supervisor watches over. Made by the supervisor, never by hand.

    Dropping the handle changes nothing: the supervisor keeps what it needs.
    """

    __slots__ = ("__weakref__", "_core", "_entry")

    def __init__(self, core: Core, entry: Entry) -> None:
        self._core = core
        self._entry = entry

    # --- what it is -------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The remote id.

        :raises TaskError: there is none: the task was never created.
        """
        if self._entry.record.remote_id is None:
            raise TaskError("the task has no id: it was not created, or not yet")
        return self._entry.record.remote_id

    @property
    def state(self) -> State:
        """What is known of the remote task now."""
        return self._entry.record.state

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; ``None`` while it has not."""
        return self._entry.record.outcome

    @property
    def reason(self) -> CancelReason | None:
        """Why it is to end: the first cause of its cancellation, if there was one."""
        return self._entry.record.reason

    @property
    def deadline(self) -> float | None:
        """Absolute, on anyio's clock (``anyio.current_time()``); ``None`` for none."""
        return self._entry.deadline

    @property
    def record(self) -> Record:
        """All that is known of it now, in one immutable record: its row in the ledger."""
        return self._entry.record

    @property
    def created_at(self) -> float:
        """Seconds since the epoch at which this library took the task on."""
        return self._entry.record.created_at

    def __repr__(self) -> str:
        record = self._entry.record
        name = shown_id(record.remote_id) if record.remote_id else "without id"
        return f"<RemoteTask {name} {record.state}>"

    # --- what can be asked of it ------------------------------------------------------------

    def events(self) -> TaskEvents:
        """Iterate over what the task does, live, as :class:`~sigmic_guard.TaskEvent`.

        The iterator reconnects when the stream drops or falls silent, and marks what it has
        delivered before as ``replayed``. It ends when the task ends or waits for a follow-up.
        Where a task completed while no stream was open, what is left of its answer comes as one
        last ``content``.
        Leave it early as you like; ``aclose()`` drops its connection at once.

        Iterating raises :class:`~sigmic_guard.errors.ApiError` where the API refuses it
        for good (401, 403), and ``ProtocolError`` for an event of more than 8 MiB. The task stays
        supervised after a raise.
        """
        return self._core.events(self._entry)

    async def result(self) -> TaskResult:
        """Wait for the task's end and return its result.

        :raises TaskFailed: the agent failed.
        :raises TaskTimedOut: it was cancelled because of its deadline.
        :raises TaskCancelled: it was cancelled for any other reason.
        :raises TaskError: it was detached, so nobody here will learn its end.
        :raises AuthenticationError: the API takes the credential no more, and a callable
            ``api_key`` had no better one. The task stays supervised: ask again later.
        :raises PermissionDenied: the credential may not read the task. It stays supervised.
        """
        self._core.ground.check_here()
        entry = self._entry
        if entry.record.state is State.RUNNING and entry.accepts_follow_up and not entry.listening:
            # A stream tells the end at once; the list would do so within a second or two.
            events = self.events()
            try:
                with suppress(
                    ProtocolError
                ):  # an event too large to be read is no reason to lose it
                    async for _ in events:
                        pass
            finally:
                await events.aclose()
        await self._core.access.until_settled(entry)
        if self._entry.record.state is State.COMPLETED:
            return result_of(self._entry)
        raise error_of(self._entry)

    async def wait(self) -> TaskResult:
        """Wait for the task's end and tell how it ended; never raises for that.

        It goes on waiting where the API takes the credential no more: :meth:`result` would raise.
        """
        self._core.ground.check_here()
        await self._entry.until_settled()
        return result_of(self._entry)

    def request_cancel(self) -> None:
        """Ask for the task's end, and go on.

        A plain call: safe in a signal handler, a callback, a finalizer or another thread. The state
        changes as soon as the event loop gets its turn, or with the next thing that is awaited of
        this supervisor.
        """
        core = self._core
        core.ground.inbox.leave(core.decider.cancel, self._entry, CancelReason.USER)

    async def cancel(self) -> Cancellation:
        """Ask for the task's end, and wait for the answer at most ``cancel_wait`` seconds.

        The body of the task's block, if it has one, is cancelled. Never raises for the task's or
        the API's sake: what could not be proven is ``unconfirmed``, and is pursued further.
        """
        self._core.ground.check_here()
        asked_again = self._entry.record.state is State.UNCONFIRMED
        version = self._entry.record.version
        self._core.decider.cancel(self._entry, CancelReason.USER)
        with move_on_after(self._entry.record.policy.cancel_wait):
            if asked_again:
                await self._entry.until_changed(version)
            await self._entry.until_settled()
        return cancellation_of(self._entry)

    async def send(self, message: str, *, files: Iterable[str | os.PathLike[str]] = ()) -> None:
        """Ask a running or completed task something more; its answer comes through :meth:`events`.

        :raises TaskCancelled: the task was cancelled, or is about to be. Nothing is sent.
        :raises TaskFailed: the task failed. Nothing is sent.
        :raises SupervisorShutdown: the supervisor is shutting down. Nothing is sent.
        :raises ConfigurationError: the handle is finished: adopt the task to ask it again.
        :raises SigmicGuardError: the API refused (the task is as it was), or gave no answer (the
            task counts as running).
        """
        wish = Wish(message, {"files": files})
        del message, files
        self._core.ground.check_here()
        await self._entry.until_found()
        if self._entry.record.reason is not None or self._entry.record.state is State.FAILED:
            # In a body that is being cancelled, what the block would raise.
            raise error_of(self._entry, interrupted_by=self._entry.interruption)
        if self._entry.record.finished_at is not None or self._entry.record.state in NAMELESS:
            raise ConfigurationError(
                f"a task that is {self.state} takes no message here; "
                "supervisor.adopt(task.id) makes a handle that does"
            )
        await self._core.send(self._entry, wish)

    async def approve(self, call_id: str, outcome: ApprovalOutcome = "proceed_once") -> bool:
        """Decide on a tool call that waits for it; ``True`` if the API calls it approved.

        :param outcome: ``"proceed_once"`` (default), ``"proceed_always"`` or ``"cancel"``.
        :raises TaskNotFound: no such tool call waits.
        :raises SigmicGuardError: the API refused, or gave no answer.
        """
        self._core.ground.check_here()
        await self._entry.until_found()
        return await self._core.approve(self._entry, call_id, outcome)

    async def refresh(self) -> TaskInfo:
        """Read the task from the API, note what it says, and return it.

        :raises SigmicGuardError: the API refused, or gave no answer. The handle is as it was.
        """
        self._core.ground.check_here()
        await self._entry.until_found()
        return await self._core.refresh(self._entry)


def handle_of(core: Core, entry: Entry) -> RemoteTask:
    """Return the one handle of a task, as long as somebody holds it; else a new one."""
    handle: RemoteTask | None = entry.handle() if entry.handle is not None else None
    if handle is None:
        handle = RemoteTask(core, entry)
        entry.handle = ref(handle)
    return handle


def entry_of(core: Core, task: object) -> Entry:
    """Return what a handle stands for.

    :raises ConfigurationError: it is no handle, or another supervisor's.
    """
    if not isinstance(task, RemoteTask):
        raise ConfigurationError(f"task must be a RemoteTask, or a remote id, not {shown(task)}")
    if task._core is not core:  # noqa: SLF001 - a handle shows nothing of this to its users
        raise ConfigurationError(f"{task!r} belongs to another supervisor")
    return task._entry  # noqa: SLF001


class Handles(Mapping[str, RemoteTask]):
    """The handles of the live tasks by remote id: a view that changes as they do."""

    __slots__ = ("_core", "_named")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._named = core.roster.named

    def __getitem__(self, task_id: str) -> RemoteTask:
        return handle_of(self._core, self._named[task_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __repr__(self) -> str:
        return f"<{len(self)} live tasks>"
