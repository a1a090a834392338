"""Whole services: bursts, a program of one's own, and the lines of the page."""

from __future__ import annotations

import os
import re
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from time import time
from typing import TYPE_CHECKING

import aiohttp
import anyio
import pytest

from sigmic_guard.emulator import Emulator, Script
from tests.integrations.browser import Answer
from tests.integrations.hosts import HOSTS, INT, PROGRAMS, TERM, Host, Service, service
from tests.integrations.situations import CHATTY, ChattyStream, QuietStream, Run, open_all

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.once

READERS = 60


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(hold=True)) as emulator:
        yield emulator


@pytest.mark.slow
@pytest.mark.parametrize(
    "host, path",
    [
        ("uvicorn", "/fastapi"),
        ("uvicorn", "/sse_starlette"),
        ("uvicorn", "/streaming"),
        ("uvicorn", "/task_stream"),
        ("aiohttp.web", "/stream"),
        ("aiohttp.web", "/generated"),
    ],
)
async def test_sixty_readers_who_all_hang_up(emulator: Emulator, host: str, path: str) -> None:
    emulator.set_script(CHATTY)
    async with service(emulator, HOSTS[host], app="burst:app") as it:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(it.client()) for _ in range(READERS)]
            for client in clients:
                await client.get(f"{path}?q=m")
            for client in clients:
                await client.until(b"piece")
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)
        assert emulator.state()["created"] == READERS


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("host", ["uvicorn", "aiohttp.web"])
async def test_a_thousand_streams_leave_nothing_behind(emulator: Emulator, host: str) -> None:
    """A hundred at a time, of which some hang up, and some read to the end."""
    script = Script(duration=0.2, chunks=("piece ",) * 20)
    choose = Random(9)

    async def one(it: Service, limiter: anyio.CapacityLimiter) -> None:
        async with limiter, it.client() as client:
            await client.get("/stream?q=m", "Connection: close")
            await client.until(b"piece")
            if choose.random() < 0.5:
                await client.hang_up()
            else:
                await client.to_the_end()

    async def many(it: Service, count: int) -> int:
        emulator.reset()
        emulator.set_script(script)
        limiter = anyio.CapacityLimiter(100)
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one, it, limiter)
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        return it.memory

    async with service(emulator, HOSTS[host], patience=180) as it:
        before = await many(it, 300)
        after = await many(it, 1000)
        assert after < before * 1.1
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)


async def test_within_a_program_that_has_a_supervisor(emulator: Emulator) -> None:
    """It dies of the signal, as it would have without us."""
    host = Host(("inside", "{port}"), {TERM: -TERM})
    async with (
        service(emulator, host) as it,
        open_all(emulator, it, [QuietStream, ChattyStream]) as situations,
    ):
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)
        assert emulator.state()["tasks"]["live"] == 0
        for situation in situations:
            await situation.check_shutdown(host)


@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
async def test_where_the_host_leaves_the_signals_to_python(
    emulator: Emulator, number: signal.Signals
) -> None:
    """The program ends as it would have, only after the drain."""
    async with service(emulator, Host(("by_hand", "{port}"))) as it:
        it.kill(number)
        await it.ended.wait()
        assert it.process.returncode == -number, it.log
        assert emulator.state()["tasks"]["live"] == 0
        assert emulator.state()["created"] == 1


PAGES = Path(__file__).parents[2] / "docs" / "hosts"


@pytest.mark.skipif(not PAGES.exists(), reason="there is no checkout here")
async def test_the_lines_of_the_page_are_a_service(emulator: Emulator, tmp_path: Path) -> None:
    text = (PAGES / "uvicorn.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "page.py").write_text(
        found[1] + '\n\n@app.get("/")\nasync def hello() -> None: ...\n\n\n'
        'print("the service is ready", flush=True)\n'
    )
    emulator.set_script(Script(chunks=("forty", "-two")))
    async with service(emulator, HOSTS["uvicorn"], app="page:app", folder=tmp_path) as it:
        async with it.client() as client:
            await client.get("/ask?q=m", "Connection: close")
            await client.to_the_end()
            assert client.body == b'"forty-two"'
        async with it.client() as client:
            await client.get("/watch?q=m", "Connection: close")
            await client.to_the_end()
            assert b"event: end" in client.body
        it.kill(TERM)
        await it.ended.wait()
        assert it.process.returncode == -TERM, it.log


@pytest.mark.slow
async def test_a_changed_source_file_under_reload(emulator: Emulator, tmp_path: Path) -> None:
    """The old process gets SIGTERM, ends its tasks and tells its clients; the new one serves."""
    source = tmp_path / "service.py"
    source.write_text((PROGRAMS / "service.py").read_text())
    host = HOSTS["uvicorn --reload"]
    async with service(emulator, host, folder=tmp_path) as it:
        async with open_all(emulator, it, [QuietStream, ChattyStream, Run]) as situations:
            os.utime(source, (time() + 10, time() + 10))
            for situation in situations:
                await situation.check_shutdown(host)
        await it.until_said("the service is ready", 2)
        assert emulator.state()["tasks"]["live"] == 0
        assert "Traceback" not in it.log, it.log
        async with open_all(emulator, it, [QuietStream]):
            it.kill(TERM)
            await it.ended.wait()
        assert it.process.returncode == 0, it.log
        assert emulator.state()["tasks"]["live"] == 0


async def test_the_admin_page_under_uvicorn(emulator: Emulator) -> None:
    """Log in, cancel the task by its button, and stop: over a socket, with real cookies."""
    async with service(emulator, HOSTS["uvicorn"], app="admin:app") as it:
        jar = aiohttp.CookieJar(unsafe=True)  # of an address that is a number
        mount = f"http://127.0.0.1:{it.port}/admin/tasks"
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            async with session.get(mount) as response:
                assert response.status == 401
            token = {"token": "correct-horse-battery-staple"}
            async with session.post(f"{mount}/login", data=token) as response:
                assert response.status == 200
                page = Answer(200, {}, await response.read())
            assert next(iter(emulator.tasks)) in page.text
            fields = page.fields("cancel")
            async with session.post(f"{mount}/cancel", data=fields) as response:
                assert "the API has acknowledged it" in await response.text()
        assert emulator.state()["tasks"]["live"] == 0
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)
