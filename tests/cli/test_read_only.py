"""Commands that only look need no permission to write: neither the file, nor its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest
from anyio import to_thread

from sigmic_guard.ledger import SqliteLedger, Write
from sigmic_guard.lifecycle import State
from sigmic_guard.testing.records import make_record
from tests.cli.conftest import MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

#: Runs commands as somebody who may read and nothing else: root may do anything.
PROGRAM: Final = """
import os, sys
import sigmic_guard.cli.app as cli

def run(path):
    for command in (["ps"], ["explain", "intent-1"]):
        try:
            cli.app([*command, "--ledger", "sqlite:///" + path], prog_name="sigmic-guard")
        except SystemExit as error:
            print(error.code, flush=True)

run("/nowhere/ledger.db")  # all that is needed is imported by it, while that can be read
for stream in (sys.stdout, sys.stderr):
    print("--", file=stream, flush=True)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for path in sys.argv[1:]:
    assert not os.access(path, os.W_OK)
    run(path)
    print("--", flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that anybody may look into, which those of pytest are not."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody but root write anything there."""
    paths = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in paths]
    for path in reversed(paths):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


async def write(file: Path) -> SqliteLedger:
    """Write a row; return the ledger, which is open."""
    file.parent.mkdir()
    ledger = SqliteLedger(file)
    await ledger.open("living")
    row = make_record(state=State.RUNNING, remote_id="remote-1", owner_id="living")
    await ledger.commit([Write(row, 0)])
    return ledger


async def test_looking_takes_no_permission_to_write(folder: Path) -> None:
    """Rows are told, and who lives: those in the log of a process that runs, or was killed, too.

    And those of a file that was closed in good order, without a log, where none may be made.
    """
    files = [folder / name / "ledger.db" for name in ("open", "killed", "closed", "hidden")]
    in_use, left, closed, hidden = files
    ledger = await write(in_use)
    try:
        left.parent.mkdir()
        for path in in_use.parent.glob("ledger.db*"):
            if path.is_file():
                shutil.copy(path, left.parent)
        assert Path(f"{left}-wal").stat().st_size
        await (await write(closed)).aclose()
        assert not Path(f"{closed}-wal").exists()
        shutil.copytree(closed.parent, hidden.parent)
        with read_only(folder):
            Path(f"{hidden}.owners").chmod(0)
            done = await to_thread.run_sync(
                lambda: subprocess.run(
                    [sys.executable, "-c", PROGRAM, *map(str, files)],
                    capture_output=True,
                    text=True,
                    timeout=MAX_SECONDS,
                    cwd="/",
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    check=False,
                )
            )
    finally:
        await ledger.aclose()
    assert "sigmic-guard: " not in done.stderr.partition("--\n")[2], done.stderr
    _, *looks, rest = done.stdout.split("--\n")
    assert (len(looks), rest) == (4, ""), done.stderr
    assert "1 task; 1 whose owner's lock file this user may not read; " in done.stderr
    assert "alive as far as can be told" in looks[-1]
    lives = ("alive", "alive", "dead for ", "alive?")
    for look, life, code in zip(looks, lives, "0010", strict=True):
        row, status, *explanation, done_status = look.splitlines()
        assert row.startswith("remote-1\trunning\t-\t")
        assert row.split("\t")[4].rstrip("0123456789d") == life
        assert status == code
        assert "task\tremote-1" in explanation
        assert done_status == "0"
