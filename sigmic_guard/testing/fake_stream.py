"""An open event stream of a :class:`~sigmic_guard.testing.FakeSigmic`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import ConnectionFailed
from sigmic_guard.sigmic.sse import ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sigmic_guard.emulator import Fault
    from sigmic_guard.emulator.sse import Feed
    from sigmic_guard.testing.fake_faults import Answer
    from sigmic_guard.testing.fake_task import FakeTask


class FakeStream:
    """History first, then what the turn has said already, then what it says as it says it.

    The server's heartbeats come by themselves: only a reaction to ``"receive"`` makes it silent.
    """

    def __init__(
        self,
        task: FakeTask,
        feed: Feed,
        *,
        silence: float,
        reaction: Callable[[], Awaitable[float | Answer | Fault | None]],
        closed: Callable[[FakeStream], None],
    ) -> None:
        self.task = task
        self._feed = feed
        self._head = [sse(step.event, step.data) for step in feed.opening(task.now()[1])]
        self._silence = silence
        self._reaction = reaction
        self._on_close = closed
        #: Why nothing can be received any more.
        self._broken: str | None = None

    async def receive(self) -> Sequence[ServerSentEvent]:
        """Return the next events; an empty sequence at the end.

        After a cancellation the stream is as it was; after a raise it is closed.

        :raises ConnectionFailed: the stream broke, was silent for too long, or is closed.
        """
        await checkpoint()
        if self._broken is None:
            await self._react()
        while self._broken is None:
            _, now = self.task.now()
            events, self._head = self._head, []
            events += [sse(step.event, step.data) for step in self._feed.fresh(now)]
            if events or self._feed.over:
                return events
            await self.task.changed.wait(self._feed.next_at - now)
        raise ConnectionFailed(self._broken, sent=True)

    async def _react(self) -> None:
        with anyio.move_on_after(self._silence):
            try:
                reaction = await self._reaction()
            except Exception:
                self.close()
                raise
            if isinstance(reaction, int | float):
                await anyio.sleep(reaction)
            return
        self.snap(f"the stream was silent for {self._silence:g} s")

    def snap(self, message: str) -> None:
        """Break the stream: whoever receives gets a :class:`ConnectionFailed`."""
        if self._broken is None:
            self._broken = message
        self._on_close(self)
        self.task.changed.fire()

    def close(self) -> None:
        """Drop the connection; a :meth:`receive` under way raises."""
        self.snap("the stream is closed")

    async def aclose(self) -> None:
        """Drop the connection: the same as :meth:`close`, for ``aclosing`` and its like."""
        self.close()


def sse(event: str, data: Mapping[str, Any]) -> ServerSentEvent:
    """Return one event as the decoder would."""
    return ServerSentEvent(event=event, data=json.dumps(data))
