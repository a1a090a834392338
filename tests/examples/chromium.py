"""Chromium, without a window, driven over its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",  # as root, who runs CI, there is no other way
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)

#: Seconds in which a page does what it is to do; far more than it takes.
PATIENCE: Final = 20.0

#: Becomes true as soon as an expression is: it is looked at upon each change of the page.
UNTIL: Final = """new Promise((resolve) => {
  const look = () => { if (%s) { watch.disconnect(); resolve(true); } };
  const watch = new MutationObserver(look);
  addEventListener("load", look);
  watch.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
  look();
})"""


class Tab:
    """One page that is open."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        #: What the page complained of: its policy, its script.
        self.complaints: list[str] = []

    async def call(self, method: str, **parameters: Any) -> Any:
        """Ask for something, and return the answer."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async for message in self._socket:
            said = json.loads(message.data)
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]
            if said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["params"]))
            elif said["method"] == "Log.entryAdded":
                entry = said["params"]["entry"]
                if entry["source"] != "network":
                    self.complaints.append(entry["text"])
        raise AssertionError("the page is gone")

    async def run(self, script: str) -> Any:
        """Evaluate an expression, and return its value."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until it is true of the page.

        :raises TimeoutError: it does not become so.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self.run(UNTIL % expression)
        except TimeoutError:
            said = await self.run("document.body.innerText")
            raise TimeoutError(f"not: {expression}; {self.complaints}; the page:\n{said}") from None

    async def press(self, selector: str) -> None:
        """Press Enter on a button, as somebody at a keyboard does."""
        await self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.key("Enter", "\r")

    async def say(self, text: str) -> None:
        """Write into the message box, and send it with Enter."""
        await self.run("document.querySelector('textarea').focus()")
        await self.call("Input.insertText", text=text)
        await self.key("Enter", "\r")

    async def key(self, name: str, text: str) -> None:
        for kind in "keyDown", "keyUp":
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                windowsVirtualKeyCode=13,
                **({"text": text} if kind == "keyDown" else {}),
            )


class Browser:
    """A browser, and its pages."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    @asynccontextmanager
    async def open(self, address: str) -> AsyncIterator[Tab]:
        """Open a page; it is closed when the block is left, as by its user."""
        async with self._http.put(f"{self._url}/json/new?about:blank") as response:
            told = json.loads(await response.text())
        async with self._http.ws_connect(told["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = Tab(socket)
            for domain in "Page", "Runtime", "Log":
                await tab.call(f"{domain}.enable")
            await tab.call("Page.navigate", url=address)
            await tab.until("document.readyState === 'complete'")
            yield tab
            assert tab.complaints == []
        async with self._http.get(f"{self._url}/json/close/{told['id']}") as response:
            response.raise_for_status()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start it; where it is missing the test is skipped, but never in CI."""
    found = shutil.which("chromium")
    if found is None:
        missing = "chromium is not installed: `make chromium` installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            found,
            *ARGUMENTS,
            f"--user-data-dir={folder}",
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env={**os.environ, "HOME": folder},
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            while b"DevTools listening on" not in (line := await process.stderr.readline()):
                assert line, "chromium did not start"
            url = "http://" + line.decode().split("ws://")[1].split("/")[0]
            reading = asyncio.create_task(process.stderr.read())
            async with aiohttp.ClientSession() as http:
                yield Browser(http, url)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await reading
