"""``sigmic-guard exec`` and ``Supervisor(watchdog=True)``: the end comes at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.deaths import MAX_SECONDS, Home, Mortal, gone, heir, kill, mortal, stage
from tests.blackbox.lab import SLACK, until

EXEC = (sys.executable, "-m", "sigmic_guard.cli", "exec")
MORTAL = (sys.executable, "-m", "tests.blackbox.mortal")


@asynccontextmanager
async def watched(home: Home, *prefix: str, **options: Any) -> AsyncIterator[Mortal]:
    """A mortal under ``exec``; its own pid is its greeting."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *EXEC,
        "--",
        *MORTAL,
        json.dumps(options),
        env=home.env,
        cwd=home.path,
        stdin=PIPE,
        stdout=PIPE,
    )
    made = Mortal(process)
    try:
        async with asyncio.timeout(MAX_SECONDS):
            await asyncio.shield(made.greeting)
        yield made
    finally:
        if made.greeting.done() and process.returncode is None:
            os.kill(made.greeting.result(), signal.SIGKILL)
            await asyncio.wait_for(process.wait(), MAX_SECONDS)
        await made.close()


def helpers(home: Home, process: Mortal) -> list[int]:
    """The processes of this home that live, but for the mortal itself."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) != process.pid:
            with suppress(OSError):
                if f"HOME={home.path}\0".encode() in (each / "environ").read_bytes():
                    found.append(int(each.name))
    return found


async def ended(process: Mortal) -> int:
    async with asyncio.timeout(MAX_SECONDS):
        return await process.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_death(tmp_path: Path, number: int) -> None:
    """The child dies with 100 tasks: all DELETEs within 2 s, and nothing else is touched."""
    async with stage(tmp_path) as home, mortal(home) as neighbour:
        kept = await neighbour.start(times=3)
        async with watched(home) as process:
            ids = await process.start(times=100)
            os.kill(process.greeting.result(), number)
            began = time.monotonic()
            await gone(home.server, *ids)
            assert time.monotonic() - began < 2 + SLACK
            assert await ended(process) == 128 + number
        assert sorted(home.server.world.live) == sorted(kept)
        assert home.server.count("DELETE") == 100


@pytest.mark.slow
async def test_a_good_end(tmp_path: Path) -> None:
    """A program that ends well is not kept waiting."""
    async with stage(tmp_path) as home, watched(home) as process:
        await process.start(times=3)
        began = time.monotonic()
        assert await process.leave() == 0
        assert time.monotonic() - began < 5 + SLACK
        assert home.server.world.live == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_are_passed_on(tmp_path: Path, number: int) -> None:
    """What we get the program gets; its status is ours."""
    async with stage(tmp_path) as home:
        code = (
            "import signal\n"
            "def told(number, _):\n"
            "    raise SystemExit(number + 1)\n"
            f"signal.signal({int(number)}, told)\n"
            "print('ready', flush=True)\n"
            "while True: signal.pause()\n"
        )
        process = await asyncio.create_subprocess_exec(
            *EXEC, "--", sys.executable, "-c", code, env=home.env, stdout=PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(MAX_SECONDS):
                assert await process.stdout.readline() == b"ready\n"
                process.send_signal(number)
                assert await process.wait() == number + 1
        finally:
            await kill(process)


@pytest.mark.slow
async def test_sigterm_to_a_supervisor_that_listens(tmp_path: Path) -> None:
    """A program with `signals=True` drains by itself; nothing is left to end, nor ended twice."""
    async with stage(tmp_path) as home, watched(home, signals=True) as process:
        ids = await process.start(times=5)
        process.signal(signal.SIGTERM)
        assert await ended(process) == 143
        await gone(home.server, *ids, within=1)
        assert home.server.count("DELETE") == 5


@pytest.mark.slow
async def test_a_create_under_way_at_the_death(tmp_path: Path) -> None:
    """A create that was answered to nobody is found, if not at once, then by the next reaper."""
    async with stage(tmp_path) as home:

        async def hang(request: Any, _: Any) -> None:
            home.server.world.create(request.headers["content-type"], request.body)
            await asyncio.Event().wait()

        async with watched(home, create_timeout=1.0) as process:
            await process.start(times=2)
            home.server.once("create", hang)
            process.post("start", message="x")
            await until(lambda: len(home.server.world.tasks) == 3)
            os.kill(process.greeting.result(), signal.SIGKILL)
            await gone(home.server, *home.server.world.tasks)
            await ended(process)


@pytest.mark.slow
async def test_grandchildren(tmp_path: Path) -> None:
    """A program whose supervisor lives in a child of its own: both die, its tasks are ended."""
    async with stage(tmp_path) as home:
        command = [*MORTAL, "{}"]
        code = (
            "import os, signal, subprocess, sys\n"
            f"child = subprocess.Popen({command!r}, stdin=subprocess.PIPE)\n"
            'child.stdin.write(b\'[1, "start", {"message": "x", "times": 3}]\\n\')\n'
            "child.stdin.flush()\n"
            "sys.stdin.readline()\n"
            "child.kill()\n"
            "child.wait()\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        process = await asyncio.create_subprocess_exec(
            *EXEC, "--", sys.executable, "-c", code, env=home.env, stdin=PIPE, stdout=PIPE
        )
        try:
            assert process.stdin is not None
            await until(lambda: len(home.server.world.tasks) == 3, within=MAX_SECONDS)
            process.stdin.write(b"\n")
            await gone(home.server, *home.server.world.tasks)
            async with asyncio.timeout(MAX_SECONDS):
                assert await process.wait() == 137
        finally:
            await kill(process)


@pytest.mark.slow
async def test_an_api_that_hangs(tmp_path: Path) -> None:
    """What cannot be ended keeps `exec` no longer than its `--grace`, and stays in the ledger."""
    async with stage(tmp_path) as home:

        async def hang(*_: Any) -> None:
            await asyncio.Event().wait()

        code = (
            "import asyncio, os, sigmic_guard\n"
            "async def main():\n"
            "    async with sigmic_guard.Supervisor() as supervisor:\n"
            "        await supervisor.start('x')\n"
            "        os.kill(os.getpid(), 9)\n"
            "asyncio.run(main())\n"
        )
        home.server.always["delete"] = hang
        home.server.always["get"] = hang
        began = time.monotonic()
        called = await home.call("exec", "--grace", "1", "--", sys.executable, "-c", code)
        assert called.status == 137
        assert time.monotonic() - began < 8 + SLACK
        assert len(await home.rows()) == 1
        home.server.always.clear()
        assert (await home.call("reap")).status == 0
        assert home.server.world.live == []


@pytest.mark.slow
async def test_killed_with_its_watcher(tmp_path: Path) -> None:
    """If `exec` is killed first and the program later, the next start ends what is left."""
    async with stage(tmp_path) as home, watched(home) as process:
        ids = await process.start(times=3)
        process.signal(signal.SIGKILL)
        with suppress(ProcessLookupError):  # it may die with its watcher
            os.kill(process.greeting.result(), signal.SIGKILL)
        await ended(process)
        async with heir(home) as supervisor:
            await gone(home.server, *ids)
            await supervisor.reap()


async def test_watchdog(tmp_path: Path) -> None:
    """`watchdog=True`: SIGKILL, and all DELETEs are sent within 2 s, with nobody else there."""
    async with stage(tmp_path) as home:
        async with mortal(home, watchdog=True) as process:
            ids = await process.start(times=50)
            began = time.monotonic()
            await process.kill()
            await gone(home.server, *ids)
            assert time.monotonic() - began < 2 + SLACK
        await until(lambda: home.server.count("DELETE") == 50)


@pytest.mark.slow
async def test_watchdog_and_a_good_end(tmp_path: Path) -> None:
    """At a good end there is nothing for it to do, and it goes as well."""
    async with stage(tmp_path) as home:
        async with mortal(home, watchdog=True) as process:
            await process.start(times=2)
            assert len(helpers(home, process)) == 1
            assert await process.leave() == 0
        assert home.server.count("DELETE") == 2
        await until(lambda: not helpers(home, process))


@pytest.mark.slow
async def test_watchdog_that_dies(tmp_path: Path) -> None:
    """The helper's own death touches no task."""
    async with stage(tmp_path) as home, mortal(home, watchdog=True) as process:
        ids = await process.start(times=2)
        (helper,) = helpers(home, process)
        os.kill(helper, signal.SIGKILL)
        assert await process.ask("cancel", task_id=ids[0]) == "acknowledged"
        assert home.server.world.live == ids[1:]


@pytest.mark.slow
async def test_watchdog_and_a_fork(tmp_path: Path) -> None:
    """A forked child that survives does not hide the death of its parent from the helper."""
    async with stage(tmp_path) as home, mortal(home, watchdog=True) as process:
        ids = await process.start(times=3)
        child = await process.ask("fork")
        try:
            await process.kill()
            await gone(home.server, *ids)
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
async def test_watchdog_leaves_what_is_to_be_reattached(tmp_path: Path) -> None:
    """It obeys `on_crash` as every reaper does."""
    async with stage(tmp_path) as home:
        async with mortal(home, watchdog=True) as process:
            (kept,) = await process.start(key="k", on_crash="reattach")
            (let_go,) = await process.start(on_crash="abandon")
            (ended_one,) = await process.start()
            await process.kill()
            await gone(home.server, ended_one)
        async with heir(home) as supervisor:
            task = await supervisor.start("x", key="k", on_crash="reattach", on_shutdown="detach")
            assert task.id == kept
        assert sorted(home.server.world.live) == sorted([kept, let_go])
