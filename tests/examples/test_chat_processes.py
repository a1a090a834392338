"""The chat service in a process of its own: however its clients leave, no task is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

import sigmic_guard
from sigmic_guard.emulator import Emulator, Script
from tests.integrations.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteReceiveStream, Process

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
CHATTY: Final = Script(duration=60, chunks=("piece ",) * 600, follow_up=("more ",) * 600, hold=True)


class Running:
    """A program that has told where it listens."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.out, self.err = process.stdout, process.stderr
        self.port = 0

    async def until_told(self, stream: ByteReceiveStream, words: bytes) -> None:
        """Read until a line says where it listens."""
        lines = BufferedByteReceiveStream(stream)
        while not self.port:
            line = await lines.receive_until(b"\n", 10_000)
            if words in line:
                self.port = int(line.partition(b"http://127.0.0.1:")[2].split()[0])

    def client(self) -> Client:
        return Client(self.port)

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, f"http://127.0.0.1:{self.port}{path}", **options) as response,
        ):
            return response.status, await response.json()


@asynccontextmanager
async def program(*arguments: str, **environment: str) -> AsyncIterator[Running]:
    inherited = {name: value for name, value in os.environ.items() if "SIGMIC" not in name}
    paths = [str(Path(sigmic_guard.__path__[0]).parent), str(EXAMPLES)]
    process = await anyio.open_process(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        env={**inherited, "PYTHONPATH": os.pathsep.join(paths), **environment},
        start_new_session=True,
    )
    try:
        with anyio.fail_after(50):
            yield Running(process)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()  # make chat ends its service with it
            with anyio.move_on_after(12):
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()


@pytest.fixture
async def remote() -> AsyncIterator[Emulator]:
    async with Emulator(script=CHATTY) as emulator:
        yield emulator


@pytest.fixture
async def service(remote: Emulator) -> AsyncIterator[Running]:
    """The application, as it would be deployed."""
    async with program(
        *("-m", "uvicorn", "chat_service.app:app", "--port", "0"),
        SIGMIC_API_KEY="sigmic_of_the_test",
        SIGMIC_BASE_URL=remote.url,
        SIGMIC_GUARD_LEDGER="memory:",
    ) as running:
        await running.until_told(running.err, b"running on")
        yield running


async def begin(client: Client, path: str = "/tasks", **body: Any) -> str:
    """Have a turn begin, and return its task's id."""
    await client.post(path, {"message": "go", **body})
    await client.until(b"piece")
    return str(json.loads(client.body.split(b"\n")[1].removeprefix(b"data: "))["id"])


async def until_live(remote: Emulator, count: int) -> None:
    await remote.wait_for(lambda state: state["tasks"]["live"] == count)


async def test_make_chat_answers_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """It prints its address when it answers; SIGINT ends it, with nothing left, nor at home."""
    home = {"XDG_STATE_HOME": str(tmp_path), "SIGMIC_GUARD_LEDGER": f"sqlite:///{tmp_path}/mine.db"}
    async with program(str(EXAMPLES / "chat_service"), "--port", "0", **home) as running:
        await running.until_told(running.out, b"The chat is at")
        async with running.client() as client:
            await client.post("/tasks", {"message": "Watch the news until I say stop"})
            await client.until(b"No news.")
            running.process.send_signal(signal.SIGINT)
            await client.to_the_end()
        assert b"event: shutdown" in client.body
        assert client.complete
        assert await running.process.wait() == 0
        said = await running.out.receive()
        assert said == b"Tasks on the emulator: 1; still running: 0\n"
        with pytest.raises(anyio.EndOfStream):
            await running.err.receive()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
async def test_the_service_ends_with_make_chat() -> None:
    """Also where that is killed, and can tell it nothing."""
    async with program(str(EXAMPLES / "chat_service"), "--port", "0") as running:
        await running.until_told(running.out, b"The chat is at")
        running.process.kill()
        with pytest.raises(anyio.EndOfStream):
            while True:  # the service has this end as well
                await running.out.receive()


async def test_the_cancel_button_ends_the_stream(remote: Emulator, service: Running) -> None:
    """The route of the button ends the task; the open stream says so; no follow-up is taken."""
    async with service.client() as client:
        task = await begin(client)
        answer = await service.ask("DELETE", f"/tasks/{task}")
        assert answer == (200, {"result": "acknowledged"})
        await client.until(b'{"outcome":"cancelled","reason":"user"}')
        assert remote.live == 0
    status, body = await service.ask("POST", f"/tasks/{task}/messages", json={"message": "more"})
    assert (status, body) == (409, {"detail": "That task has ended for good: start a new chat."})
    assert remote.count("POST", "send") == 0


async def test_who_closes_the_page_ends_the_task(remote: Emulator, service: Running) -> None:
    """A hang-up cancels what is not to be kept."""
    async with service.client() as client:
        await begin(client)
        await client.hang_up()
        await until_live(remote, 0)


@pytest.mark.slow
async def test_a_task_that_is_kept_outlives_the_page(remote: Emulator, service: Running) -> None:
    """It is listed, and can be cancelled, when the page is opened again."""
    async with service.client() as kept, service.client() as other:
        task = await begin(kept, keep=True)
        await begin(other)
        await kept.hang_up()
        await other.hang_up()
        await until_live(remote, 1)
    _, [row] = await service.ask("GET", "/tasks")
    assert (row["id"], row["state"], row["reason"]) == (task, "running", None)
    assert (await service.ask("DELETE", f"/tasks/{task}"))[0] == 200
    assert remote.live == 0


async def follow_up(remote: Emulator, client: Client, **body: Any) -> str:
    """Have a task end its first turn, and begin the next one."""
    async with Client(client.port) as first:
        task = await begin(first)
        remote.complete(task)
        await first.until(b"event: end")
    await client.post(f"/tasks/{task}/messages", {"message": "and then?", **body})
    await client.until(b"more")
    return task


@pytest.mark.slow
async def test_a_follow_up_ends_with_its_page_too(remote: Emulator, service: Running) -> None:
    """Unless it is to be kept; then it is listed like any other."""
    async with service.client() as kept, service.client() as other:
        task = await follow_up(remote, kept, keep=True)
        await follow_up(remote, other)
        assert remote.live == 2
        await kept.hang_up()
        await other.hang_up()
        await until_live(remote, 1)
    _, [row] = await service.ask("GET", "/tasks")
    assert (row["id"], row["reason"]) == (task, None)
    assert (await service.ask("DELETE", f"/tasks/{task}"))[0] == 200
    assert remote.live == 0


@pytest.mark.slow
async def test_a_deploy_ends_follow_ups(remote: Emulator, service: Running) -> None:
    """SIGTERM: the stream tells why it ends, and no task is left."""
    async with service.client() as client:
        await follow_up(remote, client)
        service.process.send_signal(signal.SIGTERM)
        await client.until(b"event: shutdown")
        await client.to_the_end()
        assert client.complete
    assert await service.process.wait() == -signal.SIGTERM
    assert remote.live == 0


async def test_a_deploy_ends_open_streams(remote: Emulator, service: Running) -> None:
    """SIGTERM: the stream's last event is the farewell, and no task is left."""
    async with service.client() as client:
        await begin(client, keep=True)
        service.process.send_signal(signal.SIGTERM)
        await client.until(b"event: shutdown")
        await client.to_the_end()
        assert client.complete
    assert await service.process.wait() == -signal.SIGTERM
    assert remote.live == 0
