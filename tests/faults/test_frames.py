"""What an error collector that walks the frames of a traceback sends: nothing of the user's."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard import (
    ConfigurationError,
    DuplicateKey,
    LedgerError,
    RemoteTask,
    SigmicGuardError,
    Supervisor,
    SupervisorShutdown,
)
from sigmic_guard.ledger import MemoryLedger, SqliteLedger
from sigmic_guard.lifecycle.secrets import Secrets
from sigmic_guard.sigmic import CreateRequest
from sigmic_guard.testing import FakeSigmic
from sigmic_guard.testing.fake_faults import LOST
from tests.faults.frames import library_locals, serialised
from tests.faults.witness import SECRET, USER_KEY, secret_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from sigmic_guard.ledger import Refusal, Write
    from tests.faults.witness import Witness

MESSAGE = "the-message-of-jane-doe"


def wish(**more: Any) -> dict[str, Any]:
    """Options that hold what nobody may see; made here, so that they are no local of a test."""
    return secret_options(key=USER_KEY, **more)


async def scoped(supervisor: Supervisor, more: dict[str, Any]) -> None:
    async with supervisor.task(MESSAGE, **wish(**more)):
        pass


async def run(supervisor: Supervisor, more: dict[str, Any]) -> None:
    await supervisor.run(MESSAGE, **wish(**more))


async def start(supervisor: Supervisor, more: dict[str, Any]) -> None:
    await supervisor.start(MESSAGE, **wish(**more))


async def adopt(supervisor: Supervisor, more: dict[str, Any]) -> None:
    await supervisor.adopt("nosuch", key=USER_KEY, **more)


CALLS: dict[str, Callable[[Supervisor, dict[str, Any]], Awaitable[None]]] = {
    "scoped": scoped,
    "run": run,
    "start": start,
    "adopt": adopt,
}
CREATES = {name: call for name, call in CALLS.items() if call is not adopt}


def sent(error: BaseException) -> list[str]:
    """What Sentry, if it is installed, sends of the library's frames, with its own defaults."""
    try:
        utils = import_module("sentry_sdk.utils")
        serializer = import_module("sentry_sdk.serializer")
    except ImportError:
        return []
    event = serializer.serialize(utils.event_from_exception(error)[0])
    frames = [
        frame
        for link in event["exception"]["values"]
        for frame in (link.get("stacktrace") or {}).get("frames", ())
        if "/sigmic_guard/" in frame["abs_path"]
    ]
    assert any(frame.get("vars") for frame in frames)
    return [json.dumps(frame["vars"]) for frame in frames if frame.get("vars")]


def check(error: BaseException) -> None:
    """Nothing shows, in what Sentry sends and in what any other tool could make of it."""
    seen = [*sent(error), str(error), repr(error.args)]
    for place, value in library_locals(error):
        seen += [f"{place}: {text}" for text in serialised(value)]
    for forbidden in (SECRET, USER_KEY, MESSAGE):
        assert [text for text in seen if forbidden in text] == []


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
async def test_an_option_that_makes_no_sense(call: Callable[..., Awaitable[None]]) -> None:
    """What refuses the options of a task shows none of them."""
    async with Supervisor(client=FakeSigmic(), ledger="memory:") as supervisor:
        with pytest.raises(ConfigurationError) as caught:
            await call(supervisor, {"timeout": -1})
        check(caught.value)


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
async def test_a_supervisor_that_is_not_open(call: Callable[..., Awaitable[None]]) -> None:
    """What comes too early, or too late, is refused without a word on what it was."""
    supervisor = Supervisor(client=FakeSigmic(), ledger="memory:")
    with pytest.raises(ConfigurationError, match="enter the supervisor first") as early:
        await call(supervisor, {})
    check(early.value)
    async with supervisor:
        pass
    with pytest.raises(SupervisorShutdown) as late:
        await call(supervisor, {})
    check(late.value)


@pytest.mark.parametrize("call", CREATES.values(), ids=list(CREATES))
@pytest.mark.parametrize("end", ["refused", "timed out", "failed", "broken"])
async def test_a_task_without_a_result(call: Callable[..., Awaitable[None]], end: str) -> None:
    """However a task ends, its error shows neither what was asked for nor under which key."""
    fake = FakeSigmic(duration=0.0)
    fake.script(MESSAGE, duration=0.0 if end == "failed" else None, fail="so it is")
    more: dict[str, Any] = {}
    if end == "refused":
        fake.always("create", ConfigurationError("no"))
    elif end == "timed out":
        more = {"timeout": 0.05}
    elif end == "broken":
        fake.always("create", LedgerError("what is this"))
    async with Supervisor(client=fake, ledger="memory:", create_timeout=0.05) as supervisor:
        try:
            await call(supervisor, more)
            for task in tuple(supervisor.tasks.values()):
                await task.result()
        except SigmicGuardError as error:
            check(error)


@pytest.mark.parametrize("end", ["refused", "lost", "too late", "no file"])
async def test_a_follow_up(end: str) -> None:
    """A follow-up that fails shows nothing of its message."""
    fake = FakeSigmic()
    async with Supervisor(client=fake, ledger="memory:", create_timeout=0.05) as supervisor:
        task = await supervisor.start("m")
        files: list[Any] = [7] if end == "no file" else []
        if end == "refused":
            fake.on("send", ConfigurationError("no"))
        elif end == "lost":
            fake.on("send", LOST)
        elif end == "too late":
            await task.cancel()
        with pytest.raises(SigmicGuardError) as caught:
            await ask(task, files)
        check(caught.value)


async def ask(task: RemoteTask, files: list[Any]) -> None:
    await task.send(MESSAGE, files=files)


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
async def test_a_key_that_is_held_here(call: Callable[..., Awaitable[None]]) -> None:
    """The refusal of a key does not repeat it; its field has it."""
    fake = FakeSigmic()
    fake.script("other")
    async with Supervisor(client=fake, ledger="memory:") as supervisor:
        await supervisor.start("other", key=USER_KEY)
        if call is adopt:
            with pytest.raises(DuplicateKey) as caught:
                await supervisor.adopt(fake.add(), key=USER_KEY)
        else:
            with pytest.raises(DuplicateKey) as caught:
                await call(supervisor, {})
        assert caught.value.key == USER_KEY
        check(caught.value)


@pytest.mark.parametrize("call", CREATES.values(), ids=list(CREATES))
async def test_a_key_that_is_held_elsewhere(
    call: Callable[..., Awaitable[None]], tmp_path: Path, witness: Witness
) -> None:
    """The refusal of a key that another process holds repeats it nowhere: no log, no last_error."""
    fake, path = FakeSigmic(), tmp_path / "ledger.db"
    async with (
        Supervisor(client=fake, ledger=SqliteLedger(str(path)), registry=witness.registry) as one,
        Supervisor(client=fake, ledger=SqliteLedger(str(path)), registry=witness.registry) as two,
    ):
        await one.start("other", key=USER_KEY)
        with pytest.raises(DuplicateKey) as caught:
            await call(two, {})
        check(caught.value)
    assert USER_KEY not in witness.logged


@pytest.mark.parametrize("call", CREATES.values(), ids=list(CREATES))
async def test_a_ledger_that_fails(
    call: Callable[..., Awaitable[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row that cannot be written does not show in the error that says so."""
    import sqlite3

    from sigmic_guard.ledger import statements

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    ledger = SqliteLedger(str(tmp_path / "ledger.db"))
    async with Supervisor(client=FakeSigmic(), ledger=ledger, grace=0.5) as supervisor:
        monkeypatch.setattr(statements, "commit", fail)
        with pytest.raises(LedgerError) as caught:
            await call(supervisor, {})
        check(caught.value)
        monkeypatch.undo()


class Full(dict[str, Any]):
    """Holds no more rows."""

    def __setitem__(self, name: str, row: Any) -> None:
        raise OSError("no space left")


class OfSomebodyElse(MemoryLedger):
    """Says why it failed by an exception that has passed its frames, which hold rows."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        try:
            return await super().commit(writes)
        except OSError as error:
            raise LedgerError("the row was not written") from error


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
async def test_why_a_ledger_failed(call: Callable[..., Awaitable[None]]) -> None:
    """The cause of a ledger's error is passed on without its frames."""
    fake, ledger = FakeSigmic(), OfSomebodyElse()
    ledger.store.rows = Full()
    async with Supervisor(client=fake, ledger=ledger, grace=0.5) as supervisor:
        with pytest.raises(LedgerError) as caught:
            if call is adopt:
                await supervisor.adopt(fake.add(), key=USER_KEY)
            else:
                await call(supervisor, {})
        assert isinstance(caught.value.__cause__, OSError)
        check(caught.value)


async def test_the_files_of_a_ledger(tmp_path: Path) -> None:
    """A ledger's files hold no secret and no message; the key stands in its column."""
    fake = FakeSigmic()
    fake.script(MESSAGE)
    async with Supervisor(client=fake, ledger=SqliteLedger(str(tmp_path / "ledger.db"))) as one:
        task = await one.start(MESSAGE, **wish())
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        assert USER_KEY.encode() in held
        assert SECRET.encode() not in held
        assert MESSAGE.encode() not in held
        await task.cancel()


def test_secrets_look_like_no_mapping() -> None:
    """Secrets can be read like a mapping, and nothing that walks through objects sees them."""
    request = CreateRequest(message="m", secrets={"TOKEN": SECRET})
    assert isinstance(request.secrets, Secrets)
    assert dict(request.secrets) == {"TOKEN": SECRET} == request.secrets
    assert [SECRET in text for text in serialised(request)].count(True) == 0
    assert any(SECRET in text for text in serialised({"options": [{"TOKEN": SECRET}]}))


async def test_the_walk_finds() -> None:
    """Negative control: options that stand in a frame of the library are found."""
    error = ConfigurationError("no")
    namespace: dict[str, Any] = {"error": error, "options": wish()}
    from sigmic_guard import __file__ as inside

    code = compile("def f(options, error):\n raise error\nf(options, error)", inside, "exec")
    with pytest.raises(ConfigurationError):
        exec(code, namespace)
    with pytest.raises(AssertionError):
        check(error)
