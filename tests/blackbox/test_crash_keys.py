"""Keys: one live task each, across processes and deaths."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sigmic_guard import DuplicateKey, Outcome, TaskFailed
from tests.blackbox.deaths import Home, corpse, gone, heir, held, mortal, stage
from tests.blackbox.lab import SOON, sample, until
from tests.blackbox.server import Answer, Request, Server

AGAIN: Any = {"key": "nightly", "on_crash": "reattach"}


async def test_live_elsewhere(tmp_path: Path) -> None:
    """A key that another process holds raises DuplicateKey here, and nothing is sent."""
    async with stage(tmp_path) as home, mortal(home) as process:
        await process.start(key="nightly")
        async with heir(home) as supervisor:
            with pytest.raises(DuplicateKey) as caught:
                await supervisor.run("x", key="nightly")
            assert caught.value.key == "nightly"
            with pytest.raises(DuplicateKey):
                await supervisor.run("x", **AGAIN)
            with pytest.raises(DuplicateKey):
                async with supervisor.task("x", key="nightly"):
                    pytest.fail("nobody has two")
            await supervisor.start("x", key="daily")
        async with heir(home, namespace="other") as supervisor:
            await supervisor.start("x", key="nightly")
        assert home.server.count("POST") == 3
        refused = await process.ask("start", message="y", key="nightly")
        assert refused["error"] == "DuplicateKey"


@pytest.mark.slow
async def test_a_stopped_process_holds_its_key(tmp_path: Path) -> None:
    """It is not dead: the key stays its own."""
    async with stage(tmp_path) as home, mortal(home) as process:
        await home.known(*await process.start(**AGAIN))
        process.process.send_signal(signal.SIGSTOP)
        async with heir(home) as supervisor:
            with pytest.raises(DuplicateKey):
                await supervisor.start("x", **AGAIN)
        assert home.server.count("POST") == 1


@pytest.mark.slow
async def test_a_key_is_free_again(tmp_path: Path) -> None:
    """A key can be had again when its task has ended, here or elsewhere."""
    async with stage(tmp_path) as home, mortal(home) as process:
        for _ in range(2):
            assert (await process.ask("run", message="quick", key="k"))["outcome"] == "completed"
        (held_one,) = await process.start(key="k")
        await process.ask("cancel", task_id=held_one)
        async with heir(home) as supervisor, asyncio.timeout(SOON):
            while True:
                try:
                    result = await supervisor.run("quick", key="k")
                except DuplicateKey:  # the end is written down a moment after it is known
                    continue
                break
            assert result.outcome is Outcome.COMPLETED
        assert home.server.count("POST") == 4


async def test_reattach(tmp_path: Path) -> None:
    """After a crash the same call gets the same task and its whole result; there was one POST."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, **AGAIN)
        remote = home.server.world.tasks[only]
        await until(lambda: len(remote.said) == 4)
        async with heir(home, registry=registry) as supervisor:
            await supervisor.reap()
            assert home.server.world.live == [only]
            assert sample(registry, "orphans") == 1
            running = asyncio.create_task(supervisor.run("x", timeout=20, **AGAIN))
            await until(lambda: only in supervisor.tasks)
            home.server.world.say(remote, "content", text="the end", isPartial=True)
            home.server.world.set(remote, "completed")
            result = await running
            assert (result.id, result.outcome) == (only, Outcome.COMPLETED)
            assert result.final_response == "Hello, wörld 🌍\nthe end"
            assert sample(registry, "orphans") == 0
            assert sample(registry, "orphans_reaped_total", how="reattached") == 1
            assert sample(registry, "orphans_reaped_total") == 1
        assert home.server.count("POST") == 1
        assert home.server.count("DELETE") == 0
        assert sample(registry, "tasks_started_total") == sample(registry, "tasks_finished_total")


async def test_reattach_with_events(tmp_path: Path) -> None:
    """A block that reattaches reads the events from the beginning, and owns the task from then."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, **AGAIN)
        remote = home.server.world.tasks[only]
        await until(lambda: len(remote.said) == 4)
        async with heir(home) as supervisor:
            text = ""
            async with supervisor.task("x", timeout=20, **AGAIN) as task:
                assert task.id == only
                async for event in task.events():
                    assert not event.replayed
                    text += event.text
                    if text.endswith("\n"):
                        break
            assert text == "Hello, wörld 🌍\n"
            assert task.outcome is Outcome.CANCELLED
        assert home.server.world.live == []
        assert (home.server.count("POST"), home.server.count("DELETE")) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["run", "start", "task"])
async def test_it_completed_meanwhile(tmp_path: Path, use: str) -> None:
    """Its result is delivered though it completed while nobody was there."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, **AGAIN)
        home.server.world.set(home.server.world.tasks[only], "completed")
        async with heir(home) as supervisor:
            await supervisor.reap()
            if use == "run":
                result = await supervisor.run("x", timeout=20, **AGAIN)
            elif use == "start":
                result = await (await supervisor.start("x", timeout=20, **AGAIN)).wait()
            else:
                async with supervisor.task("x", timeout=20, **AGAIN) as task:
                    result = await task.result()
            assert (result.id, result.outcome) == (only, Outcome.COMPLETED)
            assert result.final_response == "Hello, wörld 🌍\n"
        assert home.server.count("POST") == 1


async def test_it_failed_meanwhile(tmp_path: Path) -> None:
    """A task that failed while nobody was there is a failure, not a second create."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, **AGAIN)
        home.server.world.set(home.server.world.tasks[only], "failed")
        async with heir(home) as supervisor:
            with pytest.raises(TaskFailed) as caught:
                await supervisor.run("x", timeout=20, **AGAIN)
            assert caught.value.task_id == only
        assert home.server.count("POST") == 1


@pytest.mark.slow
async def test_many_processes_ask_at_once(tmp_path: Path) -> None:
    """One of those who ask gets the task, the others DuplicateKey; there is one POST for ever."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, **AGAIN)
        async with mortal(home) as one, mortal(home) as two, heir(home) as supervisor:
            answers = await asyncio.gather(
                one.ask("start", message="x", **AGAIN),
                two.ask("start", message="x", **AGAIN),
                supervisor.start("x", **AGAIN),
                return_exceptions=True,
            )
            won = [each for each in answers if each == [only] or getattr(each, "id", "") == only]
            lost = [
                each
                for each in answers
                if isinstance(each, DuplicateKey)
                or (isinstance(each, dict) and each["error"] == "DuplicateKey")
            ]
            assert (len(won), len(lost)) == (1, 2), answers
            assert home.server.count("POST") == 1
            assert home.server.world.live == [only]


@pytest.mark.slow
async def test_killed_again_and_again(tmp_path: Path) -> None:
    """Each heir of a chain of deaths gets the same task."""
    async with stage(tmp_path) as home:
        ids = [await corpse(home, **AGAIN) for _ in range(3)]
        assert ids[0] == ids[1] == ids[2]
        async with heir(home) as supervisor:
            task = await supervisor.start("x", **AGAIN)
            assert [task.id] == ids[0]
        assert home.server.count("POST") == 1
        assert home.server.world.live == []


@pytest.mark.slow
async def test_reattach_to_a_create_whose_answer_was_lost(tmp_path: Path) -> None:
    """Killed while the create was under way: the key still finds the task, and pays once."""
    async with stage(tmp_path) as home:
        gate = asyncio.Event()

        async def lose(request: Request, _: object) -> Answer:
            home.server.world.create(request.headers["content-type"], request.body)
            await gate.wait()
            return Answer(0, b"")

        home.server.once("create", lose)
        async with mortal(home, create_timeout=1.0) as process:
            process.post("start", message="x", **AGAIN)
            await until(lambda: home.server.count("POST") == 1)
            await process.kill()
        async with heir(home, create_timeout=1.0) as supervisor:
            task = await supervisor.start("x", timeout=40, **AGAIN)
            assert task.id == home.server.world.only.id
        assert home.server.count("POST") == 1
        gate.set()


@pytest.mark.slow
async def test_the_key_of_a_task_to_be_cancelled(tmp_path: Path) -> None:
    """Without `reattach` the orphan is ended, and the key gets a new task: one live at most."""
    async with stage(tmp_path) as home:
        (orphan,) = await corpse(home, key="nightly")
        async with heir(home) as supervisor:
            await gone(home.server, orphan)
            await supervisor.reap()
            task = await supervisor.start("x", key="nightly")
            assert task.id != orphan
            assert home.server.world.live == [task.id]


@pytest.mark.slow
async def test_the_key_at_once(tmp_path: Path) -> None:
    """The first thing that a restarted process asks for is the key of its orphan."""
    async with stage(tmp_path) as home:
        (orphan,) = await corpse(home, key="nightly")
        most = 0

        async def count(*_: object) -> None:
            nonlocal most
            most = max(most, len(home.server.world.live) + 1)

        home.server.always["create"] = count
        async with heir(home) as supervisor, asyncio.timeout(20):
            task = await supervisor.start("x", key="nightly")
            assert task.id != orphan
            assert home.server.world.live == [task.id]
        assert most == 1


async def test_the_key_of_an_abandoned_task(tmp_path: Path) -> None:
    """Its task runs on, off the books; the key is free."""
    async with stage(tmp_path) as home:
        (let_go,) = await corpse(home, key="nightly", on_crash="abandon")
        async with heir(home) as supervisor, asyncio.timeout(20):
            task = await supervisor.start("x", key="nightly")
            assert task.id != let_go
        assert home.server.world.live == [let_go]


@pytest.mark.slow
async def test_another_key_or_namespace(tmp_path: Path) -> None:
    """Another key, or the same in another namespace, is another task."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, **AGAIN)
        async with heir(home, namespace="other") as supervisor:
            task = await supervisor.start("x", **AGAIN)
            assert task.id != only
        async with heir(home) as supervisor:
            task = await supervisor.start("x", key="daily", on_crash="reattach")
            assert task.id != only
        assert home.server.world.live == [only]


@pytest.mark.slow
async def test_another_credential_asks(tmp_path: Path) -> None:
    """Who has another API key gets an error rather than a task that he cannot reach."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, **AGAIN)
        async with heir(home, api_key="sigmic_" + "ab" * 32) as supervisor:
            with pytest.raises(DuplicateKey):
                await supervisor.start("x", **AGAIN)
        assert home.server.world.live == [only]
        assert home.server.count("POST") == 1


@pytest.mark.slow
async def test_another_system_asks(tmp_path: Path) -> None:
    """So does who speaks to another server."""
    async with stage(tmp_path) as home, Server(world=held()) as elsewhere:
        await corpse(home, **AGAIN)
        async with heir(Home(tmp_path, elsewhere)) as supervisor:
            with pytest.raises(DuplicateKey):
                await supervisor.start("x", **AGAIN)
        assert elsewhere.requests == []


@pytest.mark.slow
async def test_a_deadline_goes_on(tmp_path: Path) -> None:
    """Who takes a task over gives it the time-out that he asked for."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, timeout=600, **AGAIN)
        async with heir(home) as supervisor:
            task = await supervisor.start("x", timeout=0.3, **AGAIN)
            assert (await task.wait()).outcome is Outcome.TIMED_OUT
        assert home.server.world.tasks[only].deletes == 1


@pytest.mark.slow
async def test_unclaimed(tmp_path: Path) -> None:
    """Whom nobody asks for is reaped when `reattach_within` is over: not before, nor much later."""
    registry = CollectorRegistry()
    async with stage(tmp_path) as home:
        ids = await corpse(home, reattach_within=2.5, **AGAIN)
        died = time.monotonic()
        async with heir(home, registry=registry) as supervisor:
            first = await supervisor.reap()
            assert [row.why for row in first.left] == ["wait"]
            await gone(home.server, *ids)
            assert 2.3 < time.monotonic() - died < 8
            await until(lambda: sample(registry, "orphans_reaped_total", how="cancelled") == 1)
            assert sample(registry, "orphans") == 0
            task = await supervisor.start("x", **AGAIN)
            assert task.id not in ids


@pytest.mark.slow
async def test_unclaimed_at_its_deadline(tmp_path: Path) -> None:
    """Nor does one that waits for its key outlive the deadline that its owner gave it."""
    async with stage(tmp_path) as home:
        ids = await corpse(home, timeout=2.5, **AGAIN)
        async with heir(home) as supervisor:
            assert [row.why for row in (await supervisor.reap()).left] == ["wait"]
            await gone(home.server, *ids)


@pytest.mark.slow
async def test_unclaimed_by_hand(tmp_path: Path) -> None:
    """`reap` says that it waits, which is no failure; past its time it ends it.

    That time begins when a `reap` first sees the death, if nobody else has.
    """
    async with stage(tmp_path) as home:
        ids = await corpse(home, reattach_within=600, **AGAIN)
        waiting = await home.call("reap", "--json")
        assert (waiting.status, len(waiting.rows)) == (0, 1)
        assert home.server.world.live == ids
        assert (await home.call("ps")).status == 1
        more = await corpse(home, key="short", on_crash="reattach", reattach_within=0.001)
        for _ in range(2):
            assert (await home.call("reap")).status == 0
        assert home.server.world.live == ids
        assert more


@pytest.mark.slow
async def test_unclaimed_counts_from_the_last_death(tmp_path: Path) -> None:
    """`reattach_within` begins anew with each owner: who held the task long loses none of it."""
    async with stage(tmp_path) as home:
        (only,) = await corpse(home, reattach_within=2.5, **AGAIN)
        died = time.monotonic()
        async with mortal(home) as process:
            assert await process.start(reattach_within=2.5, **AGAIN) == [only]
            await until(lambda: time.monotonic() > died + 4)
            await process.kill()
        async with heir(home) as supervisor:
            assert [row.why for row in (await supervisor.reap()).left] == ["wait"]
            task = await supervisor.start("x", **AGAIN)
            assert task.id == only
        assert home.server.count("POST") == 1
