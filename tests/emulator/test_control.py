"""Steering the emulator: from Python, over HTTP, and as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.emulator.__main__ import main

if TYPE_CHECKING:
    from tests.emulator.conftest import Api, Start

TASKS = "/api/v1/tasks"


# --- what it knows --------------------------------------------------------------------------------


async def test_state(api: Api) -> None:
    """The state counts tasks by status and requests by route, and names the live ones."""
    first, second, third = [await api.create(message) for message in ("a", "b", "b")]
    api.emulator.complete(first)
    await api.cancel(second)
    await api.call("GET", f"{TASKS}/nobody")
    await api.call("GET", "/nowhere")
    state = api.emulator.state()
    assert state == {
        "tasks": {
            "total": 3,
            "live": 1,
            "pending": 0,
            "running": 1,
            "awaiting_approval": 0,
            "completed": 1,
            "failed": 0,
            "cancelled": 1,
        },
        "live_ids": [third],
        "requests": {"create": 3, "delete": 1, "get": 1, "unknown": 1},
        "created": 3,
        "deletes_received": 1,
        "duplicates": {"b": 2},
    }
    assert await api.call("GET", "/_emulator/state") == (200, state)
    _, full = await api.call("GET", "/_emulator/state?full=1")
    assert [task["id"] for task in full["all"]] == [first, second, third]


async def test_request_log(api: Api) -> None:
    """The log has every request with the path as sent, and counts by method, route and resource."""
    task_id = await api.create()
    await api.cancel(task_id)
    await api.call("GET", f"{TASKS}?limit=1")
    create, delete, listed = api.emulator.requests
    assert (create.method, create.route, create.task_id, create.status) == (
        "POST",
        "create",
        task_id,
        200,
    )
    assert (delete.path, delete.resource, delete.task_id) == (f"{TASKS}/{task_id}", "task", task_id)
    assert listed.path == f"{TASKS}?limit=1"
    assert create.at <= delete.at <= listed.at
    count = api.emulator.count
    assert (count(), count("DELETE"), count("DELETE", "task"), count(route="delete")) == (
        3,
        1,
        1,
        1,
    )
    assert (count("GET", "task"), count(route="tasks")) == (0, 2)


async def test_wait_for_says_what_it_saw(api: Api) -> None:
    """Waiting for what does not come is a TimeoutError that has the state in it."""
    with pytest.raises(TimeoutError, match="live_ids"):
        await api.emulator.wait_for(lambda _: False, timeout=0.01)


# --- scripts --------------------------------------------------------------------------------------


async def test_the_most_particular_script_wins(start: Start) -> None:
    """The env's script wins over the message's, that over a predicate's, that over the default."""
    async with start(script=Script(duration=0, chunks=("default",))) as api:
        emulator = api.emulator
        emulator.script_for("exactly", Script(duration=0, chunks=("exact",)))
        emulator.script_for(lambda text: "x" in text, Script(duration=0, chunks=("predicate",)))
        env = {"EMULATOR_SCRIPT": json.dumps({"duration": 0, "chunks": ["env"]})}
        said = [
            (await api.get(await api.create("plain")))["output"]["content"],
            (await api.get(await api.create("a box")))["output"]["content"],
            (await api.get(await api.create("exactly")))["output"]["content"],
            (await api.get(await api.create("exactly", env=env)))["output"]["content"],
        ]
    assert said == ["default", "predicate", "exact", "env"]


async def test_pushing(start: Start) -> None:
    """A pending or waiting task can be pushed to its end; an unknown one is a KeyError."""
    async with start(script=Script(duration=0, approval="deploy")) as api:
        waiting = await api.create()
        pending = await api.create(env={"EMULATOR_SCRIPT": '{"pending": 60}'})
        assert api.emulator.complete(waiting, "done")
        assert api.emulator.fail(pending, "no")
        assert (await api.get(waiting))["output"]["content"] == "done"
        assert (await api.get(pending))["error"] == "no"
        with pytest.raises(KeyError):
            api.emulator.cancel("nobody")


# --- over HTTP ------------------------------------------------------------------------------------


async def test_faults_over_http(api: Api) -> None:
    """Faults are set and cleared over HTTP, with no credential."""
    fault = {"route": "list", "kind": "status", "status": 503}
    async with aiohttp.ClientSession(api.emulator.url) as bare:
        async with bare.post("/_emulator/faults", json=fault) as response:
            assert response.status == 200
        assert (await api.call("GET", TASKS))[0] == 503
        async with bare.delete("/_emulator/faults?route=get") as response:
            assert response.status == 200
        assert (await api.call("GET", TASKS))[0] == 503
        async with bare.delete("/_emulator/faults") as response:
            assert response.status == 200
        assert (await api.call("GET", TASKS))[0] == 200


async def test_script_and_reset_over_http(api: Api) -> None:
    """The default script is set over HTTP; a reset forgets it, and everything else."""
    script = {"duration": 0, "chunks": ["other"]}
    assert (await api.call("POST", "/_emulator/script", json=script))[0] == 200
    assert (await api.get(await api.create()))["output"]["content"] == "other"
    api.emulator.fault("create", Fault("empty"))
    assert (await api.call("POST", "/_emulator/reset"))[0] == 200
    assert api.emulator.state()["tasks"]["total"] == 0
    assert (api.emulator.state()["requests"], len(api.emulator.requests)) == ({}, 0)
    assert (await api.get(await api.create()))["status"] == "running"


@pytest.mark.parametrize(
    "method, path, body, status",
    [
        ("POST", "faults", '{"kind": "earthquake"}', 400),
        ("POST", "faults", '{"kind": "empty", "surprise": 1}', 400),
        ("POST", "faults", '{"kind": "empty", "route": "nowhere"}', 400),
        ("POST", "faults", "{", 400),
        ("POST", "script", '{"duration": "long"}', 400),
        ("GET", "reset", "", 405),
        ("GET", "nothing", "", 404),
    ],
)
async def test_wrong_control_requests(
    api: Api, method: str, path: str, body: str, status: int
) -> None:
    """A control request that is wrong says so in the failure envelope."""
    found, answer = await api.call(method, f"/_emulator/{path}", data=body)
    assert (found, answer["success"]) == (status, False)


# --- life -----------------------------------------------------------------------------------------


async def test_a_port_can_be_taken_again(start: Start) -> None:
    """An emulator can be started on the port that another just left, and not on one in use."""
    async with start() as api:
        port = int(api.emulator.url.rpartition(":")[2])
        await api.create()
        with pytest.raises(OSError, match="in use"):
            async with Emulator(port=port):
                raise AssertionError
    async with start(port=port) as api:
        await api.create()


def test_options_are_validated() -> None:
    """An option that is none is refused when the emulator is made."""
    with pytest.raises(ValueError, match="heartbeat"):
        Emulator(heartbeat=0)
    with pytest.raises(ValueError, match="delete_finished"):
        Emulator(delete_finished="perhaps")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lag"):
        Emulator(read_lag=-1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_as_a_process(number: signal.Signals) -> None:
    """The process prints its URL and how to use it, serves, and exits with 0 upon a signal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sigmic_guard.emulator", "--port", "0", "--script", '{"hold": true}'),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    line = (await process.stdout.readline()).decode()
    assert line.startswith("listening on http://127.0.0.1:")
    url = line.split()[-1]
    exports = [(await process.stdout.readline()).decode().strip() for _ in range(2)]
    assert exports == [f"export SIGMIC_BASE_URL={url}", "export SIGMIC_API_KEY=sigmic_emulator"]
    headers = {"Authorization": "Bearer sigmic_test"}
    async with aiohttp.ClientSession(url, headers=headers) as client:
        async with client.post(TASKS, json={"message": "m"}) as response:
            task_id = (await response.json())["data"]["id"]
        async with client.get(f"{TASKS}/{task_id}/stream") as stream:
            await stream.content.readline()
            process.send_signal(number)
            await stream.read()
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 0


@pytest.mark.parametrize(
    "options, says",
    [
        (("--script", '{"duration": "x"}'), "`$.duration`"),
        (("--script", '{"durations": 1}'), "no field durations"),
        (("--script", '{"duration": -1}'), "Script.duration is a finite number"),
        (("--script", "nonsense"), "JSON is malformed"),
    ],
)
def test_a_process_that_cannot_begin(
    options: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says why in one line, with the name of what is wrong."""
    monkeypatch.setattr(sys, "argv", ["emulator", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_port_that_is_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["emulator", "--port", str(port)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 3
    [line] = capsys.readouterr().err.splitlines()
    assert f"port {port} of 127.0.0.1 is in use: give another --port" in line
