"""Neither the key nor a secret shows where a supervisor refuses or fails, whatever prints it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard import ConfigurationError, SigmicGuardError, Supervisor
from sigmic_guard.emulator import Emulator, Fault, Script
from tests.faults.witness import KEY, SECRET, USER_KEY, Witness, echo, secret_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Call = Callable[[Supervisor, dict[str, Any]], Awaitable[Any]]

pytestmark = pytest.mark.usefixtures("transport")


def supervisor(**options: Any) -> Supervisor:
    return Supervisor(api_key=KEY, **options)


async def scoped(supervisor: Supervisor, more: dict[str, Any]) -> None:
    async with supervisor.task("m", **secret_options(**more)):
        pass


async def run(supervisor: Supervisor, more: dict[str, Any]) -> None:
    await supervisor.run("m", **secret_options(**more))


async def start(supervisor: Supervisor, more: dict[str, Any]) -> None:
    await supervisor.start("m", **secret_options(**more))


CALLS: dict[str, Call] = {"scoped": scoped, "run": run, "start": start}


@pytest.mark.parametrize(
    "options",
    [
        {"grace": -1},
        {"max_tasks": 0},
        {"max_cancels": "many"},
        {"create_timeout": float("nan")},
        {"base_url": "http://user:pass@127.0.0.1"},
        {"ledger": "nosuch://ledger"},
        {"client": object()},
    ],
    ids=lambda options: str(*options),
)
def test_a_supervisor_that_cannot_be_made(options: dict[str, Any], witness: Witness) -> None:
    """What refuses the arguments of a supervisor shows none of the key, printed locals included."""
    with pytest.raises(SigmicGuardError) as caught:
        supervisor(registry=witness.registry, **options)
    witness.catch(caught.value)
    witness.meet(supervisor(registry=witness.registry))


@pytest.mark.parametrize(
    "options",
    [
        {"files": ["x"]},
        {"nosuch": 1},
        {"timeout": -1},
        {"deadline": "soon"},
        {"key": ""},
        {"env": {"SIGMIC_GUARD_INTENT": "x"}},
        {"system_prompt": 7},
    ],
    ids=lambda options: str(*options),
)
@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
async def test_a_task_that_cannot_be_asked_for(
    call: Call, options: dict[str, Any], witness: Witness
) -> None:
    """What refuses the options of a task shows none of its secrets, and nothing is sent."""
    async with (
        Emulator() as emulator,
        supervisor(base_url=emulator.url, registry=witness.registry) as guard,
    ):
        with pytest.raises(ConfigurationError) as caught:
            await call(guard, options)
        witness.catch(caught.value)
        witness.meet(guard, guard.tasks, guard.snapshot())
    assert not emulator.requests


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
async def test_a_server_that_echoes(call: Call, status: int, witness: Witness) -> None:
    """A server that repeats key and secret in its refusal is not passed on as it is."""
    async with (
        Emulator(api_key=KEY) as emulator,
        supervisor(
            base_url=emulator.url,
            registry=witness.registry,
            # What is refused outright does not wait for it; the rest waits for nothing else.
            create_timeout=10.0 if status in {400, 401, 403} else 0.5,
            grace=1,
        ) as guard,
    ):
        emulator.fault("create", Fault("status", status=status, message=echo(), effect=False))
        with pytest.raises(SigmicGuardError, match=r"and .* are refused") as caught:
            await call(guard, {})
        witness.catch(caught.value)
        witness.meet(await guard.shutdown(), guard)
    assert emulator.live == 0


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("times", [1, 2])
async def test_a_native_cancellation(call: Call, times: int, witness: Witness) -> None:
    """A cancellation that comes out of a create under way shows nothing either."""
    async with (
        Emulator(script=Script(hold=True)) as emulator,
        supervisor(base_url=emulator.url, registry=witness.registry, create_timeout=0.3) as guard,
    ):
        emulator.fault("create", Fault("black_hole_after"))
        task = asyncio.ensure_future(call(guard, {"cancel_wait": 0.1}))
        await emulator.wait_for(lambda state: state["created"])
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        witness.catch(caught.value)
        witness.meet(task, guard, *guard.tasks.values())
    assert emulator.live == 0


@pytest.mark.parametrize("leak", ["log", "repr", "locals", "field", "cause", "metric", "key"])
def test_the_grep_finds(leak: str) -> None:
    """Negative control: a secret that leaks by any one way is found."""
    with Witness() as witness:
        supervisor(registry=witness.registry)
        witness.check()
        error: Exception = ConfigurationError("quiet")
        match leak:
            case "log":
                import logging

                logging.getLogger("elsewhere").debug("sent %s", KEY)
            case "repr":
                witness.meet({"secrets": secret_options()})
            case "locals":
                error = raised_with_locals()
            case "field":
                error.__dict__["credential"] = KEY
            case "cause":
                error.__cause__ = ValueError(SECRET)
            case "metric":
                from prometheus_client import Counter

                Counter("leak", SECRET, registry=witness.registry)
            case "key":
                error.add_note(f"it was {USER_KEY}")
                witness.meet(error.__notes__)
        witness.catch(error)
        with pytest.raises(AssertionError):
            witness.check()


@pytest.mark.parametrize("text", [KEY, SECRET, USER_KEY])
@pytest.mark.parametrize("column", ["last_error", "key"])
@pytest.mark.parametrize("overwritten", [False, True])
def test_the_grep_reads_rows(text: str, column: str, overwritten: bool, tmp_path: Path) -> None:
    """Negative control: what stands, or stood, in a row is found; a key may stand in its column."""
    path = tmp_path / "ledger.db"
    with Witness() as witness, closing(sqlite3.connect(path)) as ledger:
        supervisor(registry=witness.registry)
        ledger.execute("PRAGMA journal_mode = WAL")
        ledger.execute("CREATE TABLE tasks (key TEXT, last_error TEXT)")
        ledger.execute(f"INSERT INTO tasks ({column}) VALUES (?)", (text,))
        ledger.commit()
        if overwritten:
            ledger.execute(f"UPDATE tasks SET {column} = NULL")
            ledger.commit()
        witness.read_ledger(path)
        assert witness.rows == 1
        if text == USER_KEY and (column == "key" or overwritten):
            witness.check()
        else:
            with pytest.raises(AssertionError):
                witness.check()


def raised_with_locals() -> Exception:
    try:
        options = secret_options()
        raise ConfigurationError(f"{len(options)} options are too many")
    except ConfigurationError as error:
        return error
