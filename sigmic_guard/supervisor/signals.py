"""SIGTERM and SIGINT, and any other plain call from outside the loop, as the start of a drain.

A handler may interrupt the loop anywhere, or find it asleep, so it does nothing but leave a note.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from sigmic_guard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class SignalHandlers:
    """Stands before the handlers of SIGTERM and SIGINT, calls on to them, and puts them back.

    What stood there before gets its turn: a function is called at once, on each signal. A default
    action would end the process, and the tasks would be left; it is owed until the drain is over,
    see :attr:`owed`. So is the ``SystemExit`` or ``KeyboardInterrupt`` that a function raises: it
    would tear apart whatever step of the drain it happened to hit.
    """

    def __init__(self, received: Callable[[], None]) -> None:
        self._received = received
        self._before: dict[int, Any] = {}
        self._count = 0
        #: How the program is still to be ended.
        self.owed: BaseException | None = None

    def check(self) -> None:
        """Refuse where Python would.

        :raises ConfigurationError: this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError("signals=True works in the main thread only")

    def install(self) -> None:
        """Take the handlers' places; in the main thread."""
        for number in SIGNALS:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put back what stood there before, unless somebody has replaced us meanwhile."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle and before is not None:
                signal.signal(number, before)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(number)
        self._count += 1
        self._received()
        if self._count > 1:
            self.restore()  # who asks twice means it: a third goes past us
        if before is signal.SIG_DFL:
            self.owed = self.owed or SystemExit(128 + number)
        elif callable(before):
            try:
                before(number, frame)
            except (KeyboardInterrupt, SystemExit) as end:
                self.owed = self.owed or end

    def pay(self) -> None:
        """End the program as it would have been without us.

        :raises SystemExit: for a default action; the status is 128 + the signal's number. Or what
            a function raised, which for SIGINT's own is ``KeyboardInterrupt``.
        """
        if self.owed is not None:
            owed, self.owed = self.owed, None
            raise owed.with_traceback(None)
