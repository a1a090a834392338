"""The service under real hosts: whatever ends it, or hangs up on it, leaves no task running.

All situations are open at once in each test. What a host makes impossible is shown as well, with
what covers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from sigmic_guard.emulator import Emulator, Fault, Script
from tests.integrations.hosts import BEYOND, GRACE, HOSTS, INT, KILL, TERM, Host, service
from tests.integrations.situations import (
    SITUATIONS,
    ChattyStream,
    Creating,
    QuietStream,
    Run,
    StalledGenerator,
    StalledStream,
    open_all,
)

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integrations.situations import Situation

CORE = ["uvicorn", "aiohttp.web"]
#: It takes longer than is left to a drain in a hurry.
SLOW = Fault("latency", seconds=1.5)
#: Seconds that a host with many streams may take in all, on a machine that has others.
MANY_SECONDS = 120.0


@pytest.fixture(
    params=[name if name in CORE else pytest.param(name, marks=pytest.mark.slow) for name in HOSTS]
)
def host(request: pytest.FixtureRequest) -> Host:
    return HOSTS[request.param]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(hold=True)) as emulator:
        yield emulator


@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
async def test_a_signal_ends_every_task_and_every_response(
    emulator: Emulator, host: Host, number: signal.Signals
) -> None:
    if number not in host.codes:
        pytest.skip("it cuts everything off: see what the next start ends, below")
    async with service(emulator, host) as it, open_all(emulator, it) as situations:
        it.kill(number)
        await it.ended.wait()
        it.check_end(number)
        assert emulator.state()["tasks"]["live"] == 0, it.log
        for situation in situations:
            await situation.check_shutdown(host)


@pytest.mark.slow
@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
async def test_a_signal_to_each_of_its_processes(
    emulator: Emulator, host: Host, number: signal.Signals
) -> None:
    """As from systemd, or a terminal: workers get it from there, and from the main process."""
    if number not in host.codes:
        pytest.skip("it cuts everything off: see what the next start ends, below")
    async with service(emulator, host) as it, open_all(emulator, it) as situations:
        emulator.fault("delete", SLOW)
        it.kill(number, group=True)
        await it.ended.wait()
        it.check_end(number)
        assert emulator.state()["tasks"]["live"] == 0, it.log
        for situation in situations:
            await situation.check_shutdown(host)


@pytest.mark.slow
async def test_who_asks_twice_means_it(emulator: Emulator, host: Host, tmp_path: Path) -> None:
    """Whatever the host leaves out then, the tasks are ended, or the next start does it."""
    ledger = tmp_path / "ledger.db"
    async with service(emulator, host, ledger=ledger) as it, open_all(emulator, it):
        it.kill(INT)
        it.kill(INT)
        await it.ended.wait()
        assert it.took < GRACE + BEYOND + host.graceful
    if emulator.state()["tasks"]["live"]:
        async with service(emulator, host, ledger=ledger):
            await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)


async def test_who_hangs_up_ends_what_he_had_begun(emulator: Emulator, host: Host) -> None:
    kinds: list[type[Situation]] = [StalledStream, StalledGenerator, *SITUATIONS]
    async with service(emulator, host) as it, open_all(emulator, it, kinds) as situations:
        for situation in situations:
            await situation.client.hang_up()
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)


@pytest.mark.parametrize("number", [KILL, INT], ids=["KILL", "INT"])
async def test_what_was_cut_off_is_ended_by_the_next_start(
    emulator: Emulator, host: Host, number: signal.Signals, tmp_path: Path
) -> None:
    if number in host.codes:
        pytest.skip("it ends in order: see above")
    ledger = tmp_path / "ledger.db"
    async with service(emulator, host, ledger=ledger) as it, open_all(emulator, it):
        it.kill(number, group=number is KILL)
        await it.ended.wait()
    async with service(emulator, host, ledger=ledger) as it:
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        it.kill(TERM)
        await it.ended.wait()


@pytest.mark.slow
async def test_two_hundred_open_streams(emulator: Emulator, host: Host) -> None:
    kinds = [QuietStream] * 100 + [ChattyStream] * 100
    async with (
        service(emulator, host, patience=MANY_SECONDS) as it,
        open_all(emulator, it, kinds) as situations,
    ):
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)
        assert emulator.state()["tasks"]["live"] == 0, it.log
        for situation in situations:
            await situation.check_shutdown(host)


@pytest.mark.slow
async def test_a_client_that_does_not_read(emulator: Emulator, host: Host) -> None:
    """Its task ends. That the host waits for it needs the host's own time-out."""
    kinds = [StalledStream, StalledGenerator, Run]
    async with service(emulator, host, *host.impatient) as it:
        async with open_all(emulator, it, kinds) as situations:
            it.kill(TERM)
            await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
            if not host.waits_for_clients:
                await it.ended.wait()
                assert it.took < GRACE + BEYOND + host.graceful
            await situations[-1].check_shutdown(host)
        await it.ended.wait()
        assert it.process.returncode == host.codes[TERM], it.log
        assert "Exception in ASGI" not in it.log, it.log
        assert "integrations/asgi" not in it.log, it.log  # no traceback leads through us


@pytest.mark.slow
async def test_hypercorn_with_two_workers(emulator: Emulator) -> None:
    """The one that has tasks gets another SIGTERM in its drain, when the other one has gone."""
    host = Host(
        ("hypercorn", "-w", "2", "--bind", "127.0.0.1:{port}", "{app}"), graceful=3, workers=2
    )
    async with service(emulator, host) as it, open_all(emulator, it, [Creating]) as situations:
        emulator.fault("delete", SLOW)
        it.kill(TERM, group=True)
        await it.ended.wait()
        assert emulator.state()["tasks"]["live"] == 0, it.log
        await situations[0].check_shutdown(host)
        assert it.process.returncode == 0, it.log


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True], ids=["main", "group"])
async def test_hypercorn_with_a_worker(emulator: Emulator, *, group: bool) -> None:
    """Its main process keeps the signal to itself: what is open is cut, and no task is left."""
    waits = HOSTS["hypercorn -w 0"].waits_for_clients and not group
    host = Host(("hypercorn", "-w", "1", "--bind", "127.0.0.1:{port}", "{app}"), graceful=3)
    kinds = [QuietStream, ChattyStream, Run]
    async with service(emulator, host) as it:
        async with open_all(emulator, it, kinds) as situations:
            it.kill(TERM, group=group)
            if not waits:  # until the clients leave; the tasks end with that
                await it.ended.wait()
                assert it.took < GRACE + BEYOND + host.graceful
            for situation in situations if group else ():
                await situation.check_shutdown(host)
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        await it.ended.wait()
        assert it.process.returncode == 0, it.log


# --- negative controls: each of them is what does it ----------------------------------------------


@pytest.mark.parametrize(
    "part, situation",
    [("middleware", Run), pytest.param("record", QuietStream, marks=pytest.mark.slow)],
    ids=["the middleware", "an end by record"],
)
async def test_without_that_a_hang_up_leaves_a_task(
    emulator: Emulator, part: str, situation: type[Situation]
) -> None:
    async with service(emulator, HOSTS["uvicorn"], without=part) as it:
        async with open_all(emulator, it, [situation]):
            pass
        async with it.client() as client:  # it has had its turn by then
            await client.get("/idle")
            await client.until(b"idle")
        assert emulator.state()["tasks"]["live"] == 1


@pytest.mark.slow
async def test_without_a_handler_a_plain_program_leaves_a_task(emulator: Emulator) -> None:
    host = HOSTS["asyncio.run"]
    async with service(emulator, host, without="signals") as it, open_all(emulator, it, [Run]):
        it.kill(TERM)
        await it.ended.wait()
        assert it.process.returncode == -TERM
        assert emulator.state()["tasks"]["live"] == 1


@pytest.mark.slow
async def test_without_the_chained_handler_an_open_stream_keeps_the_host(
    emulator: Emulator,
) -> None:
    host = HOSTS["uvicorn"]
    async with (
        service(emulator, host, without="signals") as it,
        open_all(emulator, it, [QuietStream]),
    ):
        it.kill(TERM)
        with anyio.move_on_after(4):
            await it.ended.wait()
        assert not it.ended.is_set()
        assert emulator.state()["tasks"]["live"] == 1
