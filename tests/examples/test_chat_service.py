"""The chat service, tested as users may test theirs, by fixtures of ``sigmic_guard.testing``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from chat_service.app import PAGE, app, guard
from httpx2 import ASGITransport, AsyncClient, Response

from sigmic_guard.emulator import Emulator, Fault, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytest_plugins = ["sigmic_guard.testing.plugin"]

pytestmark = pytest.mark.usefixtures("assert_no_orphans")

GO: Final = {"message": "go"}


@pytest.fixture
async def browser(
    sigmic_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncClient]:
    """The application as it is deployed, on an emulator; each test starts it, and stops it."""
    monkeypatch.setenv("SIGMIC_API_KEY", "sigmic_of_the_test")
    monkeypatch.setenv("SIGMIC_BASE_URL", sigmic_emulator.url)
    transport = ASGITransport(app)
    async with (
        guard.lifespan(app),
        AsyncClient(transport=transport, base_url="http://it") as client,
    ):
        yield client


def events(response: Response) -> list[tuple[str, Any]]:
    assert response.status_code == 200, response.text
    found = []
    for block in response.text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], json.loads(fields["data"])))
    return found


def text(response: Response) -> str:
    return "".join(data["text"] for name, data in events(response) if name == "content")


async def until(remote: Emulator, status: str) -> str:
    """Wait until one task is in that status, and return its id."""
    await remote.wait_for(lambda state: state["tasks"][status] == 1)
    return next(name for name, task in remote.tasks.items() if task.status == status)


# --- turns ----------------------------------------------------------------------------------------


async def test_a_turn_is_one_stream(browser: AsyncClient, sigmic_emulator: Emulator) -> None:
    """It begins with the task's id, tells what the agent says, and how it ended."""
    response = await browser.post("/tasks", json=GO)
    said = events(response)
    assert said[0] == ("start", {"id": next(iter(sigmic_emulator.tasks))})
    assert said[-1] == ("end", {"outcome": "completed", "reason": None})
    assert text(response) == "Hello world"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "outcome, approved, result", [("proceed_once", True, "ok"), ("cancel", False, "not approved")]
)
async def test_a_tool_call_waits_for_a_word(
    browser: AsyncClient, sigmic_emulator: Emulator, outcome: str, approved: bool, result: str
) -> None:
    """The buttons decide, and the stream tells what came of it."""
    sigmic_emulator.set_script(Script(approval="shell"))
    turns: list[Response] = []

    async def take_turn() -> None:
        turns.append(await browser.post("/tasks", json=GO))

    async with anyio.create_task_group() as group:
        group.start_soon(take_turn)
        task = await until(sigmic_emulator, "awaiting_approval")
        answer = await browser.post(f"/tasks/{task}/tools/call-1", json={"outcome": outcome})
        assert answer.json() == {"approved": approved}
    calls = [(n, d.get("status"), d.get("result")) for n, d in events(turns[0]) if "tool" in n]
    assert calls[0] == ("tool_call", "awaiting_approval", None)
    assert calls[-1] == ("tool_result", None, result)


async def test_follow_ups(browser: AsyncClient, sigmic_emulator: Emulator) -> None:
    """A task that has completed is asked again, as often as one likes."""
    await browser.post("/tasks", json=GO)
    [task] = sigmic_emulator.tasks
    for number in 1, 2:
        response = await browser.post(f"/tasks/{task}/messages", json={"message": "and then?"})
        assert text(response) == "Done."
        assert events(response)[-1] == ("end", {"outcome": "completed", "reason": None})
        assert sigmic_emulator.count("POST", "send") == number
    assert len(sigmic_emulator.tasks) == 1


@pytest.mark.parametrize("ended", ["cancel", "fail"])
async def test_what_has_ended_for_good_takes_no_follow_up(
    browser: AsyncClient, sigmic_emulator: Emulator, ended: str
) -> None:
    """Nor is anything sent to it, nor does it count as live afterwards."""
    sigmic_emulator.set_script(Script(hold=True))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: browser.post("/tasks", json=GO))
        task = await until(sigmic_emulator, "running")
        if ended == "cancel":
            await browser.delete(f"/tasks/{task}")
        else:
            sigmic_emulator.fail(task, "it broke")
    refusal = await browser.post(f"/tasks/{task}/messages", json=GO)
    assert (refusal.status_code, refusal.json()) == (
        409,
        {"detail": "That task has ended for good: start a new chat."},
    )
    assert sigmic_emulator.count("POST", "send") == 0
    assert (await browser.get("/tasks")).json() == []


# --- beside them ----------------------------------------------------------------------------------


async def test_the_panel_and_its_button(browser: AsyncClient, sigmic_emulator: Emulator) -> None:
    """What is live is listed, with its state, age and reason; its button ends it."""
    sigmic_emulator.set_script(Script(hold=True))
    sigmic_emulator.fault("delete", Fault("latency", seconds=0.5))
    turns: list[Response] = []

    async def take_turn() -> None:
        turns.append(await browser.post("/tasks", json=GO))

    async with anyio.create_task_group() as group:
        group.start_soon(take_turn)
        task = await until(sigmic_emulator, "running")
        [row] = (await browser.get("/tasks")).json()
        assert (row["id"], row["state"], row["reason"]) == (task, "running", None)
        assert row["age"] >= 0
        busy = await browser.post(f"/tasks/{task}/messages", json=GO)
        assert (busy.status_code, busy.json()) == (409, {"detail": "The task is still at work."})
        group.start_soon(lambda: browser.delete(f"/tasks/{task}"))
        await sigmic_emulator.wait_for(lambda state: state["deletes_received"])
        [row] = (await browser.get("/tasks")).json()
        assert (row["state"], row["reason"]) == ("cancelling", "user")
    assert events(turns[0])[-1] == ("end", {"outcome": "cancelled", "reason": "user"})


@pytest.mark.parametrize(
    "method, path, body, status",
    [
        ("DELETE", "/tasks/gone", None, 404),
        ("POST", "/tasks/gone/tools/call-1", {"outcome": "cancel"}, 404),
        ("POST", "/tasks/gone/messages", GO, 404),
        ("POST", "/tasks", {"message": ""}, 422),
        ("POST", "/tasks/gone/tools/call-1", {"outcome": "proceed_always"}, 422),
    ],
)
async def test_what_cannot_be_done_is_refused(
    browser: AsyncClient, method: str, path: str, body: Any, status: int
) -> None:
    """By its usual number."""
    assert (await browser.request(method, path, json=body)).status_code == status


async def test_what_the_api_refuses_is_told(
    browser: AsyncClient, sigmic_emulator: Emulator
) -> None:
    """In its words, and without a stream."""
    fault = Fault("status", code="FORBIDDEN", message="no more tasks today")
    sigmic_emulator.fault("create", fault)
    response = await browser.post("/tasks", json=GO)
    assert response.status_code == 502
    assert "no more tasks today" in response.json()["detail"]


# --- the page -------------------------------------------------------------------------------------


async def test_another_sites_page_starts_nothing(
    browser: AsyncClient, sigmic_emulator: Emulator
) -> None:
    """Browsers say where a request comes from; and a form cannot send JSON."""
    for site in "cross-site", "same-site":
        refusal = await browser.post("/tasks", json=GO, headers={"sec-fetch-site": site})
        assert refusal.status_code == 403
        assert (await browser.get("/", headers={"sec-fetch-site": site})).status_code == 200
    form = {"content-type": "text/plain"}
    assert (await browser.post("/tasks", content=json.dumps(GO), headers=form)).status_code == 422
    assert not sigmic_emulator.tasks


async def test_the_page_may_run_nothing_but_its_own_files(browser: AsyncClient) -> None:
    """A strict policy, kept: nothing inline, nothing from elsewhere, each file is there."""
    page = await browser.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?:|<script(?! src)", page.text)
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(files) == 2
    for file in files:
        assert (await browser.get(file)).status_code == 200


def test_texts_of_others_never_become_html() -> None:
    """The script has no way to make HTML of a text."""
    script = (PAGE / "chat.js").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", script
    )
