"""``exec`` is not in the way: arguments, streams, environment, exit status."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.cli.exec.watch import KEY, Watch, program
from tests.families import slow_if

if TYPE_CHECKING:
    from pathlib import Path

STATUSES = {
    ("--", "sh", "-c", "exit 3"): 3,
    ("sh", "-c", "kill -TERM $$"): 128 + 15,
    ("no-such-program",): 127,
    ("/etc/passwd",): 126,
    ("",): 127,
    (): 2,
}


def test_the_status_is_the_programs(watch: Watch) -> None:
    """The status is the program's, 128 + N for a signal, 126 and 127 as in a shell, 2 for us."""
    with ThreadPoolExecutor(4) as pool:
        ended = pool.map(lambda command: watch.run(*command), STATUSES)
    said = {
        command: (one.returncode, one.stderr) for command, one in zip(STATUSES, ended, strict=True)
    }
    assert {command: code for command, (code, _) in said.items()} == STATUSES, said
    assert b"no-such-program: No such file or directory" in said["no-such-program",][1]
    assert not any(b"Traceback" in stderr for _, stderr in said.values()), said
    assert {code for code, stderr in said.values() if stderr} == {2, 126, 127}


@pytest.mark.parametrize(
    "before", [(), pytest.param(("--",), marks=pytest.mark.slow)], ids=["bare", "after --"]
)
def test_no_argument_is_taken_for_ours(watch: Watch, before: tuple[str, ...]) -> None:
    """Whatever follows the program's name is the program's: options, ``--``, odd bytes."""
    arguments = ["--help", "--", "-x", "--grace", "--", "", " a  b ", "*", "\udcff", "ä"]
    ended = watch.run(*before, "printf", "%s\n", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode(errors="surrogateescape").splitlines() == arguments


@pytest.mark.slow
def test_options_before_the_program_are_ours(watch: Watch) -> None:
    """``--grace`` before the program's name is ours, and so is ``--help``."""
    assert watch.run("--grace", "1", "printf", "x").stdout == b"x"
    assert b"CMD" in watch.run("--help", "true").stdout


def test_streams_pass_untouched(watch: Watch) -> None:
    """Megabytes of any bytes go in and come out of the program as they are."""
    data = random.Random(1).randbytes(5_000_000)
    ended = watch.run("sh", "-c", "tee /dev/stderr", input=data)
    assert ended.returncode == 0
    assert ended.stdout == data
    assert ended.stderr == data


@pytest.mark.slow
def test_the_pipes_end_with_the_program(watch: Watch) -> None:
    """Who writes to the program's stdin sees a broken pipe as soon as the program closes it."""
    closes = ("sh", "-c", 'exec <&-; exec "$@"', "sh")
    with watch.start(*closes, *program("tells.py"), stdin=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        process.stdout.readline()  # so by now we do nothing but wait
        with pytest.raises(BrokenPipeError):
            os.write(process.stdin.fileno(), b"x")


@pytest.mark.slow
def test_other_files_are_inherited(watch: Watch) -> None:
    """A descriptor that the caller passes down arrives, and none of ours does."""
    read, write = os.pipe()
    ended = watch.run("sh", "-c", f"echo told > /dev/fd/{write}; ls /dev/fd", pass_fds=(write,))
    os.close(write)
    assert os.read(read, 100) == b"told\n"
    os.close(read)
    # One more: the folder that ls reads.
    assert len(set(ended.stdout.split()) - {b"0", b"1", b"2", str(write).encode()}) == 1


@pytest.mark.parametrize(
    "given, got",
    [
        ("sqlite:///{}/some.db", "sqlite:///{}/some.db"),
        ("sqlite:///some.db", "sqlite:///{}/some.db"),
        ("", "sqlite:///{}/sigmic-guard/ledger.db"),
    ],
    ids=["absolute", "relative", "default"],
)
def test_the_program_learns_the_ledger(watch: Watch, tmp_path: Path, given: str, got: str) -> None:
    """The environment is ours, and names the ledger, wherever the program goes and if we do not."""
    watch.env.update(SIGMIC_GUARD_LEDGER=given.format(tmp_path), OTHER="kept")
    watch.env["XDG_STATE_HOME"] = str(tmp_path)
    ended = watch.run("sh", "-c", "cd /; echo $SIGMIC_GUARD_LEDGER; echo $OTHER", cwd=tmp_path)
    assert ended.stdout.decode().split() == [got.format(tmp_path), "kept"], ended.stderr


REFUSED = {
    "memory": ({"SIGMIC_GUARD_LEDGER": "memory:"}, 2, "dies with the program"),
    "unknown ledger": ({"SIGMIC_GUARD_LEDGER": "carrier-pigeon:"}, 2, "carrier-pigeon"),
    "no such folder": ({"SIGMIC_GUARD_LEDGER": "sqlite:////dev/null/ledger.db"}, 125, "/dev/null"),
    "no key": ({"SIGMIC_API_KEY": ""}, 125, "set SIGMIC_API_KEY"),
    "no key at all": ({"SIGMIC_API_KEY": KEY[7:]}, 125, "must begin with"),
}


@pytest.mark.parametrize("why", slow_if(lambda why: why not in {"memory", "no key"}, REFUSED))
def test_what_cannot_be_watched_is_not_run(watch: Watch, tmp_path: Path, why: str) -> None:
    """Without a ledger that lasts, or a credential, the program is not run; why is told."""
    environment, code, words = REFUSED[why]
    watch.env.update(environment)
    ended = watch.run("touch", str(tmp_path / "ran"))
    assert ended.returncode == code
    assert words in ended.stderr.decode()
    assert "not run" in ended.stderr.decode()
    assert KEY[7:] not in ended.stderr.decode()
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_ledger_that_is_none_is_refused(watch: Watch, tmp_path: Path) -> None:
    """A file that is no ledger is found before the program runs, and left as it is."""
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    ended = watch.run(sys.executable, "-c", "print('ran')")
    assert (ended.returncode, ended.stdout) == (125, b""), ended.stderr
    assert (tmp_path / "ledger.db").read_bytes() == b"no database" * 1000
