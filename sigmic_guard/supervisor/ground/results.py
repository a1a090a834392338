"""What users are handed: frozen answers about tasks, cancellations, and shutdowns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from sigmic_guard.errors import (
    SigmicGuardError,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskTimedOut,
    fresh,
)
from sigmic_guard.lifecycle import Outcome
from sigmic_guard.lifecycle.text import one_line, shown_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sigmic_guard.lifecycle import CancelReason, CancelResult, ReapResult, Record, State


_state = attrgetter("state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """What came of asking a task to end.

    :ivar result: ``acknowledged`` (DELETE was answered 2xx), ``confirmed`` (and a GET showed a
        terminal status), ``already_finished``, ``not_found``, or ``unconfirmed``: no proof yet; as
        long as ``state`` is ``cancelling`` the supervisor goes on with it.
    :ivar reason: the first cause; ``None`` if the task had ended by itself.
    :ivar attempts: DELETEs that proved nothing.
    :ivar error: why the last of them did not.
    """

    result: CancelResult
    state: State
    reason: CancelReason | None
    attempts: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """How a task ended.

    :ivar id: the remote id; ``None`` if it never got one.
    :ivar outcome: how it ended; for an unconfirmed cancellation, what was asked for.
    :ivar status: the last remote status that was seen, in the API's own spelling.
    :ivar final_response: the agent's answer, if there is one.
    :ivar error: what the API, or the create, told of a failure.
    :ivar reason: why it was cancelled, if it was.
    :ivar created_at: seconds since the epoch at which this library took the task on.
    :ivar duration: seconds from there until it ended; measured, whatever the wall clock did.
    :ivar cancellation: what came of the cancellation, if there was one.
    """

    id: str | None
    outcome: Outcome
    status: str | None
    final_response: str | None
    error: Any
    reason: CancelReason | None
    created_at: float
    duration: float
    cancellation: Cancellation | None

    def raise_for_outcome(self) -> None:
        """Raise what says why there is no answer; do nothing for a task that completed.

        :raises TaskFailed: the agent failed.
        :raises TaskTimedOut: the deadline passed.
        :raises TaskCancelled: it was cancelled; ``reason`` tells by what.
        :raises TaskError: it was let go, and nobody here will learn its end.
        :raises SigmicGuardError: there was no task: what its create raised.
        """
        if self.outcome is Outcome.COMPLETED:
            return
        if self.id is None and isinstance(self.error, SigmicGuardError):
            raise fresh(self.error)
        name, told = shown_id(self.id) if self.id else "the task", {"task_id": self.id}
        match self.outcome:
            case Outcome.FAILED:
                text = f"{name} failed: {one_line(str(self.error))}"
                raise TaskFailed(text, error=self.error, result=self, **told)
            case Outcome.TIMED_OUT:
                raise TaskTimedOut(f"{name} reached its deadline", result=self, **told)
            case Outcome.CANCELLED:
                text = f"{name} was cancelled (reason: {self.reason})"
                raise TaskCancelled(text, reason=self.reason, result=self, **told)
            case _:
                raise TaskError(f"{name} was let go", result=self, **told)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; an exception in ``error`` is its text."""
        fields = asdict(self)
        if isinstance(self.error, BaseException):
            fields["error"] = str(self.error)
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One line of a snapshot. ``age`` and ``deadline`` (from now) are in seconds."""

    id: str | None
    intent_id: str
    state: State
    reason: CancelReason | None
    age: float
    deadline: float | None
    attempts: int


class Timed(Protocol):
    """When a task was taken on, and its deadline; on anyio's clock."""

    @property
    def begun_at(self) -> float:
        """When it was taken on."""

    @property
    def deadline(self) -> float | None:
        """When it is to end; ``None``: no time was set."""


class Span(NamedTuple):
    """These two, and nothing that leads to the task."""

    begun_at: float
    deadline: float | None


class Snapshot(Sequence[TaskRow]):
    """The tasks at one instant, as an immutable sequence of :class:`TaskRow`.

    Taking one copies references to immutable records and nothing else, so that it costs well under
    5 ms for 100,000 tasks; the rows are made as they are asked for.
    """

    __slots__ = ("_moment", "_records", "_spans", "taken_at")

    def __init__(
        self, records: Sequence[Record], spans: Sequence[Timed], taken_at: float, moment: float
    ) -> None:
        self._records = records
        #: Beside each record.
        self._spans = spans
        #: Seconds since the epoch.
        self.taken_at = taken_at
        #: The same, on anyio's clock.
        self._moment = moment

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> TaskRow: ...
    @overload
    def __getitem__(self, index: slice) -> Snapshot: ...
    def __getitem__(self, index: int | slice) -> TaskRow | Snapshot:
        if isinstance(index, slice):
            records, spans = self._records[index], self._spans[index]
            return Snapshot(records, spans, self.taken_at, self._moment)
        return self._row(self._records[index], self._spans[index])

    def __iter__(self) -> Iterator[TaskRow]:
        return map(self._row, self._records, self._spans)

    def states(self) -> Iterator[State]:
        """Iterate over the states of the rows; that makes no row, and so is quick."""
        return map(_state, self._records)

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self)} tasks>"

    def _row(self, record: Record, span: Timed) -> TaskRow:
        deadline = span.deadline
        if deadline is None and record.deadline_at is not None:  # a dead owner's, by its clock
            deadline = record.deadline_at - self.taken_at + self._moment
        return TaskRow(
            id=record.remote_id,
            intent_id=record.intent_id,
            state=record.state,
            reason=record.reason,
            age=self._moment - span.begun_at,
            deadline=None if deadline is None else deadline - self._moment,
            attempts=record.attempts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanRow:
    """A task whose owner is dead, and what came of it.

    :ivar id: the remote id; ``None`` if it is not known.
    :ivar result: how it was seen to; ``None`` if it was not.
    :ivar why: why it was not: ``wait`` (somebody may still ask for its key),
        ``other_credential`` or ``other_system`` (it is out of our reach), else its state.
    :ivar age: seconds that it has been without an owner.
    """

    id: str | None
    intent_id: str
    state: State
    result: ReapResult | None
    why: str | None
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapReport:
    """What :meth:`Supervisor.reap` found, and did.

    :ivar reaped: the tasks that have ended, or may run on by ``on_crash="abandon"``.
    :ivar left: those that may still run.
    :ivar corrupt: corrupt rows, which were left alone: why, by intent id.
    """

    reaped: Sequence[OrphanRow]
    left: Sequence[OrphanRow]
    corrupt: Mapping[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether no dead owner's task is left."""
        return not self.left and not self.corrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownReport:
    """What a drain did. Counts are of the tasks that were live when it began.

    :ivar unconfirmed: the tasks that may still run: their end could not be proven, or it is not
        known whether they exist. They stay in the ledger.
    :ivar unwritten: how many tasks have ended, or were let go, without its being certain that the
        ledger says so; 0 unless the ledger failed, or was locked, until the time was over. Whoever
        starts next takes them for a dead owner's, and finds out that they have ended.
    :ivar seconds: how long it took; ``grace`` is what it was allowed.
    """

    cancelled: int
    finished: int
    detached: int
    never_created: int
    unconfirmed: Sequence[TaskRow]
    unwritten: int = 0
    seconds: float
    grace: float

    @property
    def clean(self) -> bool:
        """Whether every task is proven to have ended, or was let go on purpose."""
        return not self.unconfirmed
