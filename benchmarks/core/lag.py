"""How long the event loop was blocked: the longest stretch between two of its turns.

Measured in the thread's own CPU time: on a shared machine the wall clock tells of others' work.
"""

from __future__ import annotations

from time import thread_time
from typing import TYPE_CHECKING, Self

from anyio import create_task_group
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


class LoopLag:
    """``async with LoopLag() as lag: …``, and then ``lag.worst`` and ``lag.p99``, in ms."""

    def __init__(self) -> None:
        self._stretches: list[float] = []
        self._group: TaskGroup = create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._group.start_soon(self._spin)
        await checkpoint()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def _spin(self) -> None:
        before = thread_time()
        while True:
            await checkpoint()
            now = thread_time()
            self._stretches.append(now - before)
            before = now

    @property
    def worst(self) -> float:
        """The longest stretch, in ms."""
        return max(self._stretches, default=0.0) * 1000

    @property
    def p99(self) -> float:
        """What 99 of 100 stretches stay below, in ms."""
        ranked = sorted(self._stretches)
        return ranked[len(ranked) * 99 // 100] * 1000 if ranked else 0.0
