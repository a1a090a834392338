"""However a process dies, its helper ends what it left, at once, and no more than that."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from sigmic_guard.emulator import Fault
from tests.watchdog.stage import gone, lives, state_of

if TYPE_CHECKING:
    from tests.watchdog.stage import Stage

#: Seconds for which nothing must happen, where it would otherwise in a third of that.
A_WHILE = 1.0
#: Seconds within which a helper ends hundreds of tasks.
BOUND = 3.0


async def test_a_kill(stage: Stage) -> None:
    """After ``kill -9`` every task is ended once, and the helper goes."""
    async with stage.victim() as victim:
        helper = await victim.hear("helper")
        await victim.hear("ready")
        await victim.kill()
        await stage.ended(3)
        await gone(helper)
        assert stage.emulator.count(route="delete") == 3


async def test_a_kill_without_a_helper(stage: Stage) -> None:
    """Negative control: nobody ends anything, until the next supervisor comes."""
    async with stage.victim("without") as victim:
        await victim.hear("ready")
        await victim.kill()
        assert "helper" not in victim.said
    with pytest.raises(TimeoutError):
        await stage.emulator.wait_for(
            lambda _: stage.emulator.count(route="delete"), timeout=A_WHILE
        )
    assert stage.emulator.live == 3


@pytest.mark.slow
async def test_a_helper_that_listens_to_nothing(stage: Stage) -> None:
    """Negative control: a helper that does not notice the end of its input ends nothing."""
    async with stage.victim("deaf") as victim:
        helper = await victim.hear("helper")
        await victim.hear("ready")
        await victim.kill()
        with pytest.raises(TimeoutError):
            await stage.emulator.wait_for(
                lambda _: stage.emulator.count(route="delete"), timeout=A_WHILE
            )
        assert lives(helper)


@pytest.mark.parametrize("how, status", [("exit", 3), ("abort", -signal.SIGABRT)])
async def test_other_deaths(stage: Stage, how: str, status: int) -> None:
    """The same after ``os._exit`` and ``abort``."""
    async with stage.victim(how) as victim:
        helper = await victim.hear("helper")
        assert await victim.process.wait() == status
        await stage.ended(3)
        await gone(helper)


@pytest.mark.parametrize("how, status", [("leave", 0), ("fail", 1)])
async def test_no_death(stage: Stage, how: str, status: int) -> None:
    """A process that ends as it should ends its tasks itself, and its helper without a word."""
    async with stage.victim(how) as victim:
        helper = await victim.hear("helper")
        assert await victim.process.wait() == status
        assert state_of(helper) == ""
        assert stage.emulator.live == 0
        await victim.silent.wait()
        assert ("as intended" in victim.errors) is (how == "fail")
        assert "Warning" not in victim.errors
        assert "ignored" not in victim.errors
        victim.errors = ""


async def test_a_deploy_that_nobody_follows(stage: Stage) -> None:
    """What an orderly end handed over the helper ends when its time is over, and not before."""
    async with stage.victim("hand over") as victim:
        helper = await victim.hear("helper")
        assert await victim.process.wait() == 0
        assert stage.emulator.live == 3
        assert stage.emulator.count(route="delete") == 0
        assert lives(helper)
        await stage.ended(3)
        await gone(helper)
        assert stage.emulator.count(route="delete") == 3


@pytest.mark.slow
async def test_a_death_after_the_pipe_was_closed(stage: Stage) -> None:
    """A helper that heard the end of its input too early stays until its owner dies."""
    async with stage.victim("hang up") as victim:
        helper = await victim.hear("helper")
        await victim.hear("done")
        with pytest.raises(TimeoutError):
            await stage.emulator.wait_for(
                lambda _: stage.emulator.count(route="delete"), timeout=A_WHILE
            )
        await victim.kill()
        await stage.ended(3)
        await gone(helper)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["before the helper", "before its config", "in the middle of its config"]
)
async def test_a_death_before_there_is_anything_to_lose(stage: Stage, how: str) -> None:
    """There is no helper before it has been told everything, and nothing was sent."""
    async with stage.victim(how) as victim:
        assert await victim.process.wait() == -signal.SIGKILL
        await victim.silent.wait()
        assert not victim.said
    assert stage.emulator.count() == 0


async def test_a_death_in_the_middle_of_a_drain(stage: Stage) -> None:
    """What the drain has not ended the helper does."""
    stage.emulator.fault("delete", Fault("status", status=503))
    async with stage.victim("drain") as victim:
        helper = await victim.hear("helper")
        await stage.emulator.wait_for(lambda _: stage.emulator.count(route="delete"))
        await victim.kill()
        stage.emulator.clear_faults()
        await stage.ended(3)
        await gone(helper)


@pytest.mark.parametrize("how", ["fork", "spawn"])
async def test_a_child_that_lives_on(stage: Stage, how: str) -> None:
    """Neither a forked child nor another program that we started hides our death."""
    async with stage.victim(how) as victim:
        child = await victim.hear("child")
        await victim.kill()
        await stage.ended(3)
        assert lives(child)


@pytest.mark.slow
async def test_a_child_that_inherits_the_pipe(stage: Stage) -> None:
    """Negative control: if a forked child kept the pipe open, the helper would wait for its end."""
    async with stage.victim("fork that inherits") as victim:
        child = await victim.hear("child")
        await victim.kill()
        with pytest.raises(TimeoutError):
            await stage.emulator.wait_for(
                lambda _: stage.emulator.count(route="delete"), timeout=A_WHILE
            )
        os.kill(child, signal.SIGKILL)
        await stage.ended(3)


@pytest.mark.slow
async def test_what_is_meant_for_the_service(stage: Stage) -> None:
    """A helper takes no signal that a service may get, not even while it is being started."""
    async with stage.victim() as victim:
        helper = await victim.hear("helper")
        for number in (
            *(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
            *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM),
        ):
            os.kill(helper, number)
        await victim.hear("ready")
        await victim.kill()
        await stage.ended(3)
        await gone(helper)


@pytest.mark.slow
async def test_sigterm_and_an_api_that_is_out_of_order(stage: Stage) -> None:
    """Once it was sent SIGTERM a helper does not try for longer than ``grace`` and a second."""
    stage.emulator.fault("*", Fault("status", status=503))
    stage.emulator.clear_faults("create")
    async with stage.victim() as victim:
        helper = await victim.hear("helper")
        stage.emulator.clear_faults()
        await victim.hear("ready")
        stage.emulator.fault("*", Fault("status", status=503))
        os.kill(helper, signal.SIGTERM)
        since = time.monotonic()
        await victim.kill()
        await gone(helper)
    assert time.monotonic() - since < 1.0 + 1.0 + 6.0  # the last is for a busy machine
    assert stage.emulator.live == 3


@pytest.mark.slow
async def test_whoever_reads_our_output_waits_for_no_helper(stage: Stage) -> None:
    """Our standard output and error are closed at our death, also if the helper stays."""
    async with stage.victim() as victim:
        helper = await victim.hear("helper")
        await victim.hear("ready")
        os.kill(helper, signal.SIGSTOP)
        await victim.kill()
        await victim.silent.wait()
        assert lives(helper)
        os.kill(helper, signal.SIGCONT)
        await stage.ended(3)


async def test_a_helper_that_is_killed(stage: Stage) -> None:
    """Another one takes its place, and does what the first one would have done."""
    async with stage.victim() as victim:
        first = await victim.hear("helper")
        await victim.hear("ready")
        os.kill(first, signal.SIGKILL)
        second = await victim.hear("helper", 2)
        assert state_of(first) == ""
        await victim.kill()
        await stage.ended(3)
        await gone(second)
        assert victim.errors.count("watchdog.died") == 1


@pytest.mark.slow
async def test_the_helper_and_a_restarted_service(stage: Stage) -> None:
    """Both come for the same tasks, and each task is ended once."""
    async with stage.victim() as victim:
        helper = await victim.hear("helper")
        await victim.hear("ready")
        await victim.kill()
        async with stage.victim("kill", 2) as another:
            await another.hear("ready")
            await stage.emulator.wait_for(lambda state: state["tasks"]["live"] == 2)
            await gone(helper)
            assert stage.emulator.live == 2  # the live one keeps its own
            assert stage.emulator.count(route="delete") == 3
            await another.kill()
            await stage.ended(5)


@pytest.mark.slow
async def test_tasks_that_somebody_may_ask_for(stage: Stage) -> None:
    """With ``on_crash="reattach"`` the helper waits until nobody may any more, and ends them."""
    async with stage.victim("reattach") as victim:
        helper = await victim.hear("helper")
        await victim.hear("ready")
        await victim.kill()
        with pytest.raises(TimeoutError):
            await stage.emulator.wait_for(
                lambda _: stage.emulator.count(route="delete"), timeout=0.5
            )
        await stage.ended(3)
        await gone(helper)


@pytest.mark.slow
@pytest.mark.alone
async def test_many_tasks_and_creates_in_flight(stage: Stage) -> None:
    """All are ended within 3 s of the death, those whose id the dead one never learned as well.

    The best of three counts: others use this machine as well.
    """
    seconds: list[float] = []
    while len(seconds) < 3 and min(seconds, default=BOUND) >= BOUND:
        stage.emulator.reset()
        async with stage.victim("in flight", 200) as victim:
            helper = await victim.hear("helper")
            await victim.hear("ready")
            await stage.emulator.wait_for(lambda state: state["created"] > 250)
            await victim.kill()
            died = time.time()
            await stage.emulator.wait_for(lambda state: not state["tasks"]["live"])
            await gone(helper)
            assert stage.emulator.live == 0
        deletes = [seen.at - died for seen in stage.emulator.requests if seen.route == "delete"]
        seconds.append(max(deletes))
    assert min(seconds) < BOUND, seconds
