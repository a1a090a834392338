"""Who is alive: several supervisors in one process, forks, and what programs leave open."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import ConfigurationError, Outcome
from tests.blackbox.deaths import called, corpse, gone, heir, kill, mortal, stage
from tests.blackbox.lab import sample, until

TWO = """
import asyncio, sys
from sigmic_guard import Supervisor
async def first(both):
    async with Supervisor() as supervisor:
        await supervisor.start("x")
        await both.wait()
async def main():
    both = asyncio.Event()
    other = asyncio.create_task(first(both))
    async with Supervisor() as supervisor:
        await supervisor.start("x")
        both.set()
        await other
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""

FORK = """
import asyncio, os, signal, sys
from sigmic_guard import LedgerError, Supervisor
async def child():
    try:
        async with Supervisor() as supervisor:
            await supervisor.start("of the child")
    except LedgerError as error:
        print(error, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
async def main():
    async with Supervisor() as supervisor:
        await supervisor.start("x")
        pid = os.fork()
        if not pid:
            asyncio.events._set_running_loop(None)
            asyncio.run(child())
        os.waitpid(pid, 0)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""

HOLDER = """
import asyncio, os, signal, subprocess, sys
from sigmic_guard import Supervisor
async def main():
    async with Supervisor() as supervisor:
        await supervisor.start("x")
        sleeper = subprocess.Popen(["sleep", "600"], close_fds=False, stdout=-3, stderr=-3)
        print(sleeper.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_two_supervisors_in_one_process(tmp_path: Path) -> None:
    """The end of one is not the death of the other, to whoever looks."""
    async with stage(tmp_path) as home:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", TWO, env=home.env, cwd=tmp_path, stdin=PIPE, stdout=PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"ready\n"
            (kept,) = home.server.world.live
            async with heir(home) as supervisor:
                assert (await supervisor.reap()).clean
            assert home.server.world.live == [kept]
            async with asyncio.timeout(30):
                await process.communicate(b"\n")
            assert process.returncode == 0
            assert home.server.world.live == []
        finally:
            await kill(process)


@pytest.mark.slow
async def test_two_supervisors_of_one_process_and_its_death(tmp_path: Path) -> None:
    """When the process dies, both are dead."""
    async with stage(tmp_path) as home:
        async with heir(home) as here:
            await here.start("x")
            async with mortal(home) as process:
                (theirs,) = await process.start()
                await process.kill()
            await here.reap()
            assert len(home.server.world.live) == 1
            async with heir(home) as there:
                assert (await there.reap()).clean
            assert theirs not in home.server.world.live
            assert len(home.server.world.live) == 1
        assert home.server.world.live == []


@pytest.mark.slow
async def test_a_child_with_a_supervisor_of_its_own(tmp_path: Path) -> None:
    """A child forked from under an open ledger is told that it cannot use it; ours is untouched."""
    async with stage(tmp_path) as home:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FORK, env=home.env, cwd=tmp_path, stdin=PIPE, stdout=PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert b"fork" in await process.stdout.readline()
                assert await process.stdout.readline() == b"ready\n"
            async with heir(home) as supervisor:
                assert (await supervisor.reap()).clean
            assert len(home.server.world.live) == len(home.server.world.tasks) == 1
            async with asyncio.timeout(30):
                await process.communicate(b"\n")
            assert process.returncode == 0
            assert home.server.world.live == []
        finally:
            await kill(process)


async def test_a_program_that_inherited_our_files(tmp_path: Path) -> None:
    """A program begun with all descriptors open does not keep its dead parent alive."""
    async with stage(tmp_path) as home:
        told = await called(sys.executable, "-c", HOLDER, env=home.env, cwd=tmp_path)
        sleeper = int(told.out)
        try:
            os.kill(sleeper, 0)
            async with heir(home):
                await gone(home.server, *home.server.world.tasks)
        finally:
            os.kill(sleeper, signal.SIGKILL)
        assert len(home.server.world.tasks) == 1


@pytest.mark.slow
async def test_many_orphans(tmp_path: Path) -> None:
    """A thousand of them are ended one by one, within seconds, beside the heir's own work."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        await corpse(home, times=1000)
        async with heir(home, registry=registry, max_tasks=1) as supervisor:
            result = await supervisor.run("quick", timeout=20)
            assert result.outcome is Outcome.COMPLETED
            await until(lambda: sample(registry, "orphans_reaped_total") == 1000, within=30)
        assert home.server.count("DELETE") == 1000
        assert home.server.world.live == []
        assert sample(registry, "tasks_started_total") == sample(registry, "tasks_finished_total")


@pytest.mark.slow
async def test_gauges_while_it_lasts(tmp_path: Path) -> None:
    """As long as orphans cannot be ended they are counted, and the oldest one's age grows."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        ids = await corpse(home, times=3)
        gate = asyncio.Event()

        async def hang(*_: object) -> None:
            await gate.wait()

        home.server.always["delete"] = hang
        async with heir(home, registry=registry) as supervisor:
            await until(lambda: home.server.count("DELETE") == 3)
            assert sample(registry, "orphans") == 3
            age = sample(registry, "orphan_oldest_age_seconds")
            assert age > 0
            reaping = asyncio.create_task(supervisor.reap())  # a round now, not in 30 s
            await until(lambda: sample(registry, "orphan_oldest_age_seconds") > age)
            assert sample(registry, "orphans_reaped_total") == 0
            gate.set()
            await gone(home.server, *ids, within=20)
            assert (await reaping).clean
            assert sample(registry, "orphans") == 0
            assert sample(registry, "orphan_oldest_age_seconds") == 0
            assert sample(registry, "orphan_task_seconds_total") >= 3 * age


async def test_a_watchdog_without_a_ledger(tmp_path: Path) -> None:
    """A watchdog needs a ledger that survives: with `memory:` it is a ConfigurationError."""
    async with stage(tmp_path) as home:
        with pytest.raises(ConfigurationError):
            async with heir(home, ledger="memory:", watchdog=True):
                pytest.fail("nothing to watch by")


@pytest.mark.slow
async def test_the_watchdog_of_a_stopped_process(tmp_path: Path) -> None:
    """A process under SIGSTOP is not dead to its helper either."""
    async with stage(tmp_path) as home, mortal(home, watchdog=True) as process:
        ids = await process.start(times=2)
        await home.known(*ids)
        process.signal(signal.SIGSTOP)
        async with heir(home) as supervisor:
            assert (await supervisor.reap()).clean
        process.signal(signal.SIGCONT)
        assert await process.ask("live") == sorted(ids)
        assert home.server.count("DELETE") == 0


ZOMBIES = """
import os, sys
if not os.fork():
    if not os.fork():
        os._exit(0)  # its parent goes first: it falls to PID 1
    os._exit(0)
os.wait()
for _ in range(2000):
    states = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                states.append(open(f"/proc/{name}/stat").read().rsplit(") ", 1)[1][0])
            except OSError:
                pass
    if "Z" not in states:
        break
    os.sched_yield()
print(states.count("Z"), os.getppid())
sys.exit(5)
"""


def has_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and not os.system(f"{unshare} -pf --mount-proc true 2>/dev/null")


@pytest.mark.slow
@pytest.mark.skipif(not has_namespaces(), reason="no PID namespaces here")
async def test_as_pid_1(tmp_path: Path) -> None:
    """As the first process of a container it reaps zombies and returns its program's status."""
    async with stage(tmp_path) as home:
        told = await called(
            "unshare",
            "-pf",
            "--mount-proc",
            *home.command("exec", "--", sys.executable, "-c", ZOMBIES),
            env=home.env,
        )
        assert (told.status, told.out) == (5, "0 1\n"), told.err
