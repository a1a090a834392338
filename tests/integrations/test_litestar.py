"""Litestar, where it is installed: it brings nine packages, so this is a check by hand.

.. code-block:: console

    $ .venv/bin/pip install litestar
    $ .venv/bin/python -m pytest -p no:faker tests/integrations/test_litestar.py

What is peculiar to it (it lets no error of a handler out as it is) is also in test_requests.py.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import pytest

from sigmic_guard.emulator import Emulator, Script
from tests.integrations.hosts import HOSTS, TERM, service
from tests.integrations.situations import SITUATIONS, StalledGenerator, StalledStream, open_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integrations.situations import Situation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.skipif(
        find_spec("litestar") is None, reason="litestar is not installed: a check by hand"
    ),
]

APP: Final = "litestar_service:app"
HOST: Final = HOSTS["uvicorn"]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(script=Script(hold=True)) as emulator:
        yield emulator


async def test_a_signal_ends_every_task_and_every_response(emulator: Emulator) -> None:
    async with service(emulator, HOST, app=APP) as it, open_all(emulator, it) as situations:
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)
        assert emulator.state()["tasks"]["live"] == 0
        for situation in situations:
            await situation.check_shutdown(HOST)


async def test_who_hangs_up_ends_what_he_had_begun(emulator: Emulator) -> None:
    kinds: list[type[Situation]] = [StalledStream, StalledGenerator, *SITUATIONS]
    async with service(emulator, HOST, app=APP) as it, open_all(emulator, it, kinds) as situations:
        for situation in situations:
            await situation.client.hang_up()
        await emulator.wait_for(lambda state: state["tasks"]["live"] == 0)
        it.kill(TERM)
        await it.ended.wait()
        it.check_end(TERM)
