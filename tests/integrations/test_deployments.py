"""What the unit, the Dockerfile and the manifest of `docs/hosts/` run ends well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

import sigmic_guard
from sigmic_guard.emulator import Emulator, Script
from tests.cli.exec.container import CONTAINER, child_of
from tests.integrations import deploying
from tests.integrations.client import Client
from tests.integrations.deploying import FOLDER, text_of, worker_unit
from tests.integrations.hosts import KEY, TERM, Host, free_port, service
from tests.readme import snippets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.skipif(not FOLDER.exists(), reason="there is no checkout here"),
]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(hold=True)) as emulator:
        yield emulator


def addressed(command: list[str], port: str) -> list[str]:
    """uvicorn as it is told to run, but for its address."""
    assert Path(command[0]).name == "uvicorn"
    words = ["uvicorn", *command[1:]]
    for option, value in ("--port", port), ("--host", "127.0.0.1"):
        if option in words:
            words[words.index(option) + 1] = value
    return words


def write_service(page: str, folder: Path) -> None:
    (folder / "service.py").write_text(
        snippets(FOLDER / f"{page}.md")[0].source
        + '\n\n@app.get("/")\nasync def hello() -> None: ...\n\n\n'
        'print("the service is ready", flush=True)\n'
    )


async def watch(client: Client, emulator: Emulator) -> None:
    """Come into the middle of a stream."""
    await client.get("/watch?q=m")
    await client.until(b"event: start")
    await emulator.wait_for(lambda state: state["tasks"]["live"] == 1)


async def test_the_server_of_the_unit_is_stopped(emulator: Emulator, tmp_path: Path) -> None:
    """SIGTERM to the main process, as ``KillMode=mixed`` has it; it dies of that, as it should."""
    command = deploying.command_of_unit(deploying.read_unit(text_of("ask.service")))
    write_service("uvicorn", tmp_path)
    host = Host(tuple(addressed(command, "{port}")))
    async with service(emulator, host, folder=tmp_path) as it, it.client() as client:
        await watch(client, emulator)
        it.kill(TERM)
        await it.ended.wait()
        assert it.process.returncode == -TERM, it.log
        assert "Traceback" not in it.log
        assert emulator.state()["tasks"]["live"] == 0
        await client.to_the_end()
        assert b"event: shutdown" in client.body


async def test_the_server_of_the_manifest_is_stopped(emulator: Emulator, tmp_path: Path) -> None:
    """As a container's first process: there the signal that it raises again does not end it."""
    port = free_port()
    command = addressed(deploying.command_of_container(text_of("kubernetes.yaml")), str(port))
    write_service("kubernetes", tmp_path)
    async with container(emulator, command, tmp_path) as it:
        await it.until_listening(port)
        async with Client(port) as client:
            await watch(client, emulator)
            os.kill(it.first, TERM)
            assert await it.status() == (0 if CONTAINER else -TERM), it.log
            await client.to_the_end()
            assert b"event: shutdown" in client.body
    assert emulator.state()["tasks"]["live"] == 0
    assert "Traceback" not in it.log


class Container:
    """A command as the first process of a world of its own, where that is allowed here."""

    def __init__(self, process: anyio.abc.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def first(self) -> int:
        """The pid of its first process. To be asked for when that runs."""
        return child_of(self._process.pid) if CONTAINER else self._process.pid

    async def until_listening(self, port: int) -> None:
        """Wait until it takes connections."""
        while self._process.returncode is None:
            with suppress(OSError):
                async with Client(port):
                    return
            await anyio.sleep(0.02)
        pytest.fail(self.log)

    async def status(self) -> int:
        return await self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def container(
    emulator: Emulator, command: Sequence[str], folder: Path
) -> AsyncIterator[Container]:
    """Run a command in a folder; when the block is left it is gone."""
    ours = {
        "sigmic-guard": ["-m", "sigmic_guard.cli"],
        "uvicorn": ["-m", "uvicorn"],
        "python": [],
    }
    words = [
        word
        for text in command
        for word in ([sys.executable, *ours[text]] if text in ours else [text])
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(sigmic_guard.__path__[0]).parent),
        "SIGMIC_API_KEY": KEY,
        "SIGMIC_BASE_URL": emulator.url,
        "SIGMIC_GUARD_LEDGER": f"sqlite:///{folder}/ledger.db",
    }
    log = folder / "log"
    with log.open("ab") as file, anyio.fail_after(50):
        process = await anyio.open_process(
            [*CONTAINER, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Container(process, log)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()


@asynccontextmanager
async def worker(
    emulator: Emulator, command: Sequence[str], folder: Path
) -> AsyncIterator[Container]:
    """Run the worker of the page, until its task is live."""
    (folder / "worker.py").write_text(snippets(FOLDER / "docker.md")[0].source)
    created = emulator.state()["created"]
    async with container(emulator, command, folder) as it:
        await emulator.wait_for(lambda state: state["created"] > created)
        yield it


def entry() -> list[str]:
    return deploying.command_of_image(text_of("Dockerfile"))


def program_of(pid: int) -> int:
    """The program under watch, of the watch's pid."""
    return child_of(pid)


@pytest.mark.parametrize("form", ["Dockerfile", "unit"])
async def test_a_watched_worker_is_stopped(emulator: Emulator, form: str, tmp_path: Path) -> None:
    """The signal reaches the program through the first process, and its status comes back."""
    command = entry()
    if form == "unit":
        words = deploying.command_of_unit(deploying.read_unit(worker_unit()))
        command = [Path(word).name if word.startswith("/") else word for word in words]
    async with worker(emulator, command, tmp_path) as it:
        os.kill(it.first, TERM)
        assert await it.status() == 143, it.log
    assert emulator.state()["tasks"]["live"] == 0
    assert "Traceback" not in it.log


async def test_a_watched_worker_that_is_killed_leaves_no_task(
    emulator: Emulator, tmp_path: Path
) -> None:
    """As the kernel does when it is out of memory: the container goes on, and ends the task."""
    async with worker(emulator, entry(), tmp_path) as it:
        os.kill(program_of(it.first), signal.SIGKILL)
        assert await it.status() == 128 + signal.SIGKILL, it.log
    assert emulator.state()["tasks"]["live"] == 0


async def test_a_container_that_is_killed_is_seen_to_by_the_next(
    emulator: Emulator, tmp_path: Path
) -> None:
    """On the same volume. The kernel ends the rest of a container with its first process."""
    async with worker(emulator, entry(), tmp_path) as it:
        program = program_of(it.first)
        os.kill(it.first, signal.SIGKILL)
        if not CONTAINER:
            os.kill(program, signal.SIGKILL)
        await it.status()
        [first] = emulator.tasks
        assert emulator.state()["tasks"]["live"] == 1
    async with worker(emulator, entry(), tmp_path) as it:
        await emulator.wait_for(lambda _: not emulator.tasks[first].live)
        os.kill(it.first, TERM)
        assert await it.status() == 143, it.log
    assert emulator.state()["tasks"]["live"] == 0


async def test_without_the_watch_a_killed_worker_leaves_its_task(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Negative control."""
    async with worker(emulator, entry()[3:], tmp_path) as it:
        os.kill(it.first, signal.SIGKILL)
        await it.status()
    assert emulator.state()["tasks"]["live"] == 1
