"""Owns tasks behind a watchdog, says which process that is, and dies as it is told.

Run as ``python victim.py HOW NUMBER``, where NUMBER is of tasks, and HOW is one of the names below.
It says a line of JSON for each helper that it starts, and one when its tasks are there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import patch

import anyio
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.watchdog import parent, process

if TYPE_CHECKING:
    from collections.abc import Callable


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def die(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def starting(*arguments: Any, deaf: bool = False, **options: Any) -> subprocess.Popen[bytes]:
    """Start the helper, or one that listens to nothing."""
    command, *more = arguments
    if deaf:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = subprocess.Popen(command, *more, **options)
    say(helper=process.pid)
    return process


def fork() -> None:
    """Leave a child behind that keeps what it was given, but for what we are heard by."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads; the child has none
        pid = os.fork()
    if pid == 0:
        for fd in (0, 1, 2):
            os.close(fd)
        while True:
            signal.pause()
    say(child=pid)


def fork_that_inherits() -> None:
    """Do it as if nothing closed the pipe in a child."""
    process.helpers.clear()
    fork()


def spawn() -> None:
    """Leave a child behind that runs a program of its own."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    say(child=os.posix_spawn(sys.executable, command, os.environ))


def hang_up() -> None:
    """Close our end of the pipe, as whoever closes all that is open does."""
    [helper] = process.helpers
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, helper._fds[1], inheritable=False)


def fail() -> NoReturn:
    raise RuntimeError("as intended")


def half(helper: process.HelperProcess, thing: object) -> NoReturn:
    """Write half of a line, and die."""
    line = json.dumps(thing).encode()
    os.write(helper._fds[1], line[: len(line) // 2])
    die()


BEFORE: dict[str, Callable[[], Any]] = {
    "before the helper": lambda: patch.object(parent.Watchdog, "start", die),
    "before its config": lambda: patch.object(process.HelperProcess, "_write", die),
    "in the middle of its config": lambda: patch.object(process.HelperProcess, "_write", half),
}
AFTER: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "abort": os.abort,
    "fork": fork,
    "fork that inherits": fork_that_inherits,
    "spawn": spawn,
    "hang up": hang_up,
    "fail": fail,
}


async def create_more(supervisor: Supervisor, lane: int) -> None:
    number = 0
    while True:
        await supervisor.start(f"more {lane}.{number}")
        number += 1


async def main(how: str, number: int) -> None:
    supervisor = Supervisor(
        watchdog=how != "without",
        registry=CollectorRegistry(),
        create_timeout=1.0,
        grace=1.0,
        max_tasks=None,
    )
    async with supervisor, anyio.create_task_group() as group:
        for n in range(number):
            key = f"key {n}" if how in {"reattach", "hand over"} else None
            on_crash: Any = "reattach" if how == "reattach" else "cancel"
            on_shutdown: Any = "reattach" if how == "hand over" else "cancel"
            terms = {"on_crash": on_crash, "on_shutdown": on_shutdown, "reattach_within": 1.0}
            start = partial(supervisor.start, f"task {n}", key=key, **terms)
            group.start_soon(start)
        while len(supervisor.tasks) < number:
            await anyio.sleep(0.01)
        await supervisor.reap()  # the ids are in the ledger by now
        if how == "in flight":
            for lane in range(20):
                group.start_soon(create_more, supervisor, lane)
        assert supervisor._core is not None
        say(owner=supervisor._core.ground.owner_id)
        say(ready=True)
        if how in AFTER:
            AFTER[how]()
            say(done=True)
        if how in {"drain", "leave", "hand over"}:
            group.cancel_scope.cancel()
            return
        await anyio.sleep_forever()


if __name__ == "__main__":
    how, number = sys.argv[1], int(sys.argv[2])
    with patch.object(process, "Popen", partial(starting, deaf=how == "deaf")):
        if how in BEFORE:
            with BEFORE[how]():
                anyio.run(main, how, number)
        else:
            anyio.run(main, how, number)
