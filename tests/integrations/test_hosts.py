"""The service under real hosts: whatever ends it, or hangs up on it, leaves no task running.

All situations are open at once in each test here; ``test_host_matrix.py`` has them one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sigmic_guard.emulator import Emulator, Script
from tests.integrations.hosts import HOSTS, INT, TERM, Host, service
from tests.integrations.situations import open_all

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator

CORE = ["uvicorn"]


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
    async with service(emulator, host) as it, open_all(emulator, it) as situations:
        it.kill(number)
        await it.ended.wait()
        it.check_end(number)
        assert emulator.state()["tasks"]["live"] == 0
        for situation in situations:
            await situation.check_shutdown(host)


async def test_who_hangs_up_ends_what_he_had_begun(emulator: Emulator, host: Host) -> None:
    async with service(emulator, host) as it, open_all(emulator, it) as situations:
        for situation in situations:
            await situation.client.hang_up()
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)
