"""The demo, played: real processes, real signals, and nothing left of them."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cli.conftest import Ended, finish

pytestmark = pytest.mark.slow

DEMO: Final = Path(__file__).parents[2] / "examples" / "demo"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's state and all temporary files would be, and a ledger that is the user's."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("SIGMIC_GUARD_LEDGER", f"sqlite:///{folder}/users.db")
    return folder


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(DEMO), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def demo(*arguments: str) -> Ended:
    return await finish(await _start(*arguments))


async def test_the_demo(tmp_path: Path, home: Path) -> None:
    """A SIGTERM, a SIGKILL: the books agree, nothing runs, nothing is left but the picture."""
    ended = await demo("--tasks", "60", "--svg", str(tmp_path / "demo.svg"))
    assert ended.code == 0, ended
    assert ended.err == ""
    assert "SIGTERM came with 15 running" in ended.out
    assert "SIGKILL came with 30 running and 4 creates in flight" in ended.out
    assert ended.out.count("0 tasks left running. The books agree.") == 2
    assert "\x1b" not in ended.out
    assert (tmp_path / "demo.svg").read_text().count("books&#160;agree") == 2
    assert list(home.iterdir()) == []


async def test_the_demo_finds_lies_out() -> None:
    """The negative control: where DELETEs lie and a ledger forgets, both acts end red."""
    ended = await demo("--tasks", "20", "--lie")
    assert ended.code == 1
    assert ended.out.count("The books differ.") == 2
    left = re.findall(r"(\d+) tasks left running", ended.out)
    assert len(left) == 2
    assert all(int(number) > 0 for number in left)


@pytest.mark.parametrize(
    "number, when, code",
    [
        (signal.SIGINT, b"at most", 130),
        (signal.SIGTERM, b"at most", 143),
        (signal.SIGTERM, b"more tasks", 143),
        (signal.SIGTERM, b"the next start", 143),
    ],
)
async def test_a_signal_to_the_demo(
    number: signal.Signals, when: bytes, code: int, home: Path
) -> None:
    """A demo that is interrupted takes its processes and its ledgers with it."""
    process = await _start("--tasks", "20")
    assert process.stdout is not None
    async for line in process.stdout:
        if when in line:
            break
    process.send_signal(number)
    assert (await finish(process)).code == code  # its pipes are closed: nobody holds them any more
    assert list(home.iterdir()) == []


async def test_the_emulator_ends_with_the_demo() -> None:
    """Also where that is killed, and can tell it nothing: nobody holds its pipes any more."""
    process = await _start("--tasks", "20")
    assert process.stdout is not None
    async for line in process.stdout:
        if b"at most" in line:
            break
    process.kill()
    assert (await finish(process)).code == -signal.SIGKILL
