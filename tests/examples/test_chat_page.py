"""The chat's page in a real browser, by its keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sigmic_guard.emulator import Emulator, Script
from tests.examples.chromium import Browser, Tab, chromium
from tests.examples.test_chat_processes import Running, remote, service, until_live

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["remote", "service"]

pytestmark = pytest.mark.slow

LOG: Final = "document.getElementById('log').textContent"
HTML: Final = "<img src=x onerror=alert(1)><b>bold</b>"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@pytest.fixture
async def tab(browser: Browser, service: Running) -> AsyncIterator[Tab]:
    async with browser.open(f"http://127.0.0.1:{service.port}/") as found:
        yield found


async def until_said(tab: Tab, text: str) -> None:
    await tab.until(f"{LOG}.includes({text!r})")


async def until_idle(tab: Tab) -> None:
    await tab.until("!document.getElementById('send').hidden")


async def test_a_turn_with_a_tool_call_and_a_follow_up(remote: Emulator, tab: Tab) -> None:
    """Start, stream, approve, ask again; what others wrote is shown as they wrote it."""
    remote.set_script(Script(approval="shell", chunks=(HTML,), follow_up=("Because",)))
    await tab.say("Run the tests")
    await tab.until("document.querySelector('.asks') !== null")
    await tab.press(".asks .primary")
    assert await tab.run("document.activeElement.id") == "log"
    await until_idle(tab)
    await until_said(tab, HTML)
    await until_said(tab, "Result: ok")
    assert await tab.run("document.querySelector('#log img, #log b') === null")
    await tab.say("Why?")
    await until_said(tab, "Because")
    await until_idle(tab)
    assert remote.live == 0
    assert remote.state()["tasks"]["completed"] == 1


async def test_a_rejected_tool_call_on_a_phone(remote: Emulator, tab: Tab) -> None:
    """Nothing is wider than the narrowest of them, and each button has a name."""
    phone = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    await tab.call("Emulation.setDeviceMetricsOverride", **phone)
    remote.set_script(Script(approval="shell"))
    await tab.say("Run the tests")
    await tab.until("document.querySelector('.asks') !== null")
    await tab.until("document.querySelectorAll('#rows tr').length === 1")
    assert await tab.run("document.documentElement.scrollWidth") == 320
    tree = await tab.call("Accessibility.getFullAXTree")
    roles = {"button", "textbox", "switch", "log", "status", "complementary"}
    named = [(n["role"]["value"], n["name"]["value"]) for n in tree["nodes"] if "name" in n]
    found = {role: name for role, name in named if role in roles}
    assert found.keys() == roles
    assert all(name or role == "status" for role, name in named if role in roles)
    await tab.press(".asks .danger")
    await until_said(tab, "Rejected: shell")
    await until_idle(tab)


async def test_cancel_and_ask_again(remote: Emulator, tab: Tab) -> None:
    """The button ends the task while it speaks; the follow-up is refused, in words."""
    await tab.say("Speak")
    await until_said(tab, "piece piece")
    await tab.press("#cancel")
    await until_said(tab, "Cancelled by you.")
    assert remote.live == 0
    await until_idle(tab)
    assert await tab.run("document.activeElement.id") == "message"
    await tab.say("Go on")
    await until_said(tab, "start a new chat")
    await until_idle(tab)
    await tab.press("#new")
    await tab.until("!document.getElementById('empty').hidden")


async def test_closing_the_tab(remote: Emulator, browser: Browser, service: Running) -> None:
    """It ends what is not kept; what is kept is listed in the next page, with a button."""
    address = f"http://127.0.0.1:{service.port}/"
    async with browser.open(address) as closed, browser.open(address) as kept:
        await kept.run("document.getElementById('keep').focus()")
        await kept.run("document.getElementById('keep').click()")
        for tab in closed, kept:
            await tab.say("Speak")
            await until_said(tab, "piece")
        assert remote.live == 2
    await until_live(remote, 1)
    async with browser.open(address) as tab:
        await tab.until("document.querySelectorAll('#rows tr').length === 1")
        row = await tab.run("document.querySelector('#rows tr').innerText")
        assert "running" in row
        await tab.press("#rows button")
        await until_live(remote, 0)
        await tab.until("!document.getElementById('none').hidden")
        assert await tab.run("document.activeElement.id") == "live"


async def test_a_deploy_is_told(remote: Emulator, tab: Tab, service: Running) -> None:
    """The page says what became of the task, and when to try again."""
    await tab.say("Speak")
    await until_said(tab, "piece")
    service.process.terminate()
    await until_said(tab, "Send it again in 2 s.")
    await until_idle(tab)
    assert await tab.run("document.getElementById('prompt').textContent") == "Message"
    assert remote.live == 0
