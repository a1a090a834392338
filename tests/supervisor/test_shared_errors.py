"""Several callers who meet one failure each get an exception of their own, and an equal one."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from anyio import create_task_group, sleep, wait_all_tasks_blocked

from sigmic_guard import LedgerError, SigmicGuardError, SupervisorShutdown
from sigmic_guard.errors import ConnectionFailed, RateLimited, fresh
from sigmic_guard.ledger import MemoryLedger
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sigmic_guard.ledger import Refusal, Write

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)

CALLERS = 20


async def errors_of(call: Callable[[], Awaitable[object]]) -> list[SigmicGuardError]:
    """Return what twenty callers at once are told, each of whom adds a note."""
    errors: list[SigmicGuardError] = []

    async def caller(number: int) -> None:
        try:
            await call()
        except SigmicGuardError as error:
            error.add_note(f"of caller {number}")
            error.__cause__ = KeyError(number)
            errors.append(error)

    async with create_task_group() as group:
        for number in range(CALLERS):
            group.start_soon(caller, number)
    return errors


def each_has_its_own(errors: list[SigmicGuardError]) -> None:
    assert len(errors) == len(set(map(id, errors))) == CALLERS
    assert all(len(getattr(error, "__notes__", ())) == 1 for error in errors)
    assert len({str(error.__cause__) for error in errors}) == CALLERS
    depths = set()
    for error in errors:
        traceback, depth = error.__traceback__, 0
        while traceback is not None:
            traceback, depth = traceback.tb_next, depth + 1
        depths.add(depth)
    assert len(depths) == 1
    facts: list[Any] = [
        {k: v for k, v in vars(error).items() if k not in {"__notes__", "result"}}
        for error in errors
    ]
    assert all(fact == facts[0] for fact in facts)


class Refusing(MemoryLedger):
    """Waits until all callers wait, and refuses."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        await wait_all_tasks_blocked()
        raise LedgerError("the disk is full")


async def test_a_batch_that_fails() -> None:
    """Twenty creates in one transaction."""
    lab = Lab()
    async with lab.open(ledger=Refusing()) as supervisor:
        each_has_its_own(await errors_of(lambda: supervisor.start("m")))


async def test_a_round_that_fails() -> None:
    """Twenty who wait for the reaper."""

    class Unreadable(MemoryLedger):
        async def owners(self, namespace: str | None = None) -> Any:
            await wait_all_tasks_blocked()
            raise LedgerError("the disk is gone")

    lab = Lab()
    async with lab.open(ledger=Unreadable()) as supervisor:
        each_has_its_own(await errors_of(supervisor.reap))


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_round_that_never_comes() -> None:
    """Twenty who wait when the supervisor shuts down."""

    class Hanging(MemoryLedger):
        async def owners(self, namespace: str | None = None) -> Any:
            await sleep(3600)

    lab = Lab()
    async with lab.open(ledger=Hanging(), grace=1) as supervisor, create_task_group() as group:

        async def shut_down() -> None:
            await sleep(1)
            await supervisor.shutdown()

        group.start_soon(shut_down)
        errors = await errors_of(supervisor.reap)
    each_has_its_own(errors)
    assert {type(error) for error in errors} == {SupervisorShutdown}


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_a_create_that_failed() -> None:
    """Its caller, and who asks the handle of the block for the result."""
    lab = Lab()
    refusal = RateLimited("too many", code="RATE_LIMITED", status=429, retry_after=5.0)
    async with lab.open() as supervisor:
        lab.fake.always("create", refusal)
        errors = await errors_of(lambda: supervisor.start("m"))
        each_has_its_own(errors)
        assert [vars(error)["retry_after"] for error in errors] == [5.0] * CALLERS
        lab.fake.always("create", HANG)
        each_has_its_own(await errors_of(lambda: supervisor.start("m")))
        lab.fake.always("create", None)


@pytest.mark.backends(TRIO_VIRTUAL)
async def test_one_task_told_twenty_times() -> None:
    """All who wait for one task's end."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        task.request_cancel()
        each_has_its_own(await errors_of(task.result))


def test_a_fresh_error_is_an_equal_one() -> None:
    """With its fields and its cause, and nobody's traceback, context or notes to come."""
    cause = ValueError()
    error = RateLimited("too many", code="C", status=429, retry_after=1.0)
    error.add_note("first")
    try:
        try:
            raise KeyError
        except KeyError:
            raise error from cause
    except RateLimited:
        again = fresh(error)
    assert type(again) is RateLimited
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.__cause__ is cause
    assert again.__traceback__ is None
    assert again.__context__ is None
    again.add_note("second")
    assert error.__notes__ == ["first"]
    assert vars(pickle.loads(pickle.dumps(fresh(ConnectionFailed("x", sent=True))))) == {
        "message": "x",
        "sent": True,
        "timed_out": False,
    }
