"""Processes that die without a word, and what the next one finds and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.blackbox.deaths import Home, corpse, gone, heir, held, mortal, stage
from tests.blackbox.lab import sample, until
from tests.blackbox.server import Answer, Server, error
from tests.blackbox.world import Remote


async def test_the_next_start_reaps_unasked(tmp_path: Path) -> None:
    """What a killed process left is ended by whoever starts next: a DELETE each, and it counts."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        ids = await corpse(home, times=25)
        assert sorted(home.server.world.live) == sorted(ids)
        async with heir(home, registry=registry) as supervisor:
            await gone(home.server, *ids)
            report = await supervisor.reap()
            assert report.clean
            assert sample(registry, "orphans_reaped_total", how="cancelled") == 25
            assert sample(registry, "orphans_reaped_total") == 25
            assert sample(registry, "orphans") == 0
            assert sample(registry, "orphan_oldest_age_seconds") == 0
            assert sample(registry, "orphan_task_seconds_total") > 0
            assert sample(registry, "ledger_commit_seconds_count") > 0
            batches = sample(registry, "ledger_batch_size_count")
            assert batches == sample(registry, "ledger_commit_seconds_count")
            assert sample(registry, "ledger_batch_size_sum") >= batches
            assert not supervisor.tasks
        assert home.server.count("DELETE") == 25
        assert home.server.count("POST") == 25
        assert sample(registry, "tasks_started_total") == sample(registry, "tasks_finished_total")
        assert await home.rows() == []


@pytest.mark.slow
async def test_the_default_ledger(tmp_path: Path) -> None:
    """It is `ledger.db`, mode 0600, in the state directory, and the next process finds it."""
    state = tmp_path / "state"
    async with stage(tmp_path) as home:
        home.more = {"SIGMIC_GUARD_LEDGER": "", "XDG_STATE_HOME": str(state)}
        ids = await corpse(home)
        (file,) = state.rglob("ledger.db")
        files = [each for each in file.parent.rglob("*") if each.is_file()]
        assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert (await home.call("reap")).status == 0
        assert set(home.server.world.live).isdisjoint(ids)


async def test_the_default_ledger_without_xdg(tmp_path: Path) -> None:
    """Without XDG_STATE_HOME it is below HOME, and nothing else is written there but ours."""
    async with stage(tmp_path) as home:
        home.more = {"SIGMIC_GUARD_LEDGER": ""}
        async with mortal(home) as process:
            await process.start()
            assert await process.leave() == 0
        assert len(list(tmp_path.rglob("ledger.db"))) == 1
        assert [each.name for each in tmp_path.iterdir()] == [".local"]


@pytest.mark.slow
async def test_the_owners_file_is_cleaned_up(tmp_path: Path) -> None:
    """Neither a death nor a good end leaves more than the ledger behind, once somebody reaped."""
    async with stage(tmp_path) as home:
        await corpse(home)
        await corpse(home)
        async with mortal(home) as process:
            assert (await process.ask("reap"))["left"] == []
            assert await process.leave() == 0
        files = [each for each in tmp_path.rglob("*") if each.is_file()]
        assert {each.name.split("-")[0] for each in files} <= {"ledger.db"}, files


@pytest.mark.slow
async def test_neighbours_on_one_file(tmp_path: Path) -> None:
    """One of three processes is killed: its tasks are reaped by the others, and no other task."""
    async with stage(tmp_path) as home, mortal(home) as one, mortal(home) as two:
        async with mortal(home) as three:
            kept = [*await one.start(times=5), *await two.start(times=5)]
            lost = await three.start(times=5)
            await three.kill()
        reports = await asyncio.gather(one.ask("reap"), two.ask("reap"))
        assert not set(home.server.world.live) & set(lost)
        assert sorted([each for report in reports for each in report["reaped"]]) == sorted(lost)
        assert sorted(home.server.world.live) == sorted(kept)
        assert home.server.count("DELETE") == 5
        assert sorted(await one.ask("live")) == sorted(kept[:5])


@pytest.mark.slow
async def test_two_heirs_at_once(tmp_path: Path) -> None:
    """However many start at once, each orphan gets one DELETE and is reported once."""
    async with stage(tmp_path) as home:
        ids = await corpse(home, times=20)
        registries = [CollectorRegistry() for _ in range(4)]
        async with (
            heir(home, registry=registries[0]),
            heir(home, registry=registries[1]),
            heir(home, registry=registries[2]),
            heir(home, registry=registries[3]),
        ):
            await gone(home.server, *ids)
            await until(
                lambda: sum(sample(each, "orphans_reaped_total") for each in registries) >= 20
            )
        assert home.server.count("DELETE") == 20
        assert sum(sample(each, "orphans_reaped_total") for each in registries) == 20


@pytest.mark.slow
async def test_stopped_is_not_dead(tmp_path: Path) -> None:
    """A process under SIGSTOP keeps its tasks, whoever reaps; it goes on with them afterwards."""
    async with stage(tmp_path) as home, mortal(home) as process:
        ids = await process.start(times=3)
        await home.known(*ids)
        process.signal(signal.SIGSTOP)
        async with heir(home) as supervisor:
            for _ in range(3):
                assert (await supervisor.reap()).clean
        assert (await home.call("reap")).status == 0
        assert [row["owner"] for row in await home.rows()] == ["alive"] * 3
        process.signal(signal.SIGCONT)
        assert home.server.count("DELETE") == 0
        assert await process.ask("cancel", task_id=ids[0]) == "acknowledged"
        assert sorted(home.server.world.live) == sorted(ids[1:])


@pytest.mark.slow
async def test_stopped_and_then_killed(tmp_path: Path) -> None:
    """A stopped process that is killed is dead at once."""
    async with stage(tmp_path) as home:
        async with mortal(home) as process:
            ids = await process.start(times=3)
            process.signal(signal.SIGSTOP)
            await process.kill()
        async with heir(home):
            await gone(home.server, *ids)


async def test_a_fork_inherits_nothing(tmp_path: Path) -> None:
    """A forked child that survives its parent does not keep the parent's tasks from the reaper."""
    async with stage(tmp_path) as home, mortal(home) as process:
        ids = await process.start(times=3)
        child = await process.ask("fork")
        try:
            await process.kill()
            os.kill(child, 0)  # it lives
            async with heir(home):
                await gone(home.server, *ids)
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
async def test_a_fork_that_ends(tmp_path: Path) -> None:
    """The end of a forked child is not the death of its parent."""
    async with stage(tmp_path) as home, mortal(home) as process:
        await process.start(times=3)
        os.kill(await process.ask("fork"), signal.SIGKILL)
        async with heir(home) as supervisor:
            assert (await supervisor.reap()).clean
        assert home.server.count("DELETE") == 0
        assert len(home.server.world.live) == 3


async def test_a_good_end_leaves_nothing(tmp_path: Path) -> None:
    """What ended, was let go or was cancelled before the death is looked at no more."""
    async with stage(tmp_path) as home:
        async with mortal(home) as process:
            (cancelled,) = await process.start()
            await process.ask("cancel", task_id=cancelled)
            await process.ask("run", message="quick")
            (live,) = await process.start()
            await process.kill()
        before = len(home.server.requests)
        async with heir(home) as supervisor:
            await gone(home.server, live)
            await supervisor.reap()
        targets = {request.target.rsplit("/", 1)[1] for request in home.server.requests[before:]}
        assert {each for each in targets if "?" not in each} == {live}


@pytest.mark.slow
async def test_on_shutdown_detach_is_for_good(tmp_path: Path) -> None:
    """What a shutdown detached on purpose is nobody's orphan."""
    async with stage(tmp_path) as home:
        async with mortal(home) as process:
            await process.start(on_shutdown="detach")
            assert await process.leave() == 0
        async with heir(home) as supervisor:
            assert not (await supervisor.reap()).reaped
        assert len(home.server.world.live) == 1
        assert home.server.count("DELETE") == 0


async def test_an_adopted_task_is_ours(tmp_path: Path) -> None:
    """A task that was adopted is reaped like one that was created."""
    async with stage(tmp_path) as home:
        made = home.server.world.add("x")
        async with mortal(home) as process:
            await process.ask("adopt", task_id=made.id)
            await process.kill()
        async with heir(home):
            await gone(home.server, made.id)


@pytest.mark.slow
async def test_a_block_dies_too(tmp_path: Path) -> None:
    """The task of an `async with` block is reaped as well, whatever its `on_exit` says."""
    async with stage(tmp_path) as home:
        async with mortal(home) as process:
            ids = [
                await process.ask("enter", message="x"),
                await process.ask("enter", message="x", on_exit="detach"),
                await process.ask("enter", message="x", on_exit="wait", on_shutdown="detach"),
            ]
            await process.kill()
        async with heir(home):
            await gone(home.server, *ids)


@pytest.mark.slow
async def test_abandon(tmp_path: Path) -> None:
    """`on_crash="abandon"`: it may run on; it is reported as released, and off the books."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        (let_go,) = await corpse(home, on_crash="abandon")
        async with heir(home, registry=registry) as supervisor:
            report = await supervisor.reap()
            assert report.clean
            await until(lambda: sample(registry, "orphans_reaped_total", how="released") == 1)
        assert home.server.world.live == [let_go]
        assert home.server.count("DELETE") == 0
        assert await home.rows() == []


@pytest.mark.slow
async def test_the_policy_of_the_supervisor_outlives_it(tmp_path: Path) -> None:
    """It is the dead owner's policy that counts, not the heir's."""
    async with stage(tmp_path) as home:
        async with mortal(home, policy={"on_crash": "abandon"}) as process:
            (let_go,) = await process.start()
            (ended,) = await process.start(on_crash="cancel")
            await process.kill()
        async with heir(home) as supervisor:
            await gone(home.server, ended)
            await supervisor.reap()
        assert home.server.world.live == [let_go]


@pytest.mark.slow
async def test_reattach_without_a_key_is_cancel(tmp_path: Path) -> None:
    """Nobody can ask for a task without a key."""
    async with stage(tmp_path) as home:
        ids = await corpse(home, on_crash="reattach")
        async with heir(home):
            await gone(home.server, *ids)


async def test_another_credential(tmp_path: Path) -> None:
    """A row of another API key is left alone: no request is sent for it, and it is reported."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        (other,) = await corpse(home)
        mine = Home(tmp_path, home.server, key="sigmic_" + "ab" * 32)
        (ours,) = await corpse(mine)
        before = len(home.server.requests)
        async with heir(mine, registry=registry) as supervisor:
            await gone(home.server, ours)
            report = await supervisor.reap()
            assert [(row.id, row.why) for row in report.left] == [(other, "other_credential")]
            assert not report.clean
            assert sample(registry, "orphans") == 1
            assert sample(registry, "orphan_oldest_age_seconds") > 0
        assert not [each for each in home.server.requests[before:] if other in each.target]
        assert home.server.world.live == [other]
        async with heir(home):
            await gone(home.server, other)


@pytest.mark.slow
async def test_another_system(tmp_path: Path) -> None:
    """A row of another base URL is left alone as well."""
    async with stage(tmp_path) as home, Server(world=held()) as elsewhere:
        (other,) = await corpse(Home(tmp_path, elsewhere))
        async with heir(home) as supervisor:
            report = await supervisor.reap()
            assert [(row.id, row.why) for row in report.left] == [(other, "other_system")]
        assert home.server.requests == []
        assert elsewhere.world.live == [other]


@pytest.mark.slow
async def test_another_namespace(tmp_path: Path) -> None:
    """A supervisor reaps its own namespace and nothing else; the command line takes any."""
    async with stage(tmp_path) as home:
        async with mortal(home, namespace="theirs") as process:
            (theirs,) = await process.start()
            await process.kill()
        async with heir(home, namespace="ours") as supervisor:
            report = await supervisor.reap()
            assert report.clean
        assert home.server.world.live == [theirs]
        assert (await home.call("reap", "--namespace", "ours")).status == 0
        assert home.server.world.live == [theirs]
        assert (await home.call("reap", "--namespace", "theirs")).status == 0
        assert home.server.world.live == []


@pytest.mark.slow
async def test_it_had_ended(tmp_path: Path) -> None:
    """What had ended meanwhile gets no DELETE; what the API does not know is not found."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        done, failed, cancelled, lost = await corpse(home, times=4)
        world = home.server.world
        world.set(world.tasks[done], "completed")
        world.set(world.tasks[failed], "failed")
        world.set(world.tasks[cancelled], "cancelled")
        del world.tasks[lost]
        async with heir(home, registry=registry) as supervisor:
            assert (await supervisor.reap()).clean
            await until(lambda: sample(registry, "orphans_reaped_total") == 4)
        assert sample(registry, "orphans_reaped_total", how="not_found") == 1
        assert sample(registry, "orphans_reaped_total", how="already_finished") == 3
        deleted = [r.target for r in home.server.requests if r.method == "DELETE"]
        assert not [each for each in deleted if not each.endswith(lost)]


@pytest.mark.slow
async def test_it_ends_under_the_delete(tmp_path: Path) -> None:
    """A task that completes between the look and the DELETE is already finished."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        await corpse(home)

        async def complete(_: Any, remote: Remote | None) -> Answer:
            assert remote is not None
            home.server.world.set(remote, "completed")
            return error(409, "CONFLICT")

        home.server.once("delete", complete)
        async with heir(home, registry=registry) as supervisor:
            await supervisor.reap()
            await until(lambda: sample(registry, "orphans_reaped_total") == 1)
        assert sample(registry, "orphans_reaped_total", how="already_finished") == 1


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 500, 503, 429])
async def test_an_api_out_of_reach(tmp_path: Path, status: int) -> None:
    """It leads to nothing but another try; then the orphans are ended, by this very process."""
    async with stage(tmp_path) as home:
        ids = await corpse(home, times=3)
        tries = 0

        async def refuse(*_: Any) -> Answer | None:
            nonlocal tries
            tries += 1
            return Answer(status, b"<html>no</html>") if tries <= 6 else None

        home.server.always |= dict.fromkeys(("get", "list", "delete"), refuse)
        async with heir(home):
            await until(lambda: tries > 6, within=20)
            await gone(home.server, *ids, within=20)


@pytest.mark.slow
async def test_a_delete_that_is_refused(tmp_path: Path) -> None:
    """401 to a reaper's DELETE: the task is left, stays in the ledger, and is ended later."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home)

        async def refuse(*_: Any) -> Answer:
            return error(401, "INVALID_API_KEY")

        home.server.always["delete"] = refuse
        async with heir(home, grace=1) as supervisor:
            report = await supervisor.reap()
            assert [row.id for row in report.left] == [only]
        assert [row["id"] for row in await home.rows()] == [only]
        home.server.always.clear()
        assert (await home.call("reap")).status == 0
        assert home.server.world.live == []


@pytest.mark.slow
async def test_what_a_shutdown_could_not_prove(tmp_path: Path) -> None:
    """It stays in the ledger, and the next start ends it."""
    async with stage(tmp_path) as home:

        async def refuse(*_: Any) -> Answer:
            return Answer(503, b"")

        home.server.always["delete"] = refuse
        async with mortal(home, grace=0.5) as process:
            ids = await process.start(times=3)
            assert await process.leave() == 0
        assert len(home.server.world.live) == 3
        home.server.always.clear()
        async with heir(home):
            await gone(home.server, *ids)


@pytest.mark.slow
async def test_killed_in_the_middle_of_a_shutdown(tmp_path: Path) -> None:
    """A drain that is cut off is finished by the next start, and each task gets its DELETE."""
    async with stage(tmp_path) as home:

        async def hang(*_: Any) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

        home.server.always["delete"] = hang
        async with mortal(home) as process:
            ids = await process.start(times=10)
            assert process.process.stdin
            process.process.stdin.close()
            await until(lambda: home.server.count("DELETE") > 0)
            await process.kill()
        home.server.always.clear()
        async with heir(home):
            await gone(home.server, *ids)


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False])
async def test_killed_in_the_middle_of_a_create(tmp_path: Path, exists: bool) -> None:
    """The POST was sent, its answer never read: the marker finds the task, wherever it is."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:

        async def hang(request: Any, _: Any) -> Answer:
            if exists:
                home.server.world.create(request.headers["content-type"], request.body)
            await asyncio.Event().wait()
            raise AssertionError

        home.server.always["create"] = hang
        async with mortal(home, create_timeout=1.0) as process:
            process.post("start", message="x")
            await until(lambda: home.server.count("POST") == 1)
            await process.kill()
        home.server.always.clear()
        began = time.monotonic()
        async with heir(home, registry=registry, create_timeout=1.0):
            await until(lambda: sample(registry, "orphans_reaped_total") == 1, within=40)
        how = "cancelled" if exists else "never_created"
        assert sample(registry, "orphans_reaped_total", how=how) == 1, time.monotonic() - began
        assert home.server.world.live == []
        assert home.server.count("POST") == 1
        assert home.server.count("DELETE") == exists


@pytest.mark.slow
async def test_a_create_arrives_after_the_death(tmp_path: Path) -> None:
    """A POST that takes effect only while the reaper looks is found all the same."""
    async with stage(tmp_path) as home:
        gate = asyncio.Event()

        async def late(request: Any, _: Any) -> Answer:
            await gate.wait()
            home.server.world.create(request.headers["content-type"], request.body)
            return Answer(0, b"")

        home.server.once("create", late)
        async with mortal(home, create_timeout=1.0) as process:
            process.post("start", message="x")
            await until(lambda: home.server.count("POST") == 1)
            await process.kill()
        async with heir(home, create_timeout=1.0):
            await until(lambda: home.server.count("GET") >= 1, within=20)
            assert home.server.world.tasks == {}
            gate.set()
            await until(lambda: len(home.server.world.tasks) == 1)
            await gone(home.server, home.server.world.only.id, within=40)


@pytest.mark.slow
async def test_a_rush(tmp_path: Path) -> None:
    """Killed while it creates as fast as it can, at any moment: nothing of it lives on."""
    async with stage(tmp_path) as home:
        async with mortal(home, create_timeout=1.0) as process:
            process.post("rush", message="x")
            await until(lambda: len(home.server.world.tasks) > 150, within=20)
            await process.kill()
        made = home.server.count("POST")
        async with heir(home, create_timeout=1.0) as supervisor:
            async with asyncio.timeout(50):
                while not (await supervisor.reap()).clean:
                    await asyncio.sleep(0)
        assert home.server.world.live == []
        assert home.server.count("POST") == made
        assert await home.rows() == []


@pytest.mark.slow
async def test_a_death_before_anything(tmp_path: Path) -> None:
    """A process killed with no task at all leaves nothing to do."""
    async with stage(tmp_path) as home:
        async with mortal(home) as process:
            await process.kill()
        async with heir(home) as supervisor:
            assert (await supervisor.reap()).clean
        assert home.server.requests == []


async def test_memory_survives_nothing(tmp_path: Path) -> None:
    """`memory:` opts out: no file, and nobody to find the task."""
    async with stage(tmp_path) as home:
        home.more = {"SIGMIC_GUARD_LEDGER": "memory:"}
        await corpse(home)
        assert list(tmp_path.iterdir()) == []
        assert len(home.server.world.live) == 1


async def test_reap_outside(tmp_path: Path) -> None:
    """A supervisor that was never entered starts no file and no request."""
    async with stage(tmp_path) as home:
        heir(home)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
async def test_an_exit_without_leaving(tmp_path: Path) -> None:
    """A process that ends by `os._exit`, by SIGTERM or by SIGHUP is as dead as any."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGABRT):
        async with stage(tmp_path) as home:
            async with mortal(home) as process:
                ids = await process.start()
                process.signal(number)
                await process.process.wait()
            assert (await home.call("reap")).status == 0
            assert not set(home.server.world.live) & set(ids)
