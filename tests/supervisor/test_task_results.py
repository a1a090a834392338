"""What a :class:`TaskResult` can do: raise for what it tells, and become JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sigmic_guard import (
    CancelReason,
    Outcome,
    PermissionDenied,
    SigmicGuardError,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskResult,
    TaskTimedOut,
)
from sigmic_guard.supervisor.ground.from_entry import result_of
from tests.supervisor.lab import Lab


async def ended(how: str) -> tuple[TaskResult, SigmicGuardError | None]:
    """Return the result of a task that ended so, and what ``result()`` raised for it."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", timeout=0.05 if how == "times out" else None)
        match how:
            case "completes":
                lab.fake.complete(task.id, "42")
            case "fails":
                lab.fake.fail(task.id, "no such file")
            case "is cancelled":
                await task.cancel()
        result = await task.wait()
        try:
            await task.result()
        except SigmicGuardError as error:
            return result, error
        return result, None


@pytest.mark.parametrize(
    "how, kind",
    [("fails", TaskFailed), ("times out", TaskTimedOut), ("is cancelled", TaskCancelled)],
)
async def test_it_raises_what_was_raised(how: str, kind: type[TaskError]) -> None:
    """The same class, with the same to tell."""
    result, error = await ended(how)
    with pytest.raises(kind) as caught:
        result.raise_for_outcome()
    assert type(error) is kind
    assert caught.value.result == error.result == result
    assert caught.value.task_id == error.task_id == result.id
    for name in "reason", "error":
        assert getattr(caught.value, name, None) == getattr(error, name, None)


async def test_a_completed_one_raises_nothing() -> None:
    result, _ = await ended("completes")
    result.raise_for_outcome()
    assert result.final_response == "42"


async def test_one_that_was_let_go() -> None:
    lab = Lab()
    async with lab.open(left=1) as supervisor:
        task = await supervisor.start("m", on_shutdown="detach")
    result = result_of(task._entry)
    assert result.outcome is Outcome.DETACHED
    with pytest.raises(TaskError, match="was let go") as caught:
        result.raise_for_outcome()
    assert type(caught.value) is TaskError


async def test_one_that_was_never_created() -> None:
    """What its create raised comes again, as an exception of its own."""
    lab = Lab()
    refused = PermissionDenied("not you", code="FORBIDDEN", status=403)
    async with lab.open() as supervisor:
        lab.fake.on("create", refused)
        with pytest.raises(PermissionDenied) as first:
            await supervisor.start("m")
    result = made(id=None, outcome=Outcome.FAILED, error=first.value)
    with pytest.raises(PermissionDenied) as second:
        result.raise_for_outcome()
    assert second.value is not first.value
    assert str(second.value) == str(first.value)
    assert result.to_dict()["error"] == str(first.value)


@pytest.mark.parametrize("how", ["completes", "fails", "times out", "is cancelled"])
async def test_it_becomes_json(how: str) -> None:
    """Every field, with plain words for the enums."""
    result, _ = await ended(how)
    read = json.loads(json.dumps(result.to_dict()))
    assert list(read) == list(TaskResult.__slots__)
    assert read["id"] == result.id
    assert read["outcome"] == str(result.outcome)
    assert read["reason"] == (None if result.reason is None else str(result.reason))
    if result.cancellation is not None:
        assert read["cancellation"]["result"] == str(result.cancellation.result)


def made(**fields: Any) -> TaskResult:
    """Make one by hand, as tests of users do."""
    values: dict[str, Any] = {
        "id": "c37c1d78",
        "outcome": Outcome.CANCELLED,
        "status": None,
        "final_response": None,
        "error": None,
        "reason": CancelReason.USER,
        "created_at": 0.0,
        "duration": 1.0,
        "cancellation": None,
    }
    return TaskResult(**(values | fields))
