"""Where a supervisor may be awaited: in the event loop, and the process, that entered it.

An anyio primitive that is awaited from another loop hangs, or breaks its own. So whatever is
awaited of a supervisor or of its handles asks here first.
"""

from __future__ import annotations

import os

from anyio.lowlevel import current_token

from sigmic_guard.errors import ConfigurationError


class Affinity:
    """Remembers the event loop and the process in which it was made."""

    __slots__ = ("_find_loop", "_loop", "_pid")

    def __init__(self) -> None:
        token = current_token()
        self._loop = token.native_token
        # Each event asks, and to find out what kind of loop runs takes a microsecond.
        self._find_loop = token.backend_class.current_token
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is a copy in a forked child, in which nothing of ours runs."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Refuse to be awaited anywhere else.

        :raises ConfigurationError: this is another event loop, or a forked child. Nothing was done.
        """
        if self.forked:
            raise ConfigurationError(
                "this supervisor was entered before the process was forked, and belongs to the "
                f"parent (pid {self._pid}): enter one of its own in the child"
            )
        try:
            here = self._find_loop() is self._loop
        except RuntimeError:  # none runs, or one of another kind
            here = False
        if not here:
            raise ConfigurationError(
                "this supervisor, and its tasks, belong to the event loop that entered it: await "
                "them there (from another thread with asyncio.run_coroutine_threadsafe or "
                "anyio.from_thread.run), or enter a supervisor of its own in this loop"
            )
