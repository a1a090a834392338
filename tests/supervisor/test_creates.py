"""A create is sent once, whatever becomes of its answer."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from anyio import CancelScope, create_task_group, current_time, sleep_forever

from sigmic_guard import (
    ConfigurationError,
    ConnectionFailed,
    ProtocolError,
    RateLimited,
    ServerError,
    SigmicGuardError,
    State,
    SupervisorShutdown,
    ValidationError,
)
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.testing import HANG, LOST, Reaction
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import FORBIDDEN, UNAUTHORISED, UNAVAILABLE, Lab, too_many

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
virtual = pytest.mark.backends(TRIO_VIRTUAL)

REFUSED = {
    "400": ValidationError("no", code="VALIDATION_ERROR", status=400),
    "401": UNAUTHORISED,
    "403": FORBIDDEN,
    "429": too_many(1),
    "never sent": ConnectionFailed("refused", sent=False),
    "no files": ConfigurationError("the file has gone"),
}
DOUBTFUL: dict[str, Reaction] = {
    "reset": ConnectionFailed("reset", sent=True),
    "503": UNAVAILABLE,
    "odd": ProtocolError("what?", status=200),
    "hang": HANG,
}


@pytest.mark.parametrize("how", ["task", "start", "run"])
@pytest.mark.parametrize("fault", REFUSED.values(), ids=REFUSED)
async def test_refused(fault: SigmicGuardError, how: str) -> None:
    """What provably created nothing is raised as it is, at once, and sent once."""
    lab = Lab()
    lab.fake.on("create", fault)
    async with lab.open() as supervisor:
        with pytest.raises(type(fault)) as caught:
            match how:
                case "task":
                    async with supervisor.task("m"):
                        raise AssertionError
                case "start":
                    await supervisor.start("m")
                case _:
                    await supervisor.run("m")
        assert str(caught.value) == str(fault)
        assert not supervisor.snapshot()
    assert [call.method for call in lab.fake.requests] == ["create"]
    assert lab.finished == {("failed", "none"): 1}


@pytest.mark.parametrize("how", ["task", "start", "run"])
async def test_a_lost_answer_is_found(how: str) -> None:
    """A create whose answer was lost is found in the list by its marker, and goes on."""
    lab = Lab(duration=0.5)
    lab.fake.on("create", LOST)
    async with lab.open() as supervisor:
        match how:
            case "task":
                async with supervisor.task("m") as task:
                    result = await task.result()
            case "start":
                result = await (await supervisor.start("m")).result()
            case _:
                result = await supervisor.run("m")
    assert result.final_response == "the answer"
    assert result.error is None
    assert lab.fake.count("create") == 1
    assert len(lab.fake.created) == 1
    assert lab.finished == {("completed", "none"): 1}


@virtual
@pytest.mark.parametrize("fault", DOUBTFUL.values(), ids=DOUBTFUL)
async def test_never_created(fault: Reaction) -> None:
    """Where the list proves that nothing was created, the create's own error comes out."""
    lab = Lab()
    lab.fake.on("create", fault)
    expected = type(fault) if isinstance(fault, SigmicGuardError) else ConnectionFailed
    async with lab.open(create_timeout=10) as supervisor:
        with pytest.raises(expected):
            await supervisor.start("m")
        assert 10 <= current_time() < 20
        assert lab.live == {}
    assert lab.fake.count("create") == 1
    assert lab.fake.count("list") >= 2
    assert lab.deletes() == 0
    assert lab.finished == {("failed", "none"): 1}


@virtual
async def test_two_complete_scans_past_the_time_out() -> None:
    """NEVER_CREATED takes two complete scans that began past the create's time-out."""
    lab = Lab()
    lab.fake.on("create", ConnectionFailed("reset", sent=True))
    async with lab.open(create_timeout=10) as supervisor, create_task_group() as group:

        async def start() -> None:
            with pytest.raises(ConnectionFailed):
                await supervisor.start("m")

        group.start_soon(start)
        await lab.fake.until(lambda: current_time() > 9.9 or lab.fake.count("list") > 5)
        lab.fake.always("list", UNAVAILABLE)
        with CancelScope(deadline=current_time() + 3600):
            await sleep_forever()
        (row,) = supervisor.snapshot()
        assert row.state is State.UNKNOWN, "an incomplete scan proves nothing"
        scans = lab.fake.count("list")
        lab.fake.always("list", None)
        await lab.fake.until(lambda: lab.fake.count("list") == scans + 2)
    assert sum(lab.finished.values()) == 1
    assert lab.deletes() == 0


@virtual
async def test_found_on_a_later_page() -> None:
    """The scan reads every page that can hold the task."""
    lab = Lab()
    lab.fake.on("create", LOST)
    async with lab.open(left=350) as supervisor, create_task_group() as group:
        gate = lab.fake.gate("list")
        group.start_soon(supervisor.start, "m")
        await gate.entered.wait()
        for _ in range(350):
            lab.fake.add()
        gate.open()
    assert lab.fake.created[0] not in lab.fake.live
    assert lab.finished == {("cancelled", "shutdown"): 1}


@virtual
async def test_it_shows_up_late() -> None:
    """A task that the list shows only after a while is found, and not taken for absent."""
    lab = Lab()
    held = lab.fake.gate("create", answer=True)
    async with lab.open(create_timeout=5) as supervisor:
        lab.fake.on("list", *[UNAVAILABLE] * 6)
        task = await supervisor.start("m")
        assert task.state is State.RUNNING
        held.open()
    assert lab.fake.count("create") == 1
    assert lab.finished == {("cancelled", "shutdown"): 1}


@virtual
async def test_found_after_the_caller_gave_up() -> None:
    """Found after its caller had given up, the task is deleted."""
    lab = Lab()
    lab.fake.on("create", LOST)
    lab.fake.always("list", UNAVAILABLE)
    async with lab.open(create_timeout=5) as supervisor:
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        assert len(lab.fake.live) == 1
        lab.fake.always("list", None)
        await lab.fake.until(lambda: not lab.fake.live)
    assert lab.finished == {("cancelled", "error"): 1}
    assert lab.deletes() == 1


@virtual
async def test_unknown_at_the_shutdown() -> None:
    """A task that is still unknown at the end of a shutdown is named by its intent."""
    lab = Lab()
    lab.fake.on("create", LOST)
    lab.fake.always("list", HANG)
    async with lab.open(left=1, grace=3) as supervisor, create_task_group() as group:

        async def start() -> None:
            with pytest.raises(SupervisorShutdown):
                await supervisor.start("m")

        group.start_soon(start)
        await lab.fake.until(lambda: lab.fake.count("list") == 1)
        report = await supervisor.shutdown()
        (row,) = report.unconfirmed
        assert (row.id, row.state) == (None, "unknown")
        assert row.intent_id == lab.fake.tasks[lab.fake.created[0]].env[MARKER]


async def test_the_marker() -> None:
    """The create carries the intent id in env, beside what the user gave."""
    lab = Lab()
    async with lab.open() as supervisor:
        await supervisor.start("m", env={"MINE": "1"}, secrets={"S": "x"}, system_prompt="p")
        (row,) = supervisor.snapshot()
    (remote,) = lab.fake.tasks.values()
    assert remote.env == {"MINE": "1", MARKER: row.intent_id}
    assert (remote.request.system_prompt, remote.request.secrets) == ("p", {"S": "x"})


async def test_without_a_marker() -> None:
    """With marker=False env is left alone, and a lost answer is raised at once."""
    lab = Lab()
    lab.fake.on("create", None, LOST)
    async with lab.open(left=1, marker=False) as supervisor:
        await supervisor.start("m", env={MARKER: "the user's own"})
        assert next(iter(lab.fake.tasks.values())).env == {MARKER: "the user's own"}
        with pytest.raises(ConnectionFailed):
            await supervisor.start("m")
        assert lab.live == {"running": 1, "unknown": 1}
        report = await supervisor.shutdown()
        assert [row.state for row in report.unconfirmed] == ["unknown"]
    assert lab.fake.count("list") <= 1


@pytest.mark.backends(ASYNCIO)
async def test_files(tmp_path: Path) -> None:
    """A create with files is sent without the marker, for files exclude env; others have it."""
    lab = Lab()
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b")
    async with lab.open() as supervisor:
        async with supervisor.task("m", files=[path]) as task:
            remote = lab.fake.tasks[task.id]
            assert (remote.request.files, remote.env) == ((path,), {})
        await supervisor.start("m", files=[str(path)])


@pytest.mark.backends(ASYNCIO)
async def test_files_that_are_not_there(tmp_path: Path) -> None:
    """A file that cannot be read is refused before anything is begun."""
    lab = Lab()
    async with lab.open() as supervisor:
        with pytest.raises(ConfigurationError):
            async with supervisor.task("m", files=[tmp_path / "missing"]):
                raise AssertionError
        with pytest.raises(ConfigurationError):
            await supervisor.start("m", files=[tmp_path])
    assert not lab.fake.requests
    assert lab.finished == {}


@pytest.mark.backends(ASYNCIO)
async def test_files_and_a_lost_answer(tmp_path: Path) -> None:
    """Without a marker there is no way to find it: the error comes at once, the doubt is named."""
    lab = Lab()
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b")
    lab.fake.on("create", LOST)
    async with lab.open(left=1) as supervisor:
        with pytest.raises(ConnectionFailed):
            async with supervisor.task("m", files=[path]):
                raise AssertionError
        report = await supervisor.shutdown()
        assert [(row.id, row.state) for row in report.unconfirmed] == [(None, "unknown")]


async def test_the_request_is_let_go() -> None:
    """Once sent, a request is forgotten: it holds secrets."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m", secrets={"S": "hush"})
        assert task._entry.create is None


@virtual
@pytest.mark.parametrize("fault", [UNAVAILABLE, too_many(0), LOST, HANG], ids=str)
async def test_it_is_never_sent_twice(fault: SigmicGuardError) -> None:
    """However long the supervisor lives on, a create that went wrong is not sent again."""
    lab = Lab()
    lab.fake.on("create", fault)
    async with lab.open(create_timeout=5) as supervisor:
        with contextlib.suppress(RateLimited, ServerError, ConnectionFailed):
            await supervisor.start("m")
        with CancelScope(deadline=current_time() + 3600):
            await sleep_forever()
    assert lab.fake.count("create") == 1
