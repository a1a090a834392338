"""The admin page: what it shows and does."""

from __future__ import annotations

import re

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from sigmic_guard import State, TaskCancelled
from sigmic_guard.integrations.admin import admin_app, app
from sigmic_guard.integrations.admin.listing import PAGE
from sigmic_guard.integrations.asgi import Guard
from sigmic_guard.testing import HANG, FakeSigmic
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.integrations.browser import TOKEN, Answer, Browser, door, logged_in, make_page, page_of
from tests.supervisor.lab import FORBIDDEN, Lab

__all__ = ["door"]

pytestmark = pytest.mark.usefixtures("door")
virtual = pytest.mark.backends(TRIO_VIRTUAL)


@pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)
async def test_a_task_is_listed_and_explained_and_cancelled() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("the message", timeout=100, key="the-key")
        browser = await logged_in(supervisor)
        listed = await browser.get()
        assert listed.status == 200
        assert {task.id, "running", "in 1m"} <= set(re.findall(r"in 1m|[\w-]+", listed.text))
        assert f"Cancel task {task.id}" in listed.html

        one = await browser.get("/task?task=" + task.record.intent_id)
        assert one.status == 200
        assert "it exists, and costs money" in one.text
        assert "the create went out to" in one.text
        for shown in (listed, one):
            assert "the message" not in shown.html
            assert "the-key" not in shown.html

        done = await browser.post("/cancel", **listed.fields("cancel"))
        after = await browser.follow(done)
        assert f"Task {task.id}: cancelled; the API has acknowledged it." in after.text
        assert "There are no tasks here." in after.text
        assert (await browser.get("/task?task=" + task.record.intent_id)).status == 404
    assert lab.finished == {("cancelled", "user"): 1}


@virtual
async def test_a_block_whose_task_is_cancelled_here_learns_why() -> None:
    async with Lab().open() as supervisor:
        browser = await logged_in(supervisor)
        with pytest.raises(TaskCancelled) as caught:
            async with supervisor.task("m"):
                fields = (await browser.get()).fields("cancel")
                await browser.post("/cancel", **fields)
                await anyio.sleep(1)
        assert caught.value.reason == "user"


@virtual
async def test_a_cancel_without_an_answer_is_waited_for_a_second_and_says_so() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        lab.fake.on("delete", HANG)
        await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        began = anyio.current_time()
        done = await browser.post("/cancel", **fields)
        assert anyio.current_time() - began == pytest.approx(app.CANCEL_SECONDS)
        after = await browser.follow(done)
        assert "no proof of its end yet" in after.text
        assert 'action="cancel"' not in after.html  # it is under way


@virtual
async def test_a_task_that_waits_for_capacity_can_be_cancelled() -> None:
    lab = Lab()

    async def waits() -> None:
        with pytest.raises(TaskCancelled):
            await supervisor.start("waits")

    async with lab.open(max_tasks=1) as supervisor, anyio.create_task_group() as group:
        await supervisor.start("m")
        group.start_soon(waits)
        await anyio.sleep(1)
        browser = await logged_in(supervisor)
        fields = (await browser.get("/?state=intent")).fields("cancel")
        after = await browser.follow(await browser.post("/cancel", **fields))
        assert "it was never created" in after.text
    assert lab.fake.count("create") == 1


@virtual
async def test_a_task_that_ended_meanwhile_is_said_to_have() -> None:
    lab = Lab(duration=1)
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get()).fields("cancel")
        await task.wait()
        after = await browser.follow(await browser.post("/cancel", **fields))
        assert "It is not live in this process any more; nothing was done." in after.text
        assert lab.deletes() == 0


@virtual
async def test_what_came_of_a_cancel_is_believed_of_this_session_only() -> None:
    """A link cannot make the page claim something."""
    async with Lab().open() as supervisor:
        await supervisor.start("m")
        browser, other = await logged_in(supervisor), await logged_in(supervisor)
        done = await browser.post("/cancel", **(await browser.get()).fields("cancel"))
        assert "autofocus>Task" in (await browser.follow(done)).html
        assert 'role="status"' not in (await other.follow(done)).html
        forged = done.headers["location"][1:].replace("acknowledged", "confirmed")
        assert 'role="status"' not in (await browser.get(forged)).html


@virtual
async def test_many_tasks_are_counted_first_and_shown_by_pages() -> None:
    lab = Lab()
    lab.fake.always("list", HANG)
    count = 2 * PAGE + 30
    async with lab.open() as supervisor:
        tasks = [await supervisor.start("m") for _ in range(count)]
        lab.fake.on("delete", *[HANG] * 3)
        for task in tasks[:3]:
            task.request_cancel()
        await anyio.wait_all_tasks_blocked()
        browser = await logged_in(supervisor)
        first = await browser.get()
        assert f"all {count}" in first.text
        assert f"running {count - 3}" in first.text
        assert "cancelling 3" in first.text
        assert first.html.count("<tr>") == 1 + PAGE
        assert "Previous" not in first.html
        last = await browser.get("/?page=3")
        assert f"201 to {count} of {count} tasks" in last.text
        assert last.html.count("<tr>") == 1 + 30
        assert "Next" not in last.html
        few = await browser.get("/?state=cancelling")
        assert few.html.count("<tr>") == 1 + 3
        assert "1 to 3 of 3 tasks that are cancelling" in few.text
        assert 'aria-label="Pages"' not in few.html
        beyond = await browser.get("/?page=99999999")
        assert "page=3" in beyond.html
        for odd in ("page=-1", "page=x", "page=0", "page=%C2%B2", "state=none", "page=" + "9" * 99):
            assert "1 to 100" in (await browser.get("/?" + odd)).text


@virtual
async def test_after_a_cancel_one_is_where_one_was() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        for _ in range(PAGE + 2):
            await supervisor.start("m")
        browser = await logged_in(supervisor)
        fields = (await browser.get("/?state=running&page=2")).fields("cancel")
        after = await browser.follow(await browser.post("/cancel", **fields))
        assert "101 to 101 of 101 tasks that are running" in after.text


@virtual
async def test_a_task_whose_end_has_no_proof_can_be_asked_about_again() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        lab.fake.on("delete", FORBIDDEN)
        task = await supervisor.start("m")
        await task.cancel()
        assert task.state is State.UNCONFIRMED
        browser = await logged_in(supervisor)
        listed = await browser.get()
        assert f"Ask again task {task.id}" in listed.html
        after = await browser.follow(await browser.post("/cancel", **listed.fields("cancel")))
        assert "cancelled; the API has acknowledged it" in after.text


def test_mounted_in_fastapi_beside_the_guard_s_own_requests() -> None:
    """As people write it: a redirect to the mount, a log-in, a cancel, and nothing left."""
    fake = FakeSigmic()
    guard = Guard(client=fake, ledger="memory:", registry=CollectorRegistry())
    service = FastAPI(lifespan=guard.lifespan)
    service.mount("/admin", admin_app(guard, token=TOKEN))
    guard.install(service)

    @service.get("/start")
    async def start() -> str:
        return (await guard.supervisor.start("m")).id

    with TestClient(service, base_url="https://testserver") as client:
        task_id = client.get("/start").json()
        assert client.get("/admin").status_code == 401  # at the form, past the redirect
        page = client.post("/admin/login", data={"token": TOKEN})
        assert page.url.path == "/admin/"
        assert task_id in page.text
        fields = Answer(200, {}, page.content).fields("cancel")
        page = client.post("/admin/cancel", data=fields)
        assert "the API has acknowledged it" in page.text
        assert not fake.live


# --- where there is no supervisor -----------------------------------------------------------------


async def test_a_supervisor_that_is_not_open_is_said_to_be_none() -> None:
    lab = Lab()
    never = await logged_in(lab.make())
    guard = Browser(make_page(Guard(client=lab.fake, ledger="memory:")))
    await guard.log_in(TOKEN)
    for browser in (never, guard):
        for path in ("/", "/task?task=i"):
            answer = await browser.get(path)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "2"
            assert "The supervisor is not running" in answer.text
    assert (await page_of(lab.make()).get()).status == 401  # and only who may know is told


@virtual
async def test_while_it_drains_the_page_says_so_and_has_no_buttons() -> None:
    lab = Lab()
    async with lab.open() as supervisor:
        await supervisor.start("m")
        browser = await logged_in(supervisor)
        before = await browser.get()
        assert "shutting down" not in before.text
        supervisor.request_shutdown()
        page = await browser.get()
        assert "running 1" in page.text  # the drain has not come to it yet
        assert "The supervisor is shutting down" in page.text
        assert 'action="cancel"' not in page.html
        after = await browser.follow(await browser.post("/cancel", **before.fields("cancel")))
        assert "nothing was done; the supervisor is shutting down" in after.text.lower()
    assert {reason for _, reason in lab.finished} == {"shutdown"}
