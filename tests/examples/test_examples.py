"""Each example is a program that does what it says and leaves nothing running, wherever it runs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import pytest

import sigmic_guard
from sigmic_guard.emulator import Emulator, Script
from tests.families import slow_if

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
HELPERS: Final = {"anywhere.py", "until_eof.py"}
ID: Final = "[0-9a-f-]{36}"

#: What each of them prints, line by line, on the emulator that it starts itself.
ON_ITS_OWN: Final = {
    "timeout.py": [
        f"Task {ID} has one second.",
        "one, two, .*",
        f"Too slow: {ID} reached its deadline; it is cancelled",
        "The DELETE was acknowledged",
        "Too slow again.",
        "Tasks on the emulator: 2; still running: 0",
    ],
    "cancel_button.py": [
        f"Started {ID}",
        "Cancelled: acknowledged",
        "There is nothing to cancel: the task has ended.",
        "The outcome is cancelled, the reason user.",
        "Tasks on the emulator: 2; still running: 0",
    ],
    "status_after_cancel.py": [
        r"Before: (running|pending) since \d{4}-.*Z",
        "The cancellation is confirmed",
        r"After: cancelled at \d{4}-.*Z with error None",
        rf"No follow-up: {ID} was cancelled \(reason: user\); it is cancelled",
        "Tasks on the emulator: 1; still running: 0",
    ],
    "many_tasks.py": [
        f"Chapter 7 has no summary: {ID} failed: the agent gave up",
        "Tasks on the emulator: 20; still running: 0",
        "19 of 20 chapters have a summary.",
    ],
    "approvals_and_follow_ups.py": [
        r"\[shell: approved\] 12 tests passed, 1 failed.",
        "test_leap_year: February had 29 days.",
        "The task is completed; its last answer: test_leap_year: February had 29 days.",
        "Tasks on the emulator: 1; still running: 0",
    ],
    "reattach.py": [
        f"Worker on {ID}: one, …",
        "The worker was killed, with status -9.",
        f"Worker on {ID}: one, two, three.",
        "Done, it is completed.",
        "The worker was spared, with status 0.",
        "Tasks on the emulator: 1; still running: 0",
    ],
}

#: The remote systems that they meet when they are given a key: how tasks go, and how they end.
GIVEN_A_KEY: Final = {
    "timeout.py": (Script(hold=True), {"cancelled": 2}),
    "cancel_button.py": (Script(hold=True), {"cancelled": 2}),
    "status_after_cancel.py": (Script(hold=True), {"cancelled": 1}),
    "many_tasks.py": (Script(duration=0.1), {"completed": 20}),
    "approvals_and_follow_ups.py": (Script(approval="shell"), {"completed": 1}),
    "reattach.py": (Script(duration=4.0), {"completed": 1}),
}

LEAKY: Final = """
import anyio
from sigmic_guard import SigmicClient
from sigmic_guard.sigmic import CreateRequest

async def main():
    async with SigmicClient() as client:
        await client.create(CreateRequest(message="and forget"), timeout=5)

anyio.run(main)
"""


async def run(*program: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, with these variables of ours and no other."""
    inherited = {name: value for name, value in os.environ.items() if "SIGMIC" not in name}
    package = Path(sigmic_guard.__path__[0])
    return await anyio.run_process(
        [sys.executable, "-W", "error", *program],
        cwd=EXAMPLES.parent,
        env={**inherited, "PYTHONPATH": str(package.parent), **environment},
        check=False,
    )


def account(emulator: Emulator) -> Mapping[str, str]:
    """What makes a program use this remote system."""
    return {"SIGMIC_API_KEY": "sigmic_of_the_test", "SIGMIC_BASE_URL": emulator.url}


def most_at_once(emulator: Emulator) -> int:
    """How many tasks ever ran at the same time."""
    changes = sorted(
        change
        for task in emulator.tasks.values()
        for change in ((task.created_at, 1), (task.completed_at or float("inf"), -1))
    )
    most = now = 0
    for _, step in changes:
        now += step
        most = max(most, now)
    return most


@pytest.mark.parametrize("name", ON_ITS_OWN)
async def test_an_example_runs_on_its_own(name: str) -> None:
    """Without a key it exits with 0, warns of nothing, and prints what is expected."""
    done = await run(str(EXAMPLES / name))
    assert (done.returncode, done.stderr.decode()) == (0, "")
    printed = [line.strip() for line in done.stdout.decode().splitlines()]
    expected = ON_ITS_OWN[name]
    assert len(printed) == len(expected), printed
    for line, pattern in zip(printed, expected, strict=True):
        assert re.fullmatch(pattern, line)


@pytest.mark.parametrize(
    "name", slow_if(lambda name: name not in {"many_tasks.py", "reattach.py"}, GIVEN_A_KEY)
)
async def test_an_example_runs_against_the_system_it_is_given(name: str) -> None:
    """With a key it starts no emulator; the system that the key is for sees its tasks end."""
    script, ends = GIVEN_A_KEY[name]
    async with Emulator(script=script, api_key="sigmic_of_the_test") as emulator:
        done = await run(str(EXAMPLES / name), **account(emulator))
        assert (done.returncode, done.stderr.decode()) == (0, "")
        assert b"emulator" not in done.stdout
        assert emulator.live == 0
        counts = emulator.state()["tasks"]
        assert {status: counts[status] for status in ends} == ends
        assert counts["total"] == sum(ends.values())
        if name == "many_tasks.py":
            assert most_at_once(emulator) <= 5


async def test_a_program_without_a_supervisor_leaks(tmp_path: Path) -> None:
    """Negative control: fire and forget is seen to leave its task running."""
    program = tmp_path / "leaky.py"
    program.write_text(LEAKY)
    async with Emulator(script=Script(hold=True)) as emulator:
        done = await run(str(program), **account(emulator))
        assert (done.returncode, done.stderr.decode()) == (0, "")
        assert emulator.live == 1


def test_every_example_is_run() -> None:
    """No program lies in the folder that the tests above forget."""
    programs = {path.name for path in EXAMPLES.glob("*.py")} - HELPERS
    assert programs == set(ON_ITS_OWN) == set(GIVEN_A_KEY)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_what_it_shows(path: Path) -> None:
    """Fewer than 60 lines, and the first of them is a docstring."""
    source = path.read_text()
    assert len(source.splitlines()) < 60
    assert ast.get_docstring(ast.parse(source))
