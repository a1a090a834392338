"""``sigmic-guard run``: the answer, the exit code, and no task that outlives the command."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import pytest

from sigmic_guard.emulator import Fault, Script
from tests.cli.books import on_a_terminal
from tests.cli.conftest import KEY, NOBODY, Cli, finish

if TYPE_CHECKING:
    from pathlib import Path

QUICK = Script(duration=0.05, chunks=("Hello", " ", "world"), tool_calls=("search",))


# --- how it ends --------------------------------------------------------------------------------


async def test_completed(cli: Cli) -> None:
    """The answer, and nothing else, is on stdout; status and tool calls are on stderr; exit 0."""
    script = Script(duration=1.0, chunks=("Hello", " ", "world"), tool_calls=("search",))
    cli.emulator.set_script(script)  # its stream is open before the tool is called
    ended = await cli.run("run", "hello")
    assert (ended.code, ended.out) == (0, "Hello world\n")
    [task_id] = cli.emulator.tasks
    assert f"task {task_id}\n" in ended.err
    assert "tool search: executing\n" in ended.err
    assert "completed, after " in ended.err
    assert "\x1b" not in ended.err


async def test_completed_before_its_stream_is_open(cli: Cli) -> None:
    """An answer that no stream brought is printed all the same."""
    cli.emulator.set_script(Script(duration=0.0, chunks=("at once",)))
    ended = await cli.run("run", "hello")
    assert (ended.code, ended.out) == (0, "at once\n")


async def test_an_answer_is_printed_once(cli: Cli) -> None:
    """A stream that drops in the middle neither repeats nor loses a word of the answer."""
    chunks = tuple(f"word {number} " for number in range(8))
    cli.emulator.set_script(Script(duration=0.6, chunks=chunks))
    cli.emulator.fault("stream", Fault("cut", events=6, times=2))
    ended = await cli.run("run", "hello")
    assert (ended.code, ended.out) == (0, "".join(chunks) + "\n")


async def test_failed(cli: Cli) -> None:
    """A task that fails leads to exit code 1, and its error is told in one line."""
    cli.emulator.set_script(Script(duration=0.0, fail="out of\npaper"))
    ended = await cli.run("run", "hello")
    assert ended.code == 1
    [problem] = [line for line in ended.err.splitlines() if line.startswith("sigmic-guard: ")]
    assert problem.endswith("failed: out of paper")


async def test_timed_out(cli: Cli) -> None:
    """The time-out cancels the task, and the exit code is 124."""
    ended = await cli.run("run", "hello", "--timeout", "0.3")
    assert (ended.code, ended.out) == (124, "one\ntwo\nthree\n")
    assert "cancelled, confirmed" in ended.err
    assert cli.emulator.state()["tasks"]["cancelled"] == 1


async def test_cancelled_by_somebody_else(cli: Cli) -> None:
    """A task that is cancelled elsewhere leads to exit code 1."""
    process = await cli.streaming()
    [task_id] = cli.emulator.tasks
    cli.emulator.cancel(task_id)
    ended = await finish(process)
    assert ended.code == 1
    assert "was cancelled (reason: remote)" in ended.err


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize("number, code", SIGNALS)
async def test_a_signal_while_it_streams(cli: Cli, number: signal.Signals, code: int) -> None:
    """The task is gone before the command is, and the exit code is the shell's for the signal."""
    process = await cli.streaming()
    assert cli.emulator.live == 1
    process.send_signal(number)
    await process.wait()
    assert cli.emulator.live == 0
    ended = await finish(process)
    assert ended.code == code
    assert "cancelled, confirmed" in ended.err


@pytest.mark.parametrize("number, code", SIGNALS)
async def test_a_signal_while_the_create_is_under_way(
    cli: Cli, number: signal.Signals, code: int
) -> None:
    """A task whose id comes after the signal is ended as well."""
    cli.emulator.fault("create", Fault("latency", seconds=0.5))
    process = await cli.start("run", "hello")
    await cli.emulator.wait_for(lambda state: state["requests"].get("create"))
    process.send_signal(number)
    ended = await finish(process)
    assert (ended.code, ended.out) == (code, "")
    assert cli.emulator.state()["tasks"]["cancelled"] == 1


async def test_a_signal_while_deletes_fail(cli: Cli) -> None:
    """The DELETE is sent until it is obeyed."""
    cli.emulator.fault("delete", Fault("status", status=503, times=3))
    process = await cli.streaming()
    process.send_signal(signal.SIGTERM)
    assert (await finish(process)).code == 143
    assert cli.emulator.live == 0


async def test_a_second_ctrl_c_hurries_and_names_the_task(cli: Cli) -> None:
    """Where nothing answers, the second Ctrl-C ends the command, which says what may still run."""
    cli.emulator.fault("delete", Fault("black_hole"))
    process = await cli.streaming()
    process.send_signal(signal.SIGINT)
    await cli.emulator.wait_for(lambda state: state["deletes_received"])
    process.send_signal(signal.SIGINT)
    ended = await finish(process)
    assert ended.code == 130
    [task_id] = cli.emulator.tasks
    assert f"the task {task_id} is unconfirmed and may still run" in ended.err


async def test_a_ledger_that_cannot_be_opened(cli: Cli, tmp_path: Path) -> None:
    """What the ledger says is said, with exit code 3, and nothing was sent."""
    cli.env["SIGMIC_GUARD_LEDGER"] = f"sqlite:///{tmp_path}"
    ended = await cli.run("run", "hello")
    assert ended.code == 3
    assert str(tmp_path) in ended.err
    assert "enter the supervisor" not in ended.err
    assert not cli.emulator.requests


# --- readers ------------------------------------------------------------------------------------


async def test_a_closed_pipe(cli: Cli) -> None:
    """When the reader goes, the task goes: exit 1, without a traceback."""
    cli.emulator.set_script(Script(duration=60, chunks=("line\n",) * 3000, hold=True))
    reading, writing = os.pipe()
    process = await cli.start("run", "hello", stdout=writing)
    os.close(writing)
    await asyncio.to_thread(os.read, reading, 1)
    os.close(reading)
    ended = await finish(process)
    assert ended.code == 1
    assert cli.emulator.state()["tasks"]["cancelled"] == 1


async def test_a_reader_that_stands_still(cli: Cli) -> None:
    """A pipe that is full holds up neither the deadline nor the exit."""
    chunks = ("x" * 100_000,) * 5
    cli.emulator.set_script(Script(duration=0.1, chunks=chunks, hold=True))
    reading, writing = os.pipe()
    try:
        process = await cli.start("run", "hello", "--timeout", "1", stdout=writing)
        os.close(writing)
        assert (await finish(process)).code == 124
        assert cli.emulator.live == 0
    finally:
        os.close(reading)


# --- --json -------------------------------------------------------------------------------------


async def test_json(cli: Cli) -> None:
    """Each line of stdout is a JSON object: the start, the events, the result."""
    cli.emulator.set_script(QUICK)
    ended = await cli.run("run", "hello", "--json")
    [task_id] = cli.emulator.tasks
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[0] == {"kind": "started", "id": task_id}
    text = [line["data"]["text"] for line in ended.of_kind("event") if line["type"] == "content"]
    assert "".join(text) == "Hello world"
    result = ended.lines[-1]
    assert (result["kind"], result["id"], result["outcome"]) == ("result", task_id, "completed")
    assert result["final_response"] == "Hello world"
    assert result["cancellation"] is None


async def test_json_of_a_cancellation(cli: Cli) -> None:
    """The result line comes after a signal as well, and says that the end is confirmed."""
    process = await cli.streaming("--json")
    process.send_signal(signal.SIGTERM)
    ended = await finish(process)
    [result] = ended.of_kind("result")
    assert (ended.code, result["outcome"], result["reason"]) == (143, "cancelled", "shutdown")
    assert result["cancellation"]["result"] == "confirmed"


async def test_json_of_an_error(cli: Cli) -> None:
    """An error without a task is an object too."""
    cli.env["SIGMIC_API_KEY"] = "sigmic_other"
    ended = await cli.run("run", "hello", "--json")
    [error] = ended.lines
    assert (ended.code, error["kind"], error["error"]) == (3, "error", "AuthenticationError")


# --- what is sent -------------------------------------------------------------------------------


async def test_options_reach_the_task(cli: Cli) -> None:
    """System prompt and variables are those of the task; a secret can come from the environment."""
    cli.emulator.set_script(QUICK)
    cli.env["TOKEN"] = "hush"
    arguments = ("--system-prompt", "Be brief", "--env", "A=1=2", "--secret", "TOKEN")
    ended = await cli.run("run", "hello", *arguments, "--secret", "OTHER=hush")
    assert ended.code == 0
    [task] = cli.emulator.tasks.values()
    assert (task.message, task.draft.system_prompt, task.env["A"]) == ("hello", "Be brief", "1=2")
    assert "hush" not in ended.out + ended.err


async def test_files_reach_the_task(cli: Cli, tmp_path: Path) -> None:
    """Files are sent; several of them with several options."""
    cli.emulator.set_script(QUICK)
    (tmp_path / "a.txt").write_bytes(b"aaa")
    (tmp_path / "b.txt").write_bytes(b"bb")
    files = ("--file", str(tmp_path / "a.txt"), "--file", str(tmp_path / "b.txt"))
    ended = await cli.run("run", "hello", *files)
    assert ended.code == 0
    [task] = cli.emulator.tasks.values()
    assert task.draft.files == (("a.txt", 3), ("b.txt", 2))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "Missing argument"),
        (["hello", "--timeout", "soon"], "--timeout"),
        (["hello", "--timeout", "-1"], "--timeout"),
        (["hello", "--timeout", "nan"], "timeout"),
        (["hello", "--env", "A"], "NAME=VALUE"),
        (["hello", "--env", "1=2"], "env holds a name"),
        (["hello", "--secret", "NO_SUCH_VARIABLE"], "of a variable that is set"),
        (["hello", "--file", "no/such/file"], "No such file"),
        (["hello", "--file", __file__, "--env", "A=1"], "files"),
        (["hello", "--base-url", "nonsense"], "base URL"),
        (["hello", "--api-key", "sigmic_1"], "No such option"),
        ([""], "message"),
    ],
)
async def test_wrong_usage(cli: Cli, arguments: list[str], said: str) -> None:
    """What cannot be right leads to exit code 2, is told on stderr, and sends nothing."""
    ended = await cli.run("run", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert cli.emulator.count() == 0


# --- credentials and connection -----------------------------------------------------------------

COMMANDS: Final = [
    ("run", "hello"),
    pytest.param(("list",), marks=pytest.mark.slow),
    pytest.param(("status", "x"), marks=pytest.mark.slow),
    pytest.param(("cancel", "x", "--wait", "0.2"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("command", COMMANDS)
async def test_no_credentials(cli: Cli, command: tuple[str, ...]) -> None:
    """Without an API key every command says which variable to set, and exits with 3."""
    cli.env["SIGMIC_API_KEY"] = ""
    ended = await cli.run(*command)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == "sigmic-guard: there is no API key: set SIGMIC_API_KEY\n"


async def test_malformed_credentials(cli: Cli) -> None:
    """A key that cannot be one is refused before anything is sent, and not shown."""
    cli.env["SIGMIC_API_KEY"] = f"{KEY}\n"
    ended = await cli.run("run", "hello")
    assert ended.code == 3
    assert cli.emulator.count() == 0


@pytest.mark.parametrize("command", COMMANDS)
async def test_wrong_credentials(cli: Cli, command: tuple[str, ...]) -> None:
    """A key that the API does not know leads to one line on stderr and exit code 3."""
    cli.env["SIGMIC_API_KEY"] = "sigmic_other"
    ended = await cli.run(*command)
    assert (ended.code, ended.out) == (3, "")
    [line] = ended.err.splitlines()
    assert "INVALID_API_KEY" in line


@pytest.mark.parametrize("command", COMMANDS)
async def test_unreachable(cli: Cli, command: tuple[str, ...]) -> None:
    """Where nobody listens there is one line on stderr, and exit code 3."""
    ended = await cli.run(*command, "--base-url", NOBODY)
    assert (ended.code, ended.out) == (3, "")
    [line] = ended.err.splitlines()
    assert "No connection to 127.0.0.1:9 could be made" in line
    assert "refused" in line


# --- terminals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("env, coloured", [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_colours_on_a_terminal(cli: Cli, env: dict[str, str], coloured: bool) -> None:
    """A terminal gets colours, unless NO_COLOR is set."""
    cli.emulator.set_script(QUICK)
    cli.env |= env
    code, shown = await on_a_terminal(cli, "run", "hello")
    assert code == 0
    assert "Hello world" in shown
    assert ("\x1b[" in shown) is coloured


async def test_an_answer_cannot_steer_the_terminal(cli: Cli) -> None:
    """Control characters reach a pipe as they are, and a terminal not at all."""
    wild = "a\x1b]0;title\x07b\x1b[2J\u009b2Jc"
    cli.emulator.set_script(Script(duration=0.0, chunks=(wild,)))
    cli.env["NO_COLOR"] = "1"
    assert (await cli.run("run", "hello")).out == f"{wild}\n"
    _, shown = await on_a_terminal(cli, "run", "hello")
    assert "a]0;titleb[2J2Jc" in shown
    assert "\x1b" not in shown


# --- without the extra --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "missing, command", [("typer", "list"), ("rich", "ps --watch --ledger sqlite:///x.db")]
)
async def test_without_the_extra(missing: str, command: str) -> None:
    """Where the extra is not installed the command says how to get it, and exits with 2."""
    program = f"import sys; sys.modules[{missing!r}] = None\nimport sigmic_guard.cli as c; c.main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *command.split()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ended = await finish(process)
    assert ended.code == 2
    assert f"{missing} is missing" in ended.err
    assert "pip install 'sigmic-guard[cli]'" in ended.err
