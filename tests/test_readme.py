"""What the README shows runs, and what its tables say is so."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import os
import re
import shlex
import sys
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import prometheus_client
import pytest
import structlog
from anyio.from_thread import start_blocking_portal
from anyio.streams.text import TextReceiveStream

import sigmic_guard
from sigmic_guard import RemoteTask, SigmicClient, Supervisor, TaskPolicy
from sigmic_guard.emulator import Emulator, Script
from sigmic_guard.observe import Metrics
from sigmic_guard.sigmic import CreateRequest
from tests import forked
from tests.readme import README, TEXT, Snippet, snippets, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["pytester"]

SNIPPETS: Final = snippets()
#: They are a user's conftest.py and test module; the others are code that runs.
OF_A_SUITE: Final = [found for found in SNIPPETS if "pytest" in found.source]
TO_RUN: Final = [found for found in SNIPPETS if "pytest" not in found.source]


# --- snippets -----------------------------------------------------------------------------------


class Remote:
    """An emulator in a thread of its own, so that a snippet may run a loop or need one."""

    def __init__(self, emulator: Emulator, read: Callable[[Callable[[], int]], int]) -> None:
        self._emulator = emulator
        self._read = read

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a program that shall find it, and the library that is tested."""
        package = Path(sigmic_guard.__path__[0])
        return {**os.environ, "PYTHONPATH": str(package.parent)}

    @property
    def live(self) -> int:
        """How many tasks run there now."""
        return self._read(lambda: self._emulator.live)

    @property
    def created(self) -> int:
        """How many tasks were ever created there."""
        return self._read(lambda: len(self._emulator.tasks))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Remote]:
    """What a reader has: a key in the environment, a ledger, a data.csv and a service."""
    (tmp_path / "data.csv").write_text("1,2\n")
    (tmp_path / "your_service.py").write_text("print('served')\n")
    monkeypatch.setenv("SIGMIC_GUARD_LEDGER", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.chdir(tmp_path)
    emulator = Emulator(script=Script(duration=0.05, chunks=("4",)), api_key="sigmic_reader")
    emulator.script_for("Go on for ever", Script(hold=True))
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(emulator),
    ):
        monkeypatch.setenv("SIGMIC_API_KEY", "sigmic_reader")
        monkeypatch.setenv("SIGMIC_BASE_URL", emulator.url)
        yield Remote(emulator, portal.call)


def free_names(source: str) -> set[str]:
    """The names that a snippet uses and never binds."""
    used, bound = set[str](), set(dir(builtins))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound |= {alias.name for alias in aliases}
    return used - bound


def play(snippet: Snippet, path: Path = README) -> None:
    """Run a snippet: a program as it is, a fragment within what it takes for granted."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    source = "\n" * snippet.line + snippet.source
    code = compile(source, str(path), "exec", flags=flags, dont_inherit=True)
    namespace: dict[str, Any] = {"__name__": "readme"}
    if code.co_flags & inspect.CO_COROUTINE:
        anyio.run(_play_fragment, code, namespace, free_names(snippet.source))
    else:
        exec(code, namespace)


async def _play_fragment(code: Any, namespace: dict[str, Any], free: set[str]) -> None:
    async with AsyncExitStack() as stack:
        if "supervisor" in free:
            namespace["supervisor"] = await stack.enter_async_context(Supervisor())
        if "task_id" in free:
            namespace["task_id"] = await created_by_something_else()
        await eval(code, namespace)


async def created_by_something_else() -> str:
    """The id of a task that no supervisor knows."""
    async with SigmicClient() as client:
        return await client.create(CreateRequest(message="Go on for ever"), timeout=10)


@pytest.mark.parametrize("snippet", TO_RUN, ids=str)
def test_a_snippet_runs_and_leaves_nothing_running(snippet: Snippet, remote: Remote) -> None:
    """It raises nothing, and the remote system has no live task afterwards."""
    assert free_names(snippet.source) <= {"supervisor", "task_id"}
    try:
        play(snippet)
    finally:
        structlog.reset_defaults()
    assert remote.live == 0


def test_the_first_snippet_is_a_program(remote: Remote, capfd: pytest.CaptureFixture[str]) -> None:
    """It can be copied into a file as it stands: it prints an answer, and how the task ended."""
    play(SNIPPETS[0])
    assert capfd.readouterr().out == "4\ncompleted\n"
    assert remote.created == 1


def test_the_snippet_about_logs_shows_the_line_it_promises(
    remote: Remote, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line written inside a block carries the id of its task, as the library's own do."""
    [snippet] = [found for found in TO_RUN if "structlog" in found.source]
    try:
        play(snippet)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    [told] = [line for line in lines if line["event"] == "task.started"]
    assert {"event": "waiting", "level": "info", "task_id": told["task_id"]} in lines


def test_a_snippet_that_fails_is_found(remote: Remote, tmp_path: Path) -> None:
    """Negative control: with the line at which it stands in the document."""
    document = tmp_path / "broken.md"
    document.write_text('# Title\n\n```python\nx = 1\nresult = await supervisor.rum("?")\n```\n')
    [snippet] = snippets(document)
    with pytest.raises(AttributeError, match="rum") as caught:
        play(snippet, document)
    assert [entry.lineno + 1 for entry in caught.traceback if entry.path == document] == [5]


def test_a_snippet_that_leaves_a_task_is_found(remote: Remote) -> None:
    """Negative control: what was detached still runs."""
    play(Snippet(1, 'await supervisor.start("Go on for ever", on_shutdown="detach")'))
    assert remote.live == 1


async def test_the_first_program_runs_as_shown(tmp_path: Path) -> None:
    """On the emulator, with nothing but the two lines that it prints."""
    shown = re.search(r"^\$ python hello\.py\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert shown
    program = tmp_path / "hello.py"
    program.write_text(SNIPPETS[0].source)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {
        **kept,
        "PYTHONPATH": str(Path(sigmic_guard.__path__[0]).parent),
        "XDG_STATE_HOME": str(tmp_path),
    }
    async with (
        await anyio.open_process(
            [sys.executable, "-m", "sigmic_guard.emulator"], env=environment
        ) as emulator,
        aclosing(aiter(TextReceiveStream(cast("Any", emulator.stdout)))) as lines,
    ):
        said = ""
        while said.count("\n") < 3:
            said += await anext(lines)
        exports = dict(re.findall(r"^export (\w+)=(.*)$", said, re.MULTILINE))
        ended = await anyio.run_process(
            [sys.executable, str(program)], env={**environment, **exports}
        )
        emulator.terminate()
    assert sorted(exports) == ["SIGMIC_API_KEY", "SIGMIC_BASE_URL"]
    assert ended.stdout.decode() == shown[1]


async def test_the_command_lines_shown_are_understood(remote: Remote) -> None:
    """Each of them exits with 0, and one of them cancels what still runs."""
    task_id = await created_by_something_else()
    lines = re.findall(r"^\$ sigmic-guard (.*)$", TEXT, re.MULTILINE)
    shown = ["run", "list", "status", "cancel", "exec", "ps", "reap", "reap"]
    assert [line.split()[0] for line in lines] == shown
    for line in lines:
        words = shlex.split(re.sub("[0-9a-f-]{36}", task_id, line), comments=True)
        ended = await forked.run("sigmic_guard.cli", *words, env=remote.environment, within=30)
        assert ended[0] == 0, (words, ended)
    assert remote.live == 0


def test_the_test_suite_shown_passes(pytester: pytest.Pytester) -> None:
    """The conftest.py and the test module work for a user, on every backend that anyio has."""
    conftest, module = OF_A_SUITE
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.makeconftest(conftest.source)
    pytester.makepyfile(module.source)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= 1


# --- tables -------------------------------------------------------------------------------------


def test_the_table_of_metrics_has_every_series() -> None:
    """Names, labels and order are those that a scrape shows."""
    registry = prometheus_client.CollectorRegistry()
    exposed = [
        (name if kind != "counter" else f"{name}_total", labels)
        for name, kind, labels in _series(Metrics.on(registry))
    ]
    shown = []
    for cell, *_ in table("What operators see", "| series | |"):
        found = re.fullmatch(r"`(\w+)(?:{([\w,]+)})?`", cell)
        assert found, cell
        shown.append((found[1], tuple(found[2].split(",")) if found[2] else ()))
    assert sorted(shown) == sorted(exposed)


def _series(metrics: Metrics) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for series in vars(metrics._series).values():
        yield series._name, series._type, tuple(series._labelnames)


def test_the_table_of_policies_is_the_policy() -> None:
    """Every field stands there with its default."""
    shown = {
        name.strip("`"): ast.literal_eval(default.strip("`"))
        for name, default, _ in table("Policies", "| field | default | |")
    }
    found = inspect.signature(TaskPolicy).parameters
    assert shown == {name: parameter.default for name, parameter in found.items()}


def test_the_api_in_short_names_what_there_is() -> None:
    """Each call, with the arguments that are shown, exists; and no public method is left out."""
    shown: dict[str, set[str]] = {"supervisor": set(), "task": set()}
    for cell, _ in table("The API in short", "| | |"):
        for owner, name in re.findall(r"`(supervisor|task)\.(\w+)", cell):
            shown[owner].add(name)
    public = {name for name in vars(Supervisor) if not name.startswith("_")}
    assert shown["supervisor"] == public
    assert all(hasattr(RemoteTask, name) for name in shown["task"])
    methods = {
        name
        for name, member in vars(RemoteTask).items()
        if inspect.iscoroutinefunction(member) and not name.startswith(("_", "until"))
    }
    assert methods <= shown["task"]


def test_every_error_that_is_named_exists() -> None:
    """Prose and tables name exceptions by their public names."""
    named = set(re.findall(r"`((?:Task|Supervisor|Connection|Api|Sigmic)[A-Z]\w+)[`(]", TEXT))
    assert {"TaskTimedOut", "SupervisorShutdown", "ApiError"} - named == set()
    assert [name for name in sorted(named) if not hasattr(sigmic_guard, name)] == []


def test_every_example_that_is_named_exists() -> None:
    """The sentence about the examples names all of them."""
    programs = {path.stem for path in (README.parent / "examples").glob("*.py")} - {
        "anywhere",
        "until_eof",
    }
    [sentence] = re.findall(r"`python examples/.*?`\.", TEXT, re.DOTALL)
    assert set(re.findall(r"`(?:python examples/)?(\w+)(?:\.py)?`", sentence)) == programs


def test_the_first_screen_has_the_promise_and_a_snippet() -> None:
    """Somebody who does not scroll has seen what it is for, and how it is used."""
    assert TEXT.index("No remote task outlives") < TEXT.index("```python")
    assert TEXT[: TEXT.index("```python")].count("\n") < 40
