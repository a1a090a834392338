"""The event loop that something belongs to, and what is to be done once that is gone.

A loop that was closed runs nothing any more, whatever its process does; one that is blocked, or
stopped, may go on. Nothing here keeps a loop from being collected, and one that was is gone too.

Nobody is told when a loop closes. Whoever wants to know looks, with :func:`notice`: the threads of
the ledgers about once a second, and everybody who asks whether an owner lives.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final
from weakref import ref

from anyio.lowlevel import current_token

from sigmic_guard.ledger.forks import in_child

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """The event loop that runs now, in this thread.

    :raises RuntimeError: there is none.
    """

    __slots__ = ("_native",)

    def __init__(self) -> None:
        self._native = ref(current_token().native_token)

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have it called in the loop, if that is not gone; from any thread, which does not wait."""
        native = self._native()
        # anyio has no call for this: those of `anyio.from_thread` wait for the loop's turn.
        soon = getattr(native, "call_soon_threadsafe", None) or getattr(
            native, "run_sync_soon", None
        )
        if soon is not None:
            with suppress(RuntimeError):  # the loop is closed
                soon(call)

    def is_gone(self) -> bool:
        """Tell whether it can run nothing any more; from any thread."""
        native = self._native()
        if native is None:
            return True
        if hasattr(native, "is_closed"):
            return bool(native.is_closed())
        if _running() is native:
            return False
        try:  # a token of trio's, which tells only who calls; that wakes the loop for an instant
            native.run_sync_soon(_nothing, idempotent=True)  # type: ignore[attr-defined]
        except RuntimeError:
            return True
        return False


class Ending:
    """A call that is due once a loop is gone, unless it is forgotten before.

    :param call: is called once, in whatever thread notices it. Must be quick, and not raise.
    """

    def __init__(self, loop: Loop, call: Callable[[], None]) -> None:
        self.loop: Final = loop
        self._call = call
        _endings.add(self)

    def forget(self) -> bool:
        """Do not call; ``False`` if it was called already."""
        try:
            _endings.remove(self)  # one step: of several threads one has it
        except KeyError:
            return False
        return True

    def check(self) -> None:
        """Call, if it is time."""
        if self.loop.is_gone() and self.forget():
            self._call()


_endings: Final[set[Ending]] = set()

# Its parent's loops are no business of a child, and a look at one could wake the parent.
in_child(_endings.clear)


def notice() -> None:
    """Make the calls of all loops that are gone; from any thread."""
    for ending in tuple(_endings):
        ending.check()


def _running() -> object:
    try:
        return current_token().native_token
    except Exception:  # noqa: BLE001 - anyio 4.12 has one of its own, which has no public name
        return None


def _nothing() -> None:
    pass
