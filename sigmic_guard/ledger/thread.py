"""A thread of its own for calls that block, and may block for ever.

Neither a cancellation nor the end of the process waits for a disk that hangs: whoever is cancelled
leaves the call behind, and the thread is a daemon (anyio's own are none on asyncio).
"""

from __future__ import annotations

import os
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyio import Event

from sigmic_guard.errors import LedgerError, bare
from sigmic_guard.ledger.loops import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


#: Seconds between two beats of a thread that has one.
BEAT: Final = 1.0


class Call:
    """One call: what to do, what came of it, and whom to wake."""

    __slots__ = ("_abandoned", "_done", "_error", "_function", "_loop", "_result")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._loop = Loop()
        self._done = Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self._abandoned = False

    async def wait(self) -> Any:
        """Return what the function returned; raise what it raised."""
        try:
            await self._done.wait()
        finally:
            self._abandoned = not self._done.is_set()
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # its traceback refers to this frame, and so to itself

    def run(self) -> None:
        """Do it, in the thread."""
        try:
            self._result = self._function()
        except BaseException as error:
            # The frames of a failed call hold rows, and so the users' keys.
            self._error = bare(error) if isinstance(error, LedgerError) else error
        if not self._abandoned:
            self._loop.call_soon(self._done.set)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._abandoned


class CallThread:
    """Does one call after the other, in their order, until it is stopped.

    :param beat: called about once a second, in between; must not raise.
    :param tool: what the calls work with. A forked child has the thread's frame, and not the thread
        that would leave it, so there the tool is never destroyed: a child that closes a connection
        of its parent can take away what its parent is just writing.
    """

    def __init__(self, name: str, tool: object, beat: Callable[[], None] | None = None) -> None:
        self._beat = beat
        self._calls: SimpleQueue[Call | Callable[[], None] | None] = SimpleQueue()
        self._last: Call | None = None
        self._pid = os.getpid()
        self._abandoned = False
        Thread(target=self._work, args=(tool,), name=name, daemon=True).start()

    async def run(self, function: Callable[[], T]) -> T:
        """Return what the function returns; raise what it raises.

        Cancelled, it leaves the call behind: one that had begun goes on to its end.

        :raises LedgerError: there is no thread any more: it was abandoned, or this process was
            forked from the one that has it.
        """
        self._check()
        call = Call(function)
        self._calls.put(call)
        self._check()  # abandoned meanwhile, it may have ended without having seen the call
        result: T = await call.wait()
        return result

    def abandon(self, last: Callable[[], None]) -> None:
        """Let the thread end with ``last``, after what is queued; from any thread."""
        self._abandoned = True
        self._calls.put(last)
        self._calls.put(None)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise LedgerError(
                f"the ledger's thread is in another process (pid {self._pid}), from which this one "
                "was forked: open the ledger here, or use spawn"
            )
        if self._abandoned:
            raise LedgerError("the event loop in which the ledger was opened is closed")

    def stop(self, last: Callable[[], None]) -> Call:
        """Let the thread end with ``last``, which is done whether anybody waits for it or not.

        :raises LedgerError: as :meth:`run` does.
        """
        self._check()
        self._last = call = Call(last)
        self._calls.put(call)
        self._calls.put(None)
        return call

    def _work(self, tool: object) -> None:
        held: Final = tool
        beats_at = monotonic() + BEAT
        while True:
            if self._beat is not None and monotonic() >= beats_at:
                self._beat()
                beats_at = monotonic() + BEAT
            try:
                call = self._calls.get(timeout=None if self._beat is None else BEAT)
            except Empty:
                continue
            if call is None:
                break
            if not isinstance(call, Call):
                call()
            elif call is self._last or not call.abandoned:
                call.run()
            del call  # and what it returned, while there is nothing else to do
        del held
