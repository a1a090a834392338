"""Ids are data: whatever they are, they reach /api/v1/tasks/<that id> and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from aiohttp import web

from sigmic_guard import (
    ApiError,
    ConfigurationError,
    ProtocolError,
    SigmicClient,
    SigmicGuardError,
    Supervisor,
    TaskPolicy,
)
from sigmic_guard.emulator import Emulator, Script
from tests.faults.witness import KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.witness import Witness

pytestmark = pytest.mark.usefixtures("transport")

NAUGHTY = [
    "a/b",
    "/",
    "../../../_emulator/reset",
    "/_emulator/state",
    "..",
    ".",
    "",
    "...",
    "%2f",
    "%2e%2e",
    "%2E%2E%2Fx",
    "%",
    "%00",
    "%zz",
    "line\nfeed",
    "carriage\rreturn",
    "x HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
    "nul\0",
    "tab\t",
    "\x7f\x80",
    "ünïcödé",
    "e\u0301",
    "\u202e\ufeff\u2028",
    "🦊",
    "\ud800",
    "x\udfff",
    "back\\slash",
    "a?b=c",
    "a#b",
    "a;b",
    " ",
    " a ",
    "+",
    ":@",
    "//elsewhere.invalid/x",
    "http://elsewhere.invalid/",
    "x/stream",
    "stream",
    "x" * 10_000,
    "🦊" * 2_500,
    None,
    7,
    b"bytes",
    ["list"],
]
REFUSED = ["", ".", "..", "\ud800", "x\udfff"]
TEXT = [value for value in NAUGHTY if isinstance(value, str)]
HOLD = Script(duration=0.0, hold=True)


def short(value: object) -> str:
    return ascii(value)[:24]


def segments(paths: list[str]) -> list[list[str]]:
    """What each path names below the tasks, decoded after it was split, as a server does."""
    found = []
    for path in paths:
        assert path.isascii()
        assert path.isprintable()
        assert " " not in path
        head, _, rest = path.partition("/api/v1/tasks")
        assert head == ""
        bare, _, query = rest.partition("?")
        assert not query or not bare
        found.append([unquote(part, errors="strict") for part in bare.split("/")[1:]])
    return found


async def read(client: SigmicClient, task_id: Any) -> None:
    (await client.stream(task_id, timeout=5, silence=5)).close()


CALLS: dict[str, Callable[[SigmicClient, Any], Awaitable[Any]]] = {
    "get": lambda client, value: client.get(value, timeout=5),
    "delete": lambda client, value: client.delete(value, timeout=5),
    "stream": read,
    "send": lambda client, value: client.send(value, "m", timeout=5),
    "approve": lambda client, value: client.approve(value, "call", "cancel", timeout=5),
    "approve's call": lambda client, value: client.approve("task", value, "cancel", timeout=5),
}
EXPECTED: dict[str, Callable[[str], list[str]]] = {
    "get": lambda value: [value],
    "delete": lambda value: [value],
    "stream": lambda value: [value, "stream"],
    "send": lambda value: [value, "messages"],
    "approve": lambda value: [value, "tools", "call", "approve"],
    "approve's call": lambda value: ["task", "tools", value, "approve"],
}


@pytest.mark.parametrize("value", NAUGHTY, ids=short)
async def test_ids_given_to_the_client(value: Any) -> None:
    """An id of any shape is one segment of the path that leaves, or refused before anything is."""
    async with Emulator(script=HOLD) as emulator, SigmicClient(KEY, emulator.url) as client:
        for name, call in CALLS.items():
            before = len(emulator.requests)
            with pytest.raises((ApiError, ConfigurationError, ProtocolError)) as caught:
                await call(client, value)
            paths = [seen.path for seen in list(emulator.requests)[before:]]
            if isinstance(caught.value, ConfigurationError):
                assert not paths
            elif paths:
                assert segments(paths) == [EXPECTED[name](value)]
            else:
                # The server reads no such long line; nothing of it was taken for anything else.
                assert len(value) == 10_000 or len(value.encode()) == 10_000
                assert isinstance(caught.value, ProtocolError)
                assert caught.value.status == 400


@pytest.mark.parametrize("value", NAUGHTY, ids=short)
async def test_ids_given_to_adopt(value: Any, witness: Witness) -> None:
    """adopt() asks for the task of exactly that id, or refuses; no other task is touched."""
    async with Emulator(script=HOLD) as emulator:
        async with Supervisor(
            api_key=KEY, base_url=emulator.url, registry=witness.registry
        ) as supervisor:
            other = await supervisor.start("an innocent one", on_shutdown="detach")
            with pytest.raises(SigmicGuardError) as caught:
                await supervisor.adopt(value)
            witness.catch(caught.value)
            witness.meet(supervisor.tasks, supervisor.snapshot())
            assert set(supervisor.tasks) == {other.id}
        asked = [seen.path for seen in emulator.requests if seen.route not in {"create", "list"}]
        if asked:
            assert segments(asked) == [[value]]
        assert emulator.state()["requests"].get("unknown", 0) == 0
        assert emulator.state()["deletes_received"] == 0
        assert emulator.live == 1


class Hostile:
    """A server that hands out one id, and writes down what it is asked for."""

    def __init__(self, task_id: object) -> None:
        self._id = task_id
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path))
        await request.read()
        if request.method == "DELETE":
            data: object = {"message": "Task cancelled"}
        elif request.method == "GET" and request.raw_path.startswith("/api/v1/tasks?"):
            data = []
        else:
            data = {"id": self._id, "status": "running"}
        return web.json_response({"success": True, "data": data})


class Server:
    """A listening socket with a handler."""

    def __init__(self, handler: Any, host: str = "127.0.0.1") -> None:
        self._runner = web.ServerRunner(
            web.Server(handler, access_log=None, max_line_size=2**16), shutdown_timeout=0.1
        )
        self._host = host

    async def __aenter__(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, 0).start()
        port = self._runner.addresses[0][1]
        return (
            f"http://[{self._host}]:{port}" if ":" in self._host else f"http://{self._host}:{port}"
        )

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


@pytest.mark.parametrize("value", [*TEXT, None, 7, ["list"], {"a": 1}], ids=short)
async def test_ids_that_a_server_hands_out(value: Any, in_a_hurry: None, witness: Witness) -> None:
    """An id from a create is DELETEd as exactly that id; one that cannot be an id is an error."""
    hostile = Hostile(value)
    possible = isinstance(value, str) and value not in {"", ".", ".."} and max(value) < "\ud800"
    async with Server(hostile) as url:
        supervisor = Supervisor(
            api_key=KEY,
            base_url=url,
            create_timeout=5.0 if possible else 0.5,  # and then it is looked for
            grace=1.0,
            policy=TaskPolicy(cancel_wait=0.2),
            registry=witness.registry,
        )
        async with supervisor:
            try:
                task = await supervisor.start("m")
            except ProtocolError as error:
                witness.catch(error)
                assert not possible
            else:
                assert value not in REFUSED
                assert task.id == value
                witness.meet(task, await task.cancel())
        report = await supervisor.shutdown()
        witness.meet(report, *report.unconfirmed)
    gone = [path for method, path in hostile.asked if method == "DELETE"]
    others = [path for method, path in hostile.asked if method != "DELETE"]
    assert {path.partition("?")[0] for path in others} == {"/api/v1/tasks"}
    if gone:
        assert segments(gone) == [[value]]
    # One log line is one line, whatever is in the id.
    for line in witness.lines:
        assert line.startswith("{"), line


def test_the_check_sees_an_id_that_leaks() -> None:
    """Negative control: an id that was pasted into a path is not one segment."""
    for value in ("a/b", "../x", "a?b", "a b"):
        try:
            found = segments([f"/api/v1/tasks/{value}"])
        except AssertionError:
            continue
        assert found != [[value]], value
