"""A supervisor for fixtures: entered and left in one task, whoever begins and ends the fixture."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from anyio import CancelScope
from prometheus_client import CollectorRegistry

from sigmic_guard.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def supervised(**options: Any) -> AsyncIterator[Supervisor]:
    """Enter a supervisor that may be left in another asyncio task than it was entered in.

    A fixture may begin and end in two tasks, and a cancel scope cannot. So on asyncio
    the supervisor lives in a task of its own; on trio it is entered in the caller's::

        @pytest_asyncio.fixture
        async def service(sigmic):
            async with supervised(client=sigmic) as supervisor:
                yield Service(supervisor)

    A signal or a bug that takes the supervisor down does not cancel the body; what the supervisor
    raises then comes out of the block's end.

    :param options: those of :class:`~sigmic_guard.Supervisor`. Unless they say otherwise the
        ledger is ``"memory:"``, and the metrics go to a registry of its own.
    :raises ConfigurationError: an option cannot be right.
    :raises LedgerError: the ledger cannot be opened.
    """
    defaults: dict[str, Any] = {"ledger": "memory:", "registry": CollectorRegistry()}
    supervisor = Supervisor(**(defaults | options))
    if not on_asyncio():
        async with supervisor:
            yield supervisor
        return
    entered, left = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(_live(supervisor, entered, left))
    opening = asyncio.create_task(entered.wait())
    try:
        await asyncio.wait({task, opening}, return_when=asyncio.FIRST_COMPLETED)
        if not entered.is_set():
            await task  # it raises
        yield supervisor
    finally:
        opening.cancel()
        left.set()
        with CancelScope(shield=True):
            if entered.is_set():
                await task  # a native cancellation reaches the supervisor, which drains first
            elif task.cancel():
                await asyncio.wait({task})


async def _live(supervisor: Supervisor, entered: asyncio.Event, left: asyncio.Event) -> None:
    async with supervisor:
        entered.set()
        await left.wait()


def on_asyncio() -> bool:
    """Whether the caller runs in a task of asyncio's."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
