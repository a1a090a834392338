"""The budget over real HTTP: a black hole behind DELETE, and a thousand tasks."""

from __future__ import annotations

from time import perf_counter
from typing import Final

import pytest
from anyio import create_task_group
from prometheus_client import CollectorRegistry

from sigmic_guard import Supervisor
from sigmic_guard.emulator import Emulator, Fault, Script
from tests.backends import ASYNCIO, UVLOOP
from tests.observe.sums import add_up

pytestmark = [pytest.mark.backends(ASYNCIO, UVLOOP), pytest.mark.slow, pytest.mark.alone]

KEY: Final = "sigmic_" + "ab" * 32
MANY: Final = 1000


@pytest.mark.parametrize("routes", [("delete",), ("delete", "get", "list", "create", "stream")])
async def test_a_black_hole(routes: tuple[str, ...]) -> None:
    """With 1,000 tasks and grace=2 a black hole costs less than 3 s, and every task is named."""
    registry = CollectorRegistry()
    async with Emulator(script=Script(hold=True)) as emulator:
        supervisor = Supervisor(
            api_key=KEY, base_url=emulator.url, ledger="memory:", grace=2, registry=registry
        )
        async with supervisor:
            async with create_task_group() as group:
                for _ in range(MANY):
                    group.start_soon(supervisor.start, "m")
            for route in routes:
                emulator.fault(route, Fault("black_hole"))
            began = perf_counter()
            report = await supervisor.shutdown()
        assert perf_counter() - began < 3
        assert {row.id for row in report.unconfirmed} == set(emulator.tasks)
        assert emulator.live == MANY
        assert len(emulator.tasks) == MANY
    assert add_up(registry).live == MANY
