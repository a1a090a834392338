"""Waking those who wait, without polling.

Level-triggered: a ring says only "look again". Whoever waits reads the truth, and finding nothing
for itself waits for the next ring; between the look and the wait there is no `await`, hence no ring
is lost.
"""

import asyncio
import collections


class Bells:
    """A bell for each key that someone waits for."""

    def __init__(self) -> None:
        """Begin with nobody waiting. Needs a running loop only when somebody waits."""
        self._waiting: dict[str, set[asyncio.Future[None]]] = collections.defaultdict(set)

    def ring(self, key: str) -> None:
        """Wake those who wait for this key."""
        for future in self._waiting.pop(key, ()):
            _wake(future)

    def ring_all(self) -> None:
        """Wake everyone."""
        for key in list(self._waiting):
            self.ring(key)

    async def wait(self, key: str, seconds: float | None = None) -> None:
        """Return at the next ring of this key, or after so many seconds."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[key].add(future)
        timer = None if seconds is None else loop.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            if (others := self._waiting.get(key)) is not None:
                others.discard(future)
                if not others:
                    del self._waiting[key]


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
