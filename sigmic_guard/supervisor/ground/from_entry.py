"""What users are told of a task, made from its entry: results, cancellations, and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import current_time

from sigmic_guard.errors import (
    DuplicateKey,
    SigmicGuardError,
    SupervisorShutdown,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskTimedOut,
    fresh,
)
from sigmic_guard.lifecycle import CancelReason, CancelResult, Outcome, ReapResult, State
from sigmic_guard.lifecycle.states import ENDED
from sigmic_guard.lifecycle.text import one_line, shown_id
from sigmic_guard.supervisor.ground.durations import orphaned_since, seconds_of
from sigmic_guard.supervisor.ground.results import Cancellation, OrphanRow, TaskResult

if TYPE_CHECKING:
    from sigmic_guard.ledger import Orphan
    from sigmic_guard.lifecycle import Record, Verdict
    from sigmic_guard.supervisor.ground.entry import Entry


def result_of(task: Entry) -> TaskResult:
    """Say how the task ended, or what is believed if nobody can know."""
    record = task.record
    asked, spared = record.reason is not None, record.state is State.DETACHED
    return TaskResult(
        id=record.remote_id,
        outcome=record.outcome or (Outcome.CANCELLED if asked else Outcome.FAILED),
        status=record.remote_status,
        final_response=task.answer,
        error=task.failure,
        reason=record.reason,
        created_at=record.created_at,
        duration=seconds_of(task),
        cancellation=cancellation_of(task) if asked and not spared else None,
    )


def orphan_row_of(task: Entry) -> OrphanRow:
    """Say what came of a dead owner's task so far."""
    record, at = task.record, task.record.orphaned_at
    result = result_of_orphan(record, task.cancel_result)
    return OrphanRow(
        id=record.remote_id,
        intent_id=record.intent_id,
        state=record.state,
        result=result,
        why=None if result else record.state.value,
        age=0.0 if at is None else current_time() - orphaned_since(task, at),
    )


def orphan_row_left(orphan: Orphan, verdict: Verdict, now: float) -> OrphanRow:
    """Say why a dead owner's task was left alone."""
    record = orphan.record
    return OrphanRow(
        id=record.remote_id,
        intent_id=record.intent_id,
        state=record.state,
        result=None,
        why=verdict.value,
        age=max(0.0, now - orphan.orphaned_at),
    )


def result_of_orphan(
    record: Record, cancel_result: CancelResult | None = None
) -> ReapResult | None:
    """Name how a dead owner's task came to its end; ``None`` while its row has not finished.

    :param cancel_result: what came of its cancellation, where that is known; no row tells.
    """
    if record.finished_at is None:
        return None
    match record.state:
        case State.NEVER_CREATED:
            return ReapResult.NEVER_CREATED
        case State.DETACHED:
            return ReapResult.RELEASED
        case State.CANCELLED if cancel_result is CancelResult.NOT_FOUND:
            return ReapResult.NOT_FOUND
        case State.CANCELLED if record.reason is not CancelReason.REMOTE:
            return ReapResult.CANCELLED
        case _:
            return ReapResult.ALREADY_FINISHED


def cancellation_of(task: Entry) -> Cancellation:
    """Say what came of the cancellation so far."""
    record = task.record
    result = task.cancel_result
    if result is None:
        ended = record.state in ENDED
        result = CancelResult.ALREADY_FINISHED if ended else CancelResult.UNCONFIRMED
    return Cancellation(
        result=result,
        state=record.state,
        reason=record.reason,
        attempts=record.attempts,
        error=record.last_error,
    )


def key_taken(why: str, holder: Record) -> DuplicateKey:
    """Return the error for a key that an unfinished row has: which task that is, and whose."""
    name = (
        f"intent {holder.intent_id}"
        if holder.remote_id is None
        else f"task {shown_id(holder.remote_id)}"
    )
    return DuplicateKey(
        f"{why} ({name}, owner {shown_id(holder.owner_id)})",
        key=holder.key or "",
        task_id=holder.remote_id,
        intent_id=holder.intent_id,
        owner_id=holder.owner_id,
    )


def error_of(task: Entry, *, interrupted_by: CancelReason | None = None) -> SigmicGuardError:
    """Make the error that says why there is no result.

    :param interrupted_by: the block's body was cancelled for this, however the task ended.
    """
    result, record = result_of(task), task.record
    name = shown_id(record.remote_id) if record.remote_id else "the task"
    why = interrupted_by or record.reason
    if isinstance(task.failure, SigmicGuardError) and record.state is State.NEVER_CREATED:
        return fresh(task.failure)  # the create's own exception says it best
    shut = CancelReason.SHUTDOWN in {task.interruption, record.reason}
    let_go = record.outcome is Outcome.DETACHED and shut
    if interrupted_by is CancelReason.SHUTDOWN or let_go:
        return SupervisorShutdown(f"the supervisor shut down; {name} is {record.state}")
    if why is CancelReason.DEADLINE:
        return TaskTimedOut(
            f"{name} reached its deadline; it is {record.state}",
            task_id=record.remote_id,
            result=result,
        )
    if record.state is State.FAILED:
        return TaskFailed(
            f"{name} failed: {one_line(str(task.failure))}",
            task_id=record.remote_id,
            error=task.failure,
            result=result,
        )
    if why is not None:
        return TaskCancelled(
            f"{name} was cancelled (reason: {why}); it is {record.state}",
            task_id=record.remote_id,
            reason=why,
            result=result,
        )
    return TaskError(
        f"{name} is {record.state}: nobody here will learn its end",
        task_id=record.remote_id,
        result=result,
    )
