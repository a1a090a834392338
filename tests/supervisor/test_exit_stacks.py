"""A supervisor in an ``AsyncExitStack``, as web servers and their frameworks have it."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import AsyncExitStack

import pytest

from sigmic_guard import Supervisor
from sigmic_guard.testing import FakeSigmic
from tests.backends import ASYNCIO, UVLOOP

pytestmark = pytest.mark.backends(ASYNCIO, UVLOOP)


@pytest.mark.parametrize("live", [0, 1])
async def test_a_cancellation_passes_through(live: int) -> None:
    """What another callback raised goes on past the supervisor, and its contexts have an end.

    An exception in its own context lets the next stack around turn in circles, for ever.
    """
    fake = FakeSigmic()
    first, second = CancelledError("first"), CancelledError("second")

    def cancelled_again() -> None:
        raise second

    with pytest.raises(CancelledError) as caught:
        async with AsyncExitStack() as stack:
            supervisor = Supervisor(client=fake, ledger="memory:", registry=None)
            await stack.enter_async_context(supervisor)
            for _ in range(live):
                await supervisor.start("m")
            stack.callback(cancelled_again)
            raise first
    assert caught.value is second
    assert second.__context__ is first
    assert first.__context__ is None
    assert len(fake.live) == 0
