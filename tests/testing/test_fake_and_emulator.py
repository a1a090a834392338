"""The fake and the emulator are one world: a script or a fault means the same to both."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.emulator.faults import KINDS
from sigmic_guard.errors import ApiError, ConnectionFailed, ProtocolError, SigmicGuardError
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from sigmic_guard.testing import FakeSigmic
from sigmic_guard.testing.fake_faults import KINDS as WITHOUT_A_WIRE
from tests.backends import ASYNCIO
from tests.sigmic.raw_server import KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sigmic_guard.sigmic import TaskApi

pytestmark = pytest.mark.backends(ASYNCIO)

#: Real seconds, for what comes at once, and for what never does.
SOON, NEVER = 20, 0.2
HOLD = Script(hold=True)
REFUSED = {"status": 429, "code": "SLOW_DOWN", "message": "not now", "retry_after": 3}

FAULTS = [
    Fault("latency", seconds=0.01),
    Fault("status"),
    Fault("status", **REFUSED),  # type: ignore[arg-type]
    Fault("status", status=404, code="NOT_FOUND", effect=True),
    Fault("reset_before"),
    Fault("lost_answer"),
    Fault("black_hole"),
    Fault("black_hole_after"),
    Fault("lie"),
    Fault("swapped"),
]
SCRIPTS = [
    # They begin when their stream is open, on a loaded machine too.
    Script(pending=2.0, chunks=("a", "b")),
    Script(pending=2.0, chunks=("a", "b"), answer="c"),
    Script(pending=2.0, fail="no luck"),
    Script(duration=0.02, pending=2.0, thoughts=("hm",), tool_calls=("shell",), subagents=("x",)),
    Script(hold=True, duration=0),
]


@asynccontextmanager
async def both() -> AsyncIterator[list[tuple[FakeSigmic | Emulator, TaskApi]]]:
    """Yield the two worlds, each with its client."""
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        client = await stack.enter_async_context(SigmicClient(KEY, emulator.url))
        fake = FakeSigmic()
        yield [(fake, fake), (emulator, client)]


async def ask(api: TaskApi, route: str, task_id: str, timeout: float) -> object:
    """Send a request, and return what matters of its answer."""
    match route:
        case "create":
            return await api.create(CreateRequest(message="m"), timeout=timeout) == task_id
        case "get":
            return (await api.get(task_id, timeout=timeout)).id == task_id
        case "delete":
            return await api.delete(task_id, timeout=timeout)
        case _:
            return await api.send(task_id, "more", timeout=timeout)


def told_by(error: SigmicGuardError) -> object:
    """Return what matters of an error."""
    if isinstance(error, ProtocolError):
        return False  # the client sees for itself that it is told of another task
    if isinstance(error, ApiError):
        return type(error), error.code, error.status, error.retry_after
    assert isinstance(error, ConnectionFailed), error
    return type(error), error.sent, error.timed_out


def test_the_faults_below_are_all_that_need_no_wire() -> None:
    assert {fault.kind for fault in FAULTS} == WITHOUT_A_WIRE < KINDS


@pytest.mark.parametrize("route", ["create", "get", "delete", "send"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.kind)
async def test_a_fault(fault: Fault, route: str) -> None:
    """The same comes back, and the same is true afterwards; or it is refused for the route."""
    outcomes: list[object] = []
    async with both() as worlds:
        for world, api in worlds:
            world.script_for("m", HOLD)
            task_id = await api.create(CreateRequest(message="m"), timeout=SOON)
            await api.create(CreateRequest(message="m"), timeout=SOON)
            try:
                world.fault(route, fault)
            except ValueError as error:
                outcomes.append(str(error))
                continue
            timeout = NEVER if "hole" in fault.kind else SOON
            try:
                answer = await ask(api, route, task_id, timeout)
            except SigmicGuardError as error:
                answer = told_by(error)
            world.clear_faults()
            page = await api.list(timeout=SOON)
            rows = sorted((row.status, row.message_count) for row in page.tasks)
            outcomes.append((answer, rows))
    assert outcomes[0] == outcomes[1]


async def test_how_often_a_fault_fires() -> None:
    outcomes: list[list[bool]] = []
    async with both() as worlds:
        for world, api in worlds:
            outcomes.append([])
            world.fault("*", Fault("status", status=503, every=2, times=2))
            for _ in range(6):
                try:
                    await api.list(timeout=SOON)
                except ApiError:
                    outcomes[-1].append(True)
                else:
                    outcomes[-1].append(False)
    assert outcomes[0] == outcomes[1] == [False, True, False, True, False, False]


@pytest.mark.parametrize("kind", sorted(KINDS - WITHOUT_A_WIRE))
def test_a_fake_has_no_wire(kind: Any) -> None:
    fault = Fault(kind, location="/")
    for plan in (FakeSigmic().on, FakeSigmic().always, FakeSigmic().fault):
        with pytest.raises(ValueError, match="wire"):
            plan("stream", fault)


@pytest.mark.parametrize("script", SCRIPTS, ids=["said", "other answer", "fails", "all", "holds"])
async def test_a_script(script: Script) -> None:
    """A task says the same, ends the same, and is shown the same."""
    outcomes = []
    async with both() as worlds:
        for world, api in worlds:
            world.script_for(lambda message: message.startswith("m"), script)
            task_id = await api.create(CreateRequest(message="m"), timeout=SOON)
            stream = await api.stream(task_id, timeout=SOON, silence=SOON)
            told = []
            while not script.hold and (batch := await stream.receive()):
                told += [(event.event, json.loads(event.data)) for event in batch]
            stream.close()
            said = "".join(data["text"] for name, data in told if name == "content")
            info = await api.get(task_id, timeout=SOON)
            [row] = (await api.list(timeout=SOON)).tasks
            assert info.output is not None
            shown = info.status, info.error, info.output.content, row.status, row.message_count
            outcomes.append((said, told[-1:], shown))
            world.cancel(task_id)
    assert outcomes[0] == outcomes[1]
