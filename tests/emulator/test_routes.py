"""What each route answers, faults aside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sigmic_guard.emulator import Script, bodies

if TYPE_CHECKING:
    from tests.emulator.conftest import Api, Start

TASKS = "/api/v1/tasks"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def code(body: Any) -> str:
    assert body["success"] is False
    assert body["error"]["message"]
    return str(body["error"]["code"])


def form(*parts: tuple[str, str | bytes]) -> aiohttp.FormData:
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in parts:
        if isinstance(value, bytes):
            data.add_field(name, value, filename="f.bin")
        else:
            data.add_field(name, value)
    return data


# --- create -------------------------------------------------------------------------------------


async def test_create_answers_at_once(api: Api) -> None:
    """A create answers with an id and `pending`, within the success envelope."""
    status, body = await api.call("POST", TASKS, json={"message": "hello"})
    (task_id,) = api.emulator.tasks
    assert (status, body) == (200, {"success": True, "data": {"id": task_id, "status": "pending"}})


async def test_create_multipart(api: Api) -> None:
    """A multipart create keeps every field, and of each file its name and size."""
    data = form(
        ("message", "hello"),
        ("systemPrompt", "be brief"),
        ("showInHistory", "false"),
        ("autoExecute", "false"),
        ("files", b"x" * 100_000),
        ("files", b""),
    )
    _, body = await api.call("POST", TASKS, data=data)
    task = api.emulator.tasks[body["data"]["id"]]
    assert task.draft.files == (("f.bin", 100_000), ("f.bin", 0))
    shown = await api.get(task.id)
    assert shown["systemPrompt"] == "be brief"
    assert (shown["showInHistory"], shown["autoExecute"]) == (False, False)


async def test_create_env_is_returned_and_secrets_are_not(api: Api) -> None:
    """GET and list give the env back; the secrets are nowhere."""
    await api.create(env={"A": "1"}, secrets={"TOKEN": "hush"})
    _, listed = await api.call("GET", TASKS)
    assert listed["data"][0]["env"] == {"A": "1"}
    _, state = await api.call("GET", "/_emulator/state?full=1")
    assert "hush" not in str((listed, state))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": ""},
        {"message": 1},
        {"message": "m", "env": {"1A": "x"}},
        {"message": "m", "secrets": {"A-B": "x"}},
        {"message": "m", "env": {"A": 1}},
        {"message": "m", "autoExecute": "yes"},
        {"message": "m", "env": {"A": "1"}, "files": []},
        {"message": "m", "env": {"EMULATOR_SCRIPT": "{"}},
        {"message": "m", "env": {"EMULATOR_SCRIPT": '{"duration": -1}'}},
        {"message": "m", "env": {"EMULATOR_SCRIPT": '{"surprise": 1}'}},
    ],
)
async def test_create_refuses_wrong_json(api: Api, body: Any) -> None:
    """A wrong field of a JSON create is a VALIDATION_ERROR, and no task is made."""
    status, answer = await api.call("POST", TASKS, json=body)
    assert (status, code(answer)) == (400, "VALIDATION_ERROR")
    assert not api.emulator.tasks


@pytest.mark.parametrize(
    "parts",
    [
        [("systemPrompt", "no message")],
        [("message", "m"), ("showInHistory", "maybe")],
        [("message", "m"), ("env", "{}")],
        [("message", "m"), *[("files", b"")] * 21],
    ],
)
async def test_create_refuses_wrong_multipart(api: Api, parts: Any) -> None:
    """A wrong field of a multipart create, or too many files, is a VALIDATION_ERROR."""
    status, answer = await api.call("POST", TASKS, data=form(*parts))
    assert (status, code(answer)) == (400, "VALIDATION_ERROR")
    assert not api.emulator.tasks


async def test_create_refuses_too_large_a_file(api: Api, monkeypatch: Any) -> None:
    """A file over the limit is refused, and the connection survives the rest of the upload."""
    monkeypatch.setattr(bodies, "MAX_FILE_SIZE", 200_000)
    data = form(("message", "m"), ("files", b"x" * 1_000_000))
    status, answer = await api.call("POST", TASKS, data=data)
    assert (status, code(answer)) == (400, "VALIDATION_ERROR")
    await api.create()


@pytest.mark.parametrize(
    "kind, data",
    [
        ("text/plain", b"hello"),
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"[]"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=b", b"--x\r\n\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nbroken"),
    ],
)
async def test_create_refuses_broken_bodies(api: Api, kind: str, data: bytes) -> None:
    """A body that is not what its type says, or of another type, is a VALIDATION_ERROR."""
    headers = {"Content-Type": kind}
    status, answer = await api.call("POST", TASKS, data=data, headers=headers)
    assert (status, code(answer)) == (400, "VALIDATION_ERROR")


# --- read ---------------------------------------------------------------------------------------


async def test_get_shows_every_field(start: Start) -> None:
    """A completed task has every documented field, its timestamps in milliseconds with a Z."""
    async with start(script=Script(duration=0, thoughts=("hm",), tool_calls=("grep",))) as api:
        task_id = await api.create("question")
        task = await api.get(task_id)
        assert task["status"] == "completed"
        assert task["output"]["content"] == "Hello world"
        assert task["output"]["thoughts"] == ["hm"]
        assert [call["toolName"] for call in task["output"]["toolCalls"]] == ["grep"]
        for name in ("createdAt", "startedAt", "completedAt"):
            assert TIMESTAMP.fullmatch(task[name])
        assert TIMESTAMP.fullmatch(task["output"]["updatedAt"])
        assert task["error"] is None
        assert "pendingApprovals" not in task
        assert {"apiKeyId", "username", "sessionId", "conversationId"} <= task.keys()


async def test_pending_task_has_no_output(start: Start) -> None:
    """A task that has not started has neither output nor startedAt."""
    async with start(script=Script(pending=60)) as api:
        task = await api.get(await api.create())
        assert (task["status"], task["startedAt"]) == ("pending", None)
        assert "output" not in task


async def test_failed_task_says_why(start: Start) -> None:
    """A task that fails has its error and is no longer live."""
    async with start(script=Script(duration=0, fail="out of memory")) as api:
        task = await api.get(await api.create())
        assert (task["status"], task["error"]) == ("failed", "out of memory")
        assert task["completedAt"]
        assert api.emulator.live == 0


async def test_time_alone_takes_a_task_through(start: Start) -> None:
    """Waiters wake as the clock takes a task from pending by running to completed."""
    async with start(script=Script(pending=0.02, duration=0.02)) as api:
        task_id = await api.create()
        await api.emulator.wait_for(lambda state: state["tasks"]["running"] == 1)
        await api.emulator.wait_for(lambda state: state["tasks"]["completed"] == 1)
        task = api.emulator.tasks[task_id]
        assert task.started_at is not None
        assert task.completed_at is not None
        assert task.started_at - task.created_at == pytest.approx(0.02, abs=1e-6)
        assert task.completed_at - task.started_at == pytest.approx(0.02, abs=1e-6)


@pytest.mark.parametrize("path", ["", "/nobody", "/stream", "/a%2Fb", "/%20", "/x/stream"])
async def test_unknown_things_are_not_found(api: Api, path: str) -> None:
    """An unknown id, or route, is a NOT_FOUND in the envelope."""
    target = f"{TASKS}{path}" if path else "/api/v1/nothing"
    status, body = await api.call("GET", target)
    assert (status, code(body)) == (404, "NOT_FOUND")


async def test_wrong_method(api: Api) -> None:
    """A known path with a method it does not know is a 405."""
    status, body = await api.call("PUT", TASKS)
    assert (status, code(body)) == (405, "METHOD_NOT_ALLOWED")


async def test_an_id_is_one_decoded_segment(api: Api) -> None:
    """An id is found however it is percent-encoded, and the log keeps the path as it was sent."""
    task_id = await api.create()
    path = f"{TASKS}/%{ord(task_id[0]):02X}{task_id[1:]}"
    status, body = await api.call("GET", path)
    assert (status, body["data"]["id"]) == (200, task_id)
    assert api.emulator.requests[-1].path == path
    assert api.emulator.requests[-1].task_id == task_id


# --- list ---------------------------------------------------------------------------------------


async def test_list_pages_by_latest_activity(api: Api) -> None:
    """The list has the most recently active first, in pages that say whether more follow."""
    first, second, third = [await api.create(str(n)) for n in range(3)]
    await api.cancel(first)
    _, body = await api.call("GET", f"{TASKS}?limit=2")
    assert [task["id"] for task in body["data"]] == [first, third]
    assert body["pagination"] == {"total": 3, "limit": 2, "offset": 0, "hasMore": True}
    _, body = await api.call("GET", f"{TASKS}?limit=2&offset=2")
    assert [task["id"] for task in body["data"]] == [second]
    assert body["pagination"] == {"total": 3, "limit": 2, "offset": 2, "hasMore": False}
    (task,) = body["data"]
    assert TIMESTAMP.fullmatch(task["lastActivityAt"])
    assert task["messageCount"] == 1
    assert "output" not in task


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "offset=-1", "limit="])
async def test_list_refuses_wrong_parameters(api: Api, query: str) -> None:
    """A limit or offset out of range is a VALIDATION_ERROR."""
    status, body = await api.call("GET", f"{TASKS}?{query}")
    assert (status, code(body)) == (400, "VALIDATION_ERROR")


# --- credentials --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers, problem",
    [
        ({}, "AUTH_REQUIRED"),
        ({"Authorization": "Bearer "}, "AUTH_REQUIRED"),
        ({"Authorization": "Basic c2lnbWlj"}, "INVALID_AUTH_FORMAT"),
        ({"Authorization": "Bearer password"}, "INVALID_AUTH_FORMAT"),
        ({"X-API-Key": "password"}, "INVALID_AUTH_FORMAT"),
        ({"Authorization": "Bearer sigmic_"}, "INVALID_API_KEY"),
        ({"Authorization": "Bearer sigmic_other"}, "INVALID_API_KEY"),
        ({"Authorization": "Bearer eyJother"}, "INVALID_TOKEN"),
        ({"Authorization": "Bearer sigmic_right"}, None),
        ({"X-API-Key": "sigmic_right"}, None),
    ],
)
async def test_credentials(start: Start, headers: dict[str, str], problem: str | None) -> None:
    """Each way of a credential being wrong has its code, always 401; both headers carry one."""
    async with start(api_key="sigmic_right") as api, aiohttp.ClientSession() as bare:
        async with bare.get(api.emulator.url + TASKS, headers=headers) as response:
            body = await response.json()
        assert (response.status, None if body["success"] else code(body)) == (
            401 if problem else 200,
            problem,
        )


async def test_any_well_formed_credential_will_do(start: Start) -> None:
    """Without a key of its own the emulator accepts API keys and tokens alike."""
    for credential in ("sigmic_any", "eyJany"):
        async with start(credential) as api:
            await api.create()


async def test_tasks_belong_to_their_credential(api: Api) -> None:
    """Another credential neither finds nor lists a task."""
    task_id = await api.create()
    other = {"Authorization": "Bearer sigmic_other"}
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/stream")]:
        status, body = await api.call(method, f"{TASKS}/{task_id}{path}", headers=other)
        assert (status, code(body)) == (404, "NOT_FOUND")
    _, body = await api.call("GET", TASKS, headers=other)
    assert (body["data"], body["pagination"]["total"]) == ([], 0)


# --- cancel -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [Script(pending=60), Script(hold=True), Script(duration=0, approval="deploy")],
)
async def test_delete_cancels_a_live_task(start: Start, script: Script) -> None:
    """A pending, running or waiting task becomes cancelled, with completedAt and no error."""
    async with start(script=script) as api:
        task_id = await api.create()
        status, body = await api.cancel(task_id)
        assert (status, body) == (200, {"success": True, "data": {"message": "Task cancelled"}})
        task = await api.get(task_id)
        assert (task["status"], task["error"]) == ("cancelled", None)
        assert TIMESTAMP.fullmatch(task["completedAt"])


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize(
    "option, answered, told",
    [
        ("conflict", 409, "VALIDATION_ERROR"),
        ("ok", 200, "Task already finished"),
        ("lie", 200, "Task cancelled"),
        ("not_found", 404, "NOT_FOUND"),
    ],
)
async def test_delete_of_an_ended_task(
    start: Start, status: str, option: str, answered: int, told: str
) -> None:
    """What DELETE says of a task that has ended is an option; the task stays as it was."""
    async with start(script=Script(hold=True), delete_finished=option) as api:
        task_id = await api.create()
        push = {
            "completed": api.emulator.complete,
            "failed": lambda task: api.emulator.fail(task, "no"),
            "cancelled": api.emulator.cancel,
        }[status]
        assert push(task_id)
        assert not push(task_id)
        found, body = await api.cancel(task_id)
        assert found == answered
        assert told == (body["data"]["message"] if answered == 200 else code(body))
        assert (await api.get(task_id))["status"] == status


# --- follow-up and approval ---------------------------------------------------------------------


async def test_follow_up_takes_a_completed_task_back(start: Start) -> None:
    """A message to a completed task makes it run again, and its reply becomes its output."""
    async with start(script=Script(duration=0.01, follow_up=("Four",))) as api:
        task_id = await api.create("two and two?")
        await api.emulator.wait_for(lambda state: state["tasks"]["completed"] == 1)
        task = api.emulator.tasks[task_id]
        before = task.completed_at
        path = f"{TASKS}/{task_id}/messages"
        status, body = await api.call("POST", path, json={"message": "well?"})
        assert (status, body["data"]) == (200, {"status": "running"})
        await api.emulator.wait_for(lambda _: task.completed_at not in {None, before})
        assert (await api.get(task_id))["output"]["content"] == "Four"
        assert [m.role for m in api.emulator.tasks[task_id].messages] == ["user", "assistant"] * 2


async def test_follow_up_to_a_running_task(api: Api) -> None:
    """A message to a running task is saved and the turn goes on; multipart will do as well."""
    task_id = await api.create()
    path = f"{TASKS}/{task_id}/messages"
    status, body = await api.call("POST", path, data=form(("message", "m"), ("files", b"x")))
    assert (status, body["data"]) == (200, {"status": "running"})
    assert [message.content for message in api.emulator.tasks[task_id].messages] == ["hello", "m"]


async def test_follow_up_is_refused(api: Api) -> None:
    """A cancelled task takes no message, and no task takes an empty one."""
    task_id = await api.create()
    path = f"{TASKS}/{task_id}/messages"
    for body in ({}, {"message": ""}):
        status, answer = await api.call("POST", path, json=body)
        assert (status, code(answer)) == (400, "VALIDATION_ERROR")
    await api.cancel(task_id)
    status, answer = await api.call("POST", path, json={"message": "still there?"})
    assert (status, code(answer)) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "outcome, approved, result",
    [
        ("proceed_once", True, "ok"),
        ("proceed_always", True, "ok"),
        ("cancel", False, "not approved"),
    ],
)
async def test_approval(start: Start, outcome: str, approved: bool, result: str) -> None:
    """A task that asks for a tool waits until it is told, and goes on with or without it."""
    async with start(script=Script(duration=0.01, approval="deploy")) as api:
        task_id = await api.create()
        await api.emulator.wait_for(lambda state: state["tasks"]["awaiting_approval"] == 1)
        (asked,) = (await api.get(task_id))["pendingApprovals"]
        assert asked == {"callId": "call-1", "toolName": "deploy", "args": {}}
        path = f"{TASKS}/{task_id}/tools/call-1/approve"
        status, body = await api.call("POST", path, json={"outcome": outcome})
        assert (status, body["data"]) == (200, {"approved": approved})
        await api.emulator.wait_for(lambda state: state["tasks"]["completed"] == 1)
        output = (await api.get(task_id))["output"]
        assert output["content"] == "Hello world"
        assert [call["result"] for call in output["toolCalls"]] == [result]


async def test_approval_is_refused(start: Start) -> None:
    """An outcome that is none is a VALIDATION_ERROR; a call that does not wait is NOT_FOUND."""
    async with start(script=Script(duration=0, approval="deploy")) as api:
        task_id = await api.create()
        tools = f"{TASKS}/{task_id}/tools"
        status, body = await api.call(
            "POST", f"{tools}/call-1/approve", json={"outcome": "perhaps"}
        )
        assert (status, code(body)) == (400, "VALIDATION_ERROR")
        go = {"outcome": "proceed_once"}
        status, body = await api.call("POST", f"{tools}/call-9/approve", json=go)
        assert (status, code(body)) == (404, "NOT_FOUND")
        assert (await api.call("POST", f"{tools}/call-1/approve", json=go))[0] == 200
        status, body = await api.call("POST", f"{tools}/call-1/approve", json=go)
        assert (status, code(body)) == (404, "NOT_FOUND")


# --- reads that lag -------------------------------------------------------------------------------


async def test_reads_that_lag(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """GET, the list, streams and DELETE's 404 know what was known two seconds ago."""
    async with start(script=Script(hold=True), read_lag=2.0) as api:
        now = api.emulator._now()
        monkeypatch.setattr(api.emulator._service, "clock", lambda: now)
        task_id = await api.create()
        path = f"/api/v1/tasks/{task_id}"
        for method, where in (("GET", path), ("GET", f"{path}/stream"), ("DELETE", path)):
            assert (await api.call(method, where))[0] == 404
        assert (await api.call("GET", "/api/v1/tasks"))[1]["data"] == []
        now += 3
        assert (await api.get(task_id))["status"] == "running"
        api.emulator._world.complete(api.emulator.tasks[task_id], "old", now)
        assert (await api.get(task_id))["status"] == "running"
        now += 3
        status, _ = await api.call("POST", f"{path}/messages", json={"message": "again"})
        assert status == 200
        shown = await api.get(task_id)
        assert (shown["status"], shown["output"]["content"]) == ("completed", "old")
        [row] = (await api.call("GET", "/api/v1/tasks"))[1]["data"]
        assert (row["status"], row["messageCount"]) == ("completed", 2)
        assert (await api.events(task_id))[-1] == (
            "history_done",
            {"messageCount": 2, "isStreaming": False},
        )
        assert (await api.cancel(task_id))[0] == 200
        now += 3
        assert (await api.get(task_id))["status"] == "cancelled"
