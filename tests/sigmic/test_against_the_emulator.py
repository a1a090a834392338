"""The client against a whole server: the life of a task, and every fault on every route."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.emulator.faults import KINDS, ROUTES, STREAM_ONLY
from sigmic_guard.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    ProtocolError,
    SigmicGuardError,
    TaskNotFound,
)
from sigmic_guard.sigmic import CreateRequest, ServerSentEvent, SigmicClient
from tests.backends import ASYNCIO, UVLOOP_SLOWLY
from tests.sigmic.raw_server import KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = [pytest.mark.backends(ASYNCIO, UVLOOP_SLOWLY), pytest.mark.usefixtures("transport")]

HOLD = Script(hold=True)
#: Seconds for whatever never ends.
REQUEST_SECONDS = 0.2


async def read(
    client: SigmicClient,
    task_id: str,
    begin: Callable[[], Awaitable[object]] | None = None,
    *,
    seconds: float = 20.0,
) -> list[ServerSentEvent]:
    """Read a stream to its end.

    :param begin: what lets the task go on to its end, once the stream is open.
    """
    stream = await client.stream(task_id, timeout=seconds, silence=seconds)
    events: list[ServerSentEvent] = []
    try:
        if begin is not None:
            await begin()
        while batch := await stream.receive():
            events += batch
    finally:
        await stream.aclose()
    return events


async def test_a_life(tmp_path: Path) -> None:
    """A task is created, streams, completes, is asked again, and is found in the list."""
    (tmp_path / "data.csv").write_bytes(b"a,b\n1,2\n")
    async with (
        Emulator(script=HOLD, api_key=KEY) as emulator,
        SigmicClient(KEY, emulator.url) as client,
    ):
        request = CreateRequest(message="Sum it up", files=(tmp_path / "data.csv",))
        task_id = await client.create(request, timeout=5)

        async def complete() -> None:
            emulator.complete(task_id, "Hello world")

        events = await read(client, task_id, complete)
        assert events[-1].event == "done"
        assert msgspec.json.decode(events[-1].data)["finalResponse"] == "Hello world"
        info = await client.get(task_id, timeout=5)
        assert (info.id, info.status, info.message) == (task_id, "completed", "Sum it up")
        assert info.output is not None
        assert info.output.content == "Hello world"
        assert await client.send(task_id, "Again", timeout=5) == "running"
        events = await read(client, task_id, complete)
        assert events[-1].event == "done"
        page = await client.list(limit=1, timeout=5)
        assert [task.id for task in page.tasks] == [task_id]
        assert (page.total, page.has_more) == (1, False)


async def test_a_cancellation() -> None:
    """A running task that is deleted is cancelled; it can neither be asked nor found elsewhere."""
    async with Emulator(script=HOLD) as emulator, SigmicClient(KEY, emulator.url) as client:
        request = CreateRequest(message="m", env={"MARK": "ü"}, secrets={"S": "x"})
        task_id = await client.create(request, timeout=5)
        assert await client.delete(task_id, timeout=5) is True
        info = await client.get(task_id, timeout=5)
        assert (info.status, info.terminal, info.env) == ("cancelled", True, {"MARK": "ü"})
        assert info.completed_at is not None
        with pytest.raises(ApiError):
            await client.send(task_id, "Again", timeout=5)
        with pytest.raises(ApiError):
            await client.delete(task_id, timeout=5)
        with pytest.raises(TaskNotFound):
            await client.delete("another", timeout=5)


async def test_an_approval() -> None:
    """A task that asks goes on when it is told."""
    async with (
        Emulator(script=Script(approval="shell")) as emulator,
        SigmicClient(KEY, emulator.url) as client,
    ):
        task_id = await client.create(CreateRequest(message="m"), timeout=5)
        await emulator.wait_for(lambda state: state["tasks"].get("awaiting_approval"))
        info = await client.get(task_id, timeout=5)
        assert info.pending_approvals is not None
        (pending,) = info.pending_approvals
        assert pending.tool_name == "shell"

        async def approve() -> None:
            assert await client.approve(task_id, pending.call_id, "proceed_once", timeout=5)

        assert (await read(client, task_id, approve))[-1].event == "done"


async def test_pages() -> None:
    """The pages of a list hold every task once."""
    async with Emulator(script=HOLD) as emulator, SigmicClient(KEY, emulator.url) as client:
        ids = {await client.create(CreateRequest(message=str(i)), timeout=5) for i in range(7)}
        found: list[str] = []
        while True:
            page = await client.list(limit=3, offset=len(found), timeout=5)
            found += [task.id for task in page.tasks]
            if not page.has_more:
                break
        assert len(found) == 7
        assert set(found) == ids


async def test_a_wrong_key() -> None:
    """A key that the server does not know is an AuthenticationError on every route."""
    async with (
        Emulator(api_key="sigmic_" + "0" * 64) as emulator,
        SigmicClient(KEY, emulator.url) as client,
    ):
        for call in calls("x").values():
            with pytest.raises(AuthenticationError):
                await call(client)


@pytest.mark.parametrize("task_id", ["a/b", "..%2f", "x" * 10_000, "🦊\r\n", "stream", "x/stream"])
async def test_naughty_ids(task_id: str) -> None:
    """A naughty id is no such task, or too long; no other task is touched by it."""
    async with Emulator(script=HOLD) as emulator, SigmicClient(KEY, emulator.url) as client:
        await client.create(CreateRequest(message="m"), timeout=5)
        for name, call in calls(task_id).items():
            if name not in {"create", "list"}:
                # ProtocolError: an HTTP server that finds it too long does not ask the API.
                with pytest.raises((TaskNotFound, ConfigurationError, ProtocolError)):
                    await call(client)
        assert emulator.live == 1


def calls(task_id: str) -> dict[str, Callable[[SigmicClient], Awaitable[Any]]]:
    """A call for each route, by the emulator's name for it."""
    return {
        "create": lambda client: client.create(CreateRequest(message="m"), timeout=REQUEST_SECONDS),
        "get": lambda client: client.get(task_id, timeout=REQUEST_SECONDS),
        "list": lambda client: client.list(timeout=REQUEST_SECONDS),
        "delete": lambda client: client.delete(task_id, timeout=REQUEST_SECONDS),
        "stream": lambda client: read(client, task_id, seconds=REQUEST_SECONDS),
        "send": lambda client: client.send(task_id, "m", timeout=REQUEST_SECONDS),
        "approve": lambda client: client.approve(task_id, "c", "cancel", timeout=REQUEST_SECONDS),
    }


def faults() -> list[tuple[str, Fault]]:
    """Every kind of fault on every route that has it."""
    options: dict[str, dict[str, Any]] = {
        "latency": {"seconds": 1.0},
        "status": {"status": 503, "retry_after": 3},
        "drip": {"seconds": 1.0},  # far longer than the silence that is waited for
        "redirect": {"location": "http://127.0.0.1:9/"},
        "oversize": {"size": 17 * 1024 * 1024},
        "cut": {"events": 1},
        "reset_mid": {"events": 1},
    }
    found = []
    for route in ROUTES:
        for kind in sorted(KINDS):
            if (kind in STREAM_ONLY and route != "stream") or (kind == "lie" and route != "delete"):
                continue
            if kind == "swapped" and route not in {"get", "create"}:
                continue
            found.append((route, Fault(kind, **options.get(kind, {}))))  # type: ignore[arg-type]
    return found


#: Faults that a caller is not told of by an error.
HARMLESS = {
    *((route, "reset_after") for route in ROUTES),  # the answer came first
    ("delete", "lie"),
    ("create", "swapped"),  # an id is an id
    *(("delete", kind) for kind in ("empty", "malformed", "oversize")),  # False: look with GET
    *(
        ("stream", kind) for kind in ("cut", "truncated", "malformed", "empty")
    ),  # an end is no proof
}


@pytest.mark.backends(ASYNCIO)
@pytest.mark.parametrize("route, fault", faults(), ids=lambda value: getattr(value, "kind", value))
async def test_faults(route: str, fault: Fault) -> None:
    """Each fault on each route is a documented error or does no harm; none shows the key."""
    async with Emulator(script=HOLD) as emulator, SigmicClient(KEY, emulator.url) as client:
        task_id = await client.create(CreateRequest(message="m"), timeout=5)
        emulator.fault(route, fault)
        error = None
        try:
            await calls(task_id)[route](client)
        except SigmicGuardError as exc:
            error = exc
        if error is None:
            assert (route, fault.kind) in HARMLESS
        else:
            assert isinstance(error, (ApiError, ProtocolError, ConnectionFailed))
            assert error.__context__ is None
            report = traceback.TracebackException.from_exception(error, capture_locals=True)
            assert KEY not in "".join(report.format())
        emulator.clear_faults()
        assert (await client.get(task_id, timeout=5)).id == task_id
