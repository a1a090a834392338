"""A client of the wire transport is closed, whatever is under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sigmic_guard.errors import ConnectionFailed
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from sigmic_guard.sigmic.wire.dialing import Dialer
from tests.backends import ASYNCIO, UVLOOP
from tests.sigmic.raw_server import KEY, answering, raw_server
from tests.sigmic.test_wire_pool import one_place, pool_of, task

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP)


@pytest.mark.parametrize("steps", range(1, 12))
async def test_at_any_step(steps: int) -> None:
    """Whoever calls, waits or dials learns that the client was closed, and whether it sent."""
    async with one_place() as (gate, _, client):
        calls = [asyncio.create_task(client.get(str(i), timeout=60)) for i in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        await client.aclose()
        await asyncio.wait(calls)
        for call in calls:
            error = call.exception()
            assert isinstance(error, ConnectionFailed)
            assert "close" in str(error)
            assert error.sent or not gate.seen[str(calls.index(call))]
        assert not pool_of(client)._connections


async def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing does not wait for a connection that is being made."""
    dialed = asyncio.Event()

    async def dial(*_: object) -> Any:
        dialed.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Dialer, "dial", dial)
    client = SigmicClient(KEY, "http://127.0.0.1:9")
    call = asyncio.create_task(client.create(CreateRequest(message="m"), timeout=60))
    await dialed.wait()
    await client.aclose()
    with pytest.raises(ConnectionFailed, match="was closed") as caught:
        await call
    assert not caught.value.sent


def test_when_its_loop_is_gone() -> None:
    """A client of a loop that is closed can be closed from another one."""

    async def use() -> SigmicClient:
        async with raw_server(answering(task("x"))) as server:
            client = SigmicClient(KEY, server.url)
            await client.get("x", timeout=5)
            return client

    client = asyncio.run(use())
    asyncio.run(client.aclose())
