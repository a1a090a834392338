"""The tasks of one request, whatever the host: :class:`RequestTasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, Unpack

from sigmic_guard import CancelReason, ConfigurationError, SupervisorShutdown, TaskCancelled
from sigmic_guard.lifecycle.values import check_seconds, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from sigmic_guard import (
        RemoteTask,
        RemoteTaskGroup,
        Supervisor,
        TaskBlock,
        TaskOptions,
        TaskResult,
    )
    from sigmic_guard.supervisor.face.options import Watch

#: What becomes of a task when the client hangs up: it is cancelled, it is kept until the request
#: ends, or it is kept for so many seconds.
OnDisconnect: TypeAlias = "Literal['cancel', 'keep'] | float | timedelta"
_Checked: TypeAlias = "Literal['cancel', 'keep'] | float"
#: How the request came to its tasks.
_Way: TypeAlias = Literal["begun", "adopted", "started"]

#: What a client is told with 503, and as a websocket is closed with code 1012.
REFUSAL: Final = "The service is shutting down. Please try again.\n"
CLOSE_REASON: Final = "the service is shutting down"

_HUNG_UP: Final = "the client has hung up"


def check_on_disconnect(value: OnDisconnect) -> _Checked:
    """Return what is meant.

    :raises ConfigurationError: it is none of the three.
    """
    if not isinstance(value, str):
        return check_seconds("on_disconnect", value)
    if value not in {"cancel", "keep"}:
        raise ConfigurationError(
            f"on_disconnect must be 'cancel', 'keep' or seconds, not {shown(value)}"
        )
    return value


class RequestTasks:
    """The remote tasks of one request, or of one websocket; made by the guard's middleware.

    What :meth:`task` and :meth:`run` begin belongs to the request. It ends with the request at the
    latest, by record, whatever became of the code that held it, a generator that nobody iterates
    over any more included. When the client hangs up before the response is complete, it ends as
    ``on_disconnect`` says: ``"cancel"`` (at once; the body of the block is cancelled, and
    :class:`~sigmic_guard.TaskCancelled` comes out of it), ``"keep"`` (not before the request does),
    or a number of seconds for which it may go on. Default: the guard's.

    What :meth:`adopt` takes on ends with the request as well, but for a client that hangs up: then
    ``"keep"`` leaves it to the service, and a number of seconds does so for as long. A task that
    several requests own ends when the last of them lets go of it.

    What :meth:`start` begins belongs to the service, and outlives the request.
    """

    __slots__ = (
        "_asked",
        "_began",
        "_default",
        "_find",
        "_forget_drain",
        "_groups",
        "_hung_up",
        "cut",
        "disconnected",
        "retry_after",
    )

    def __init__(
        self,
        find: Callable[[], Supervisor],
        on_disconnect: _Checked,
        began: Callable[[], None],
        retry_after: float,
    ) -> None:
        #: Returns the supervisor, or raises a sentence that says why there is none.
        self._find = find
        self._default = on_disconnect
        #: Called before the first task is begun: from now on a hang-up matters.
        self._began = began
        #: Seconds, for clients that the shutdown turns away.
        self.retry_after = retry_after
        #: Whether the request has asked for a task.
        self._asked = False
        #: And by what a hang-up does to their tasks.
        self._groups: dict[tuple[_Way, _Checked], RemoteTaskGroup] | None = None
        self._forget_drain: Callable[[], None] | None = None
        #: What else is told of a hang-up.
        self._hung_up: Callable[[], None] | None = None
        #: Whether the client has hung up before the response was complete, as far as anybody
        #: listened: from the first task on somebody does.
        self.disconnected = False
        #: Whether the shutdown began while tasks of the request were live.
        self.cut = False

    def __repr__(self) -> str:
        return f"<RequestTasks{', disconnected' if self.disconnected else ''}>"

    @property
    def supervisor(self) -> Supervisor:
        """The service's supervisor.

        :raises ConfigurationError: it is not running; the message says what to do.
        """
        return self._find()

    def task(
        self,
        message: str,
        *,
        on_disconnect: OnDisconnect | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskBlock:
        """Return a block that owns a new task of this request; see :meth:`Supervisor.task`.

        :raises ConfigurationError: an option makes no sense, or the supervisor is not running.
        :raises TaskCancelled: the client has hung up, and ``on_disconnect`` is ``"cancel"``.
        :raises SupervisorShutdown: the service shuts down; unless it is caught, the middleware
            answers 503 with ``Retry-After``.
        """
        return self._group("begun", on_disconnect).task(message, **options)

    async def run(
        self,
        message: str,
        *,
        on_disconnect: OnDisconnect | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskResult:
        """Create a task of this request, wait for its end, and return its result.

        Raises what :meth:`task` and :meth:`Supervisor.run` do.
        """
        return await self._group("begun", on_disconnect).run(message, **options)

    async def adopt(
        self,
        task: RemoteTask | str,
        *,
        on_disconnect: OnDisconnect | None = None,
        **options: Unpack[Watch],
    ) -> RemoteTask:
        """Take on a task that exists already, as if the request had begun it.

        No block is around it: when it is ended, its events come to their end, and
        :meth:`RemoteTask.result` raises.

        :param task: a handle, from ``supervisor.tasks`` or ``supervisor.find(intent_id)``; or the
            remote id of a task that the supervisor does not know, or that has completed.
        :param options: those of :meth:`Supervisor.adopt`, with an id.
        :raises ConfigurationError: the id is supervised already: give the handle. Or ``options``
            were given with one.
        :raises TaskCancelled: the client has hung up, and ``on_disconnect`` is ``"cancel"``.
        :raises SupervisorShutdown: the service shuts down; see :meth:`task`.
        :raises SigmicGuardError: the API refused to show the task, or gave no answer.
        """
        return await self._group("adopted", on_disconnect).adopt(task, **options)

    async def start(
        self,
        message: str,
        *,
        on_disconnect: OnDisconnect = "keep",
        **options: Unpack[TaskOptions],
    ) -> RemoteTask:
        """Create a background task of the service; see :meth:`Supervisor.start`.

        It goes on after the response. ``on_disconnect`` tells whether it does so too where the
        client hangs up before; the guard's does not count.

        Raises what :meth:`task` and :meth:`Supervisor.start` do.
        """
        how = check_on_disconnect(on_disconnect)
        if how == "keep":
            supervisor, self._asked = self.supervisor, True
            return await supervisor.start(message, **options)
        return await self._group("started", how).start(message, **options)

    # --- for the host's side ----------------------------------------------------------------------

    @property
    def used(self) -> bool:
        """Whether the request has tasks, or shows what one does: a hang-up matters."""
        return self._forget_drain is not None

    @property
    def turned_away(self) -> bool:
        """Whether the request asks for tasks of a supervisor that takes none any more."""
        return self._asked and self._find().draining

    def listen(self, hung_up: Callable[[], None] | None = None) -> None:
        """From now on hear of a hang-up, and of the drain.

        :param hung_up: a plain call that is made when the client hangs up.
        """
        if self._forget_drain is None:
            self._forget_drain = self._find().on_drain(self._drain_begins)
            self._asked = True
            self._began()
        self._hung_up = hung_up or self._hung_up

    def hang_up(self) -> None:
        """Handle the client's hang-up; a plain call."""
        if self.disconnected:
            return
        self.disconnected = True
        for (_, how), group in (self._groups or {}).items():
            _hang_up(group, how)
        if self._hung_up is not None:
            self._hung_up()

    def close(self, error: BaseException | None) -> bool:
        """End what is left of the request's tasks; to be called where the request's code was.

        Returns whether ``error``, which came out of that code, is nothing but the cancellation of
        a block that stands in a generator which was left behind.
        """
        if self._forget_drain is not None:
            self._forget_drain()
        self._hung_up = None
        ours = False
        for (way, how), group in (self._groups or {}).items():
            if way == "begun" or (how == "cancel" if self.disconnected else way == "adopted"):
                ours = group.close(error) or ours
            elif how in {"cancel", "keep"} or not self.disconnected:
                group.release()
            # Else its time runs.
        return ours

    def _group(self, way: _Way, on_disconnect: OnDisconnect | None) -> RemoteTaskGroup:
        how = self._default if on_disconnect is None else check_on_disconnect(on_disconnect)
        self.listen()
        if self.disconnected and how == "cancel":
            raise TaskCancelled(_HUNG_UP, reason=CancelReason.SCOPE)
        groups = self._groups = {} if self._groups is None else self._groups
        group = groups.get((way, how))
        if group is None:
            group = groups[way, how] = self._find().group()
            if self.disconnected:
                _hang_up(group, how)
        return group

    def _drain_begins(self) -> None:
        groups = (self._groups or {}).items()
        self.cut = any(group.live for (way, _), group in groups if way != "started")


def consists_of(error: BaseException, kind: Callable[[BaseException], bool]) -> bool:
    """Tell whether the error is of that kind; a group, where all that is in it is."""
    if isinstance(error, BaseExceptionGroup):
        return all(consists_of(inner, kind) for inner in error.exceptions)
    return kind(error)


def told_by_shutdown(error: BaseException) -> bool:
    """Tell whether it is how a shutdown tells those who use tasks."""
    if isinstance(error, TaskCancelled):
        return error.reason is CancelReason.SHUTDOWN
    return isinstance(error, SupervisorShutdown)


def told_by_hang_up(error: BaseException) -> bool:
    """Tell whether it is what comes of a client that is gone."""
    if isinstance(error, TaskCancelled):
        return error.reason is CancelReason.SCOPE
    return isinstance(error, (SupervisorShutdown, OSError))


def _hang_up(group: RemoteTaskGroup, how: _Checked) -> None:
    if how == "cancel":
        group.end()
    elif how != "keep":
        group.end(after=how)
