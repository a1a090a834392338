"""The unit, Dockerfile and manifest of `docs/hosts/` are right, and what they run ends well."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import pytest
from fastapi.testclient import TestClient

import sigmic_guard
from sigmic_guard.emulator import Emulator, Script
from tests.cli.exec.container import CONTAINER, child_of
from tests.integrations import deploying
from tests.integrations.deploying import FOLDER
from tests.integrations.hosts import KEY, TERM, Host, service
from tests.readme import snippets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif("SIGMIC_GUARD_WHEEL" in os.environ, reason="there is no checkout here"),
]

#: What each page shows, in this order.
SHOWN: Final = {
    "systemd": ["ask.service"],
    "docker": ["Dockerfile", "compose.yaml"],
    "kubernetes": ["kubernetes.yaml"],
}


def text_of(name: str) -> str:
    return (FOLDER / name).read_text()


def worker_unit() -> str:
    """The unit with the lines that its page has for a plain program."""
    unit, lines = re.findall(r"```ini\n(.*?)```", text_of("systemd.md"), re.DOTALL)
    for line in lines.splitlines():
        key = line.partition("=")[0]
        unit, count = re.subn(rf"(?m)^{key}=.*$", line, unit)
        assert count == 1
    return str(unit)


# --- the pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", SHOWN)
def test_a_page_shows_its_files_as_they_are(page: str) -> None:
    text = text_of(f"{page}.md")
    blocks = re.findall(r"```(?:ini|dockerfile|yaml)\n(.*?)```", text, re.DOTALL)
    assert blocks[: len(SHOWN[page])] == [text_of(name) for name in SHOWN[page]]
    for name in SHOWN[page]:
        assert f"[`{name}`]({name})" in text


def settings_of(text: str) -> list[str]:
    """The code spans of a page that say a setting, with its value."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return [span for span in spans if re.match(r"[A-Z]\w+=\S|\w+: \S|[A-Z]+ [\[A-Z]", span)]


@pytest.mark.parametrize("page", SHOWN)
def test_the_settings_that_a_page_explains_are_in_its_files(page: str) -> None:
    """So none of its numbers is another one than what was checked, and run."""
    text = text_of(f"{page}.md")
    shown = "".join(re.findall(r"```\w+\n(.*?)```", text, re.DOTALL))
    elsewhere = {
        "SIGMIC_API_KEY=sigmic_…",
        'ENTRYPOINT ["uvicorn", "service:app", "--timeout-graceful-shutdown", "10"]',
    }
    settings = set(settings_of(text)) - elsewhere
    assert len(settings) >= 3
    assert [setting for setting in settings if setting not in shown] == []


# --- the files ------------------------------------------------------------------------------------


def check_compose(text: str) -> None:
    deploying.check_compose(text, text_of("Dockerfile"))


CHECKS: Final[dict[str, Callable[[str], None]]] = {
    "ask.service": deploying.check_unit,
    "Dockerfile": deploying.check_dockerfile,
    "compose.yaml": check_compose,
    "kubernetes.yaml": deploying.check_manifest,
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_file_is_right(name: str) -> None:
    """Its time-outs fit to each other, the ledger is on what stays, and no key is in it."""
    CHECKS[name](text_of(name))


def test_the_unit_of_a_plain_program_is_right() -> None:
    deploying.check_unit(worker_unit())
    assert "sigmic-guard exec --" in worker_unit()


def test_what_a_watch_adds_is_what_the_page_says() -> None:
    assert f"then {deploying.WATCH:g} seconds more" in text_of("kubernetes.md")


@pytest.mark.parametrize(
    "name, right, wrong",
    [
        ("ask.service", "KillMode=mixed", "KillMode=process"),
        ("ask.service", "TimeoutStopSec=15", "TimeoutStopSec=11"),
        ("ask.service", "--timeout-graceful-shutdown 10", "--timeout-graceful-shutdown 9"),
        ("ask.service", "StateDirectory=ask", "StateDirectory=other"),
        ("ask.service", "RestartSec=3", "RestartSec=2"),
        ("ask.service", "RestartSec=3", "RestartSecs=3"),
        ("ask.service", "KillMode=mixed\n", ""),
        ("Dockerfile", 'ENTRYPOINT ["sigmic-guard", "exec", "--"]', "ENTRYPOINT sigmic-guard exec"),
        ("Dockerfile", '["python", "worker.py"]', "python worker.py"),
        ("Dockerfile", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
        ("Dockerfile", "-o app /var/lib/worker", "-o app /var/lib/other"),
        ("Dockerfile", "ENV ", "ENV SIGMIC_API_KEY=sigmic_x "),
        ("compose.yaml", "30s", "20s"),
        ("compose.yaml", "ledger:/var/lib/worker", "/var/lib/worker"),
        ("compose.yaml", "ledger:/var/lib/worker", "ledger:/var/lib/other"),
        ("kubernetes.yaml", "Seconds: 20", "Seconds: 16"),
        ("kubernetes.yaml", '[sleep, "5"]', '[sleep, "10"]'),
        ("kubernetes.yaml", "mountPath: /var/lib/ask", "mountPath: /var/lib/other"),
        ("kubernetes.yaml", "ReadWriteOnce", "ReadWriteMany"),
        ("kubernetes.yaml", "path: /ready, port: 8000", "path: /ready, port: 80"),
        ("kubernetes.yaml", '"8000"', "8000"),
    ],
)
def test_a_file_that_is_wrong_is_found(name: str, right: str, wrong: str) -> None:
    """Negative control."""
    text = text_of(name)
    assert right in text
    with pytest.raises((AssertionError, KeyError, ValueError)):
        CHECKS[name](text.replace(right, wrong))


def verify(text: str, folder: Path) -> str:
    """What systemd has to say about a unit; where it is missing, skip, but never in CI."""
    found = shutil.which("systemd-analyze")
    if found is None:
        missing = "systemd-analyze is not installed: `make systemd` installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    for name in ("uvicorn", "sigmic-guard"):
        (folder / name).touch(mode=0o755)
    path = folder / "ask.service"
    path.write_text(text.replace("/opt/ask/.venv/bin", str(folder)))
    done = subprocess.run(
        [found, "verify", "--man=no", path], capture_output=True, text=True, check=False, timeout=40
    )
    said = [line for line in done.stderr.splitlines() if "ask.service" in line]
    return "\n".join(said) or ("" if done.returncode == 0 else done.stderr)


@pytest.mark.parametrize("unit", [partial(text_of, "ask.service"), worker_unit])
def test_systemd_takes_the_unit(unit: Callable[[], str], tmp_path: Path) -> None:
    assert verify(unit(), tmp_path) == ""


@pytest.mark.parametrize(
    "right, wrong, why",
    [
        ("KillMode=mixed", "KillMode=mixd", "Failed to parse kill mode"),
        ("RestartSec", "RestartSecs", "Unknown key"),
        ("bin/uvicorn", "bin/there-is-none", "not executable"),
    ],
)
def test_systemd_finds_a_unit_that_is_wrong(
    right: str, wrong: str, why: str, tmp_path: Path
) -> None:
    """Negative control."""
    assert why in verify(text_of("ask.service").replace(right, wrong), tmp_path)


def test_what_the_readiness_probe_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Yes from the start on, no while the supervisor drains."""
    monkeypatch.setenv("SIGMIC_API_KEY", KEY)
    monkeypatch.setenv("SIGMIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SIGMIC_GUARD_LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    namespace: dict[str, object] = {"__name__": "page"}
    exec(compile(snippets(FOLDER / "kubernetes.md")[0].source, "page", "exec"), namespace)
    app, guard = namespace["app"], namespace["guard"]
    path = deploying.container_of(text_of("kubernetes.yaml"))["readinessProbe"]["httpGet"]["path"]
    with TestClient(app) as client:  # type: ignore[arg-type]
        assert client.get(path).status_code == 200
        guard.supervisor.request_shutdown()  # type: ignore[attr-defined]
        assert client.get(path).status_code == 503


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(hold=True)) as emulator:
        yield emulator


def host_of(command: list[str], codes: dict[signal.Signals, int]) -> Host:
    """uvicorn as it is told to run, but for its address."""
    assert Path(command[0]).name == "uvicorn"
    arguments = list(command[1:])
    for option, value in ("--port", "{port}"), ("--host", "127.0.0.1"):
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
    return Host(("uvicorn", *arguments), codes)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["uvicorn", "kubernetes"])
async def test_the_server_of_a_file_is_stopped(
    emulator: Emulator, page: str, tmp_path: Path
) -> None:
    """SIGTERM to the main process, as ``KillMode=mixed`` and kubelets send it."""
    commands = {
        "uvicorn": deploying.command_of_unit(deploying.read_unit(text_of("ask.service"))),
        "kubernetes": deploying.command_of_container(text_of("kubernetes.yaml")),
    }
    (tmp_path / "service.py").write_text(
        snippets(FOLDER / f"{page}.md")[0].source
        + '\n\n@app.get("/")\nasync def hello() -> None: ...\n\n\n'
        'print("the service is ready", flush=True)\n'
    )
    host = host_of(commands[page], {TERM: -TERM})
    async with service(emulator, host, folder=tmp_path) as it, it.client() as client:
        await client.get("/watch?q=m")
        await client.until(b"event: start")
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 1)
        it.kill(TERM)
        await it.ended.wait()
        assert it.process.returncode == -TERM, it.log
        assert "Traceback" not in it.log
        assert emulator.state()["tasks"]["live"] == 0
        await client.to_the_end()
        assert b"event: shutdown" in client.body


class Container:
    """A command as the first process of a world of its own, where that is allowed here."""

    def __init__(self, process: anyio.abc.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def first(self) -> int:
        """The pid of its first process. To be asked for when that runs."""
        return child_of(self._process.pid) if CONTAINER else self._process.pid

    async def status(self) -> int:
        return await self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def container(
    emulator: Emulator, command: Sequence[str], folder: Path
) -> AsyncIterator[Container]:
    """Run the worker of the page, until its task is live; when the block is left it is gone."""
    (folder / "worker.py").write_text(snippets(FOLDER / "docker.md")[0].source)
    ours = {"sigmic-guard": ["-m", "sigmic_guard.cli"], "python": []}
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
    created = emulator.state()["created"]
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
            await emulator.wait_for(lambda state: state["created"] > created)
            yield Container(process, log)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()


def entry() -> list[str]:
    return deploying.command_of_image(text_of("Dockerfile"))


def program_of(pid: int) -> int:
    """The program under watch, of the watch's pid."""
    return child_of(pid)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["Dockerfile", "unit"])
async def test_a_watched_worker_is_stopped(emulator: Emulator, form: str, tmp_path: Path) -> None:
    """The signal reaches the program through the first process, and its status comes back."""
    command = entry()
    if form == "unit":
        words = deploying.command_of_unit(deploying.read_unit(worker_unit()))
        command = [Path(word).name if word.startswith("/") else word for word in words]
    async with container(emulator, command, tmp_path) as it:
        os.kill(it.first, TERM)
        assert await it.status() == 143, it.log
    assert emulator.state()["tasks"]["live"] == 0
    assert "Traceback" not in it.log


@pytest.mark.slow
async def test_a_watched_worker_that_is_killed_leaves_no_task(
    emulator: Emulator, tmp_path: Path
) -> None:
    """As the kernel does when it is out of memory: the container goes on, and ends the task."""
    async with container(emulator, entry(), tmp_path) as it:
        os.kill(program_of(it.first), signal.SIGKILL)
        assert await it.status() == 128 + signal.SIGKILL, it.log
    assert emulator.state()["tasks"]["live"] == 0


@pytest.mark.slow
async def test_a_container_that_is_killed_is_seen_to_by_the_next(
    emulator: Emulator, tmp_path: Path
) -> None:
    """On the same volume. The kernel ends the rest of a container with its first process."""
    async with container(emulator, entry(), tmp_path) as it:
        program = program_of(it.first)
        os.kill(it.first, signal.SIGKILL)
        if not CONTAINER:
            os.kill(program, signal.SIGKILL)
        await it.status()
        [first] = emulator.tasks
        assert emulator.state()["tasks"]["live"] == 1
    async with container(emulator, entry(), tmp_path) as it:
        await emulator.wait_for(lambda _: not emulator.tasks[first].live)
        os.kill(it.first, TERM)
        assert await it.status() == 143, it.log
    assert emulator.state()["tasks"]["live"] == 0


@pytest.mark.slow
async def test_without_the_watch_a_killed_worker_leaves_its_task(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Negative control."""
    async with container(emulator, entry()[3:], tmp_path) as it:
        os.kill(it.first, signal.SIGKILL)
        await it.status()
    assert emulator.state()["tasks"]["live"] == 1
