"""An open event stream of a :class:`~sigmic_guard.testing.FakeSigmic`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from sigmic_guard.errors import ConnectionFailed
from sigmic_guard.sigmic.sse import ServerSentEvent
from sigmic_guard.testing.fake_faults import HANG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sigmic_guard.testing.fake_faults import Answer, Fault
    from sigmic_guard.testing.fake_reads import View
    from sigmic_guard.testing.fake_task import FakeTask


class FakeStream:
    """History first, then what the turn has said already, then what it says as it says it.

    :param seen: how the task is seen at the opening, if that is not how it is.

    The server's heartbeats come by themselves: only a reaction to ``"receive"`` makes it silent.
    """

    def __init__(
        self,
        task: FakeTask,
        *,
        seen: View | None = None,
        silence: float,
        reaction: Callable[[], Awaitable[float | Answer | Fault | None]],
        closed: Callable[[FakeStream], None],
    ) -> None:
        self.task = task
        live = task.live if seen is None else seen.live
        self._turn = task.turn if seen is None else seen.turn
        messages = task.messages if seen is None else seen.messages
        self._head = [
            sse("history_message", {"id": f"m-{number}", "role": role, "content": content})
            for number, (role, content) in enumerate(messages, 1)
        ]
        done = {"messageCount": len(self._head), "isStreaming": live}
        self._head.append(sse("history_done", done))
        # Of a turn that is over the history tells all.
        self._read = 0 if live else len(self._turn.behind)
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
            due = self._due()
            events, self._head = self._head, []
            steps = self._turn.behind[self._read :]
            self._read += len(steps)
            events += [sse(step.event, step.data) for step in steps]
            if events or self._turn.over:
                return events
            await self.task.changed.wait(due)
        raise ConnectionFailed(self._broken, sent=True)

    def _due(self) -> float:
        """Bring the task up to date, and return the seconds until its next step."""
        _ = self.task.status
        return self._turn.next_at() - anyio.current_time()

    async def _react(self) -> None:
        with anyio.move_on_after(self._silence):
            try:
                reaction = await self._reaction()
            except Exception:
                self.close()
                raise
            if reaction is HANG:
                await anyio.sleep_forever()
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
