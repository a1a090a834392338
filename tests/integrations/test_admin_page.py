"""The admin page in a real browser, by its keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from aiohttp import web

from sigmic_guard.integrations import aiohttp_web
from sigmic_guard.integrations.admin import admin_subapp
from sigmic_guard.testing import HANG, FakeSigmic
from tests.examples.chromium import Browser, Tab, chromium
from tests.integrations.browser import TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sigmic_guard import RemoteTask, Supervisor

pytestmark = pytest.mark.slow

PHONE: Final = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
HEADING: Final = "document.querySelector('h1').textContent"
TEXT: Final = "document.body.innerText"
HOSTILE: Final = "<script>alert(1)</script>" + "x" * 200


class Service(NamedTuple):
    fake: FakeSigmic
    supervisor: Supervisor
    address: str


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with the page, and no task yet."""
    fake, app = FakeSigmic(), web.Application()
    aiohttp_web.setup(app, client=fake, ledger="memory:", registry=None, grace=1)
    app.add_subapp("/admin/tasks", admin_subapp(token=TOKEN))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        supervisor = app[aiohttp_web._HOST].find()
        yield Service(fake, supervisor, f"http://127.0.0.1:{port}/admin/tasks/")
    finally:
        await runner.cleanup()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture
async def tab(browser: Browser, service: Service) -> AsyncIterator[Tab]:
    async with browser.open(service.address) as found:
        yield found


async def until(tab: Tab, expression: str) -> None:
    """Wait for what may be true of the next page only: what is asked of this one dies with it."""
    for _ in range(20):
        try:
            await tab.until(f"document.readyState === 'complete' && {expression}")
        except AssertionError:
            continue
        return
    raise AssertionError(expression)


async def log_in(tab: Tab, token: str = TOKEN) -> None:
    await tab.run("document.getElementById('token').focus()")
    await tab.call("Input.insertText", text=token)
    await tab.key("Enter", "\r")


async def listed(tab: Tab, task: RemoteTask) -> str:
    """What the row of a task says; empty where there is none."""
    rows = "[...document.querySelectorAll('tbody tr')]"
    found = await tab.run(f"{rows}.find((row) => row.innerText.includes('{task.id}'))?.innerText")
    return str(found or "")


async def test_list_explain_and_cancel(service: Service, tab: Tab) -> None:
    """A wrong token is told; then from the list to a task, to its button, to what came of it."""
    task, other = [await service.supervisor.start("m", timeout=100) for _ in range(2)]
    await log_in(tab, "not-the-token-of-it")
    await until(tab, "document.querySelector('[role=alert]') !== null")
    await log_in(tab)
    await until(tab, f"{HEADING} === 'Live tasks' && document.querySelector('table') !== null")
    assert "running" in await listed(tab, task)

    await tab.press("tbody a")
    await until(tab, f"{HEADING} === 'Task {task.id}'")
    assert "the create went out to" in await tab.run(TEXT)
    await tab.press("main button")
    await until(tab, "document.querySelector('[role=status][autofocus]') !== null")
    assert f"Task {task.id}: cancelled; the API has acknowledged it." in await tab.run(TEXT)
    assert await listed(tab, task) == ""
    assert service.fake.live == {other.id}

    service.fake.always("delete", HANG)
    await tab.press("tbody button")
    await until(tab, f"{TEXT}.includes('no proof of its end yet')")
    row = await listed(tab, other)
    assert "cancelling" in row
    assert "user" in row
    assert await tab.run("document.querySelector('tbody button') === null")
    service.fake.clear_faults()


async def test_a_form_without_its_signature_cancels_nothing(service: Service, tab: Tab) -> None:
    task = await service.supervisor.start("m")
    await log_in(tab)
    await until(tab, "document.querySelector('tbody button') !== null")
    await tab.run("document.querySelector('tbody [name=csrf]').remove()")
    await tab.press("tbody button")
    await until(tab, f"{HEADING} === 'Forbidden'")
    assert task.reason is None
    assert service.fake.live == {task.id}


async def test_a_phone_and_a_screen_reader(service: Service, tab: Tab) -> None:
    """Nothing is wider than the phone, whatever an id is; the table is one; all have names."""
    tasks = [await service.supervisor.start("m", timeout=100) for _ in range(3)]
    entry = tasks[0]._entry
    record = entry.record
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    entry.record = type(record)(**fields | {"remote_id": HOSTILE})
    try:
        await tab.call("Emulation.setDeviceMetricsOverride", **PHONE)
        await log_in(tab)
        await until(tab, "document.querySelector('table') !== null")
        assert await tab.run("document.documentElement.scrollWidth") == 390
        assert await tab.run("document.querySelector('.scroll').scrollWidth") <= 390
        assert await tab.run("document.scripts.length") == 0
        tree = await tab.call("Accessibility.getFullAXTree")
        nodes = [(n["role"]["value"], n["name"]["value"]) for n in tree["nodes"] if "name" in n]
        roles = [role for role, _ in nodes]
        assert {"table", "columnheader", "rowheader", "cell"} <= set(roles)
        assert roles.count("rowheader") == 3
        buttons = [name for role, name in nodes if role == "button"]
        assert f"Cancel task {tasks[1].id}" in buttons
        assert all(buttons)
    finally:
        entry.record = record
