"""SIGTERM and SIGINT as the start of a drain.

One handler of ours stands for each of the two, however many supervisors listen, so that they can
come and go in any order. It calls on to what stood there before, and where nobody listens any more
it is as if it were not there. Being called at any instruction, it leaves notes and does no more.
A handler may be interrupted by the next signal; what stood there before sees them in their order
all the same: to uvicorn a SIGTERM that follows a SIGINT is nothing new, and the other way round
it means to exit without a drain.

Who asks again is in a hurry, but one request may arrive twice: what is sent to a whole process
group, by systemd, a terminal or ``timeout``, a worker gets from there and from its parent, which
passes it on. Python does not tell a handler who sent a signal, and no interval tells the two apart:
uvicorn passes it on within half a second, hypercorn when the first of its workers has gone. So a
SIGTERM, whenever it comes, is the same request where our parent process handles SIGTERM itself.
That costs little: service managers go on to SIGKILL, not to a second SIGTERM. A SIGINT after
another signal is always somebody in a hurry: people press Ctrl-C twice, and those parents pass it
on as SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from contextlib import contextmanager
from enum import Enum, auto
from logging import WARNING
from typing import TYPE_CHECKING, Any, Final, Literal

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger.forks import in_child
from sigmic_guard.lifecycle.values import plain, shown
from sigmic_guard.observe.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: What stands in ``/proc/PID/status`` before the masks of the signals that a process does not leave
#: to the system: it has a handler, or waits for them.
_HANDLED: Final = (b"SigCgt:", b"SigBlk:")
#: Bytes of that file that are read: the masks stand within its first two kilobytes.
_STATUS_SIZE: Final = 4096


class Asked(Enum):
    """How often somebody has asked for the end: who asks twice is in a hurry."""

    NEVER = auto()
    ONCE = auto()
    TWICE = auto()

    def after(self, *, relayed: bool) -> Asked:
        """What it is after one more signal.

        :param relayed: it may be the same request, passed on.
        """
        if self is Asked.NEVER:
            return Asked.ONCE
        return self if relayed else Asked.TWICE


def check_signals(value: object) -> bool | Literal["auto"]:
    """Return how signals are to be handled.

    :raises ConfigurationError: in no such way.
    """
    text = plain(value)
    if type(text) is str and text == "auto":
        return "auto"
    if value is True or value is False:
        return value
    raise ConfigurationError(f"signals must be True, False or 'auto', not {shown(value)}")


class SignalHandlers:
    """One supervisor's interest in the signals.

    What stood there before gets its turn: a function is called at once, on each signal. A default
    action would end the process, and the tasks would be left; it is put off until the drain is
    over. So is the ``SystemExit`` or ``KeyboardInterrupt`` that a function raises: it would tear
    apart whatever step of the drain it happened to hit.

    :param received: called on each signal; may do no more than leave a note.
    :param yielding: leave the way in which the process dies to whoever decided it: a default action
        is carried out after the drain, by the signal itself.
    """

    def __init__(self, received: Callable[[], None], *, yielding: bool = False) -> None:
        self._received = received
        self._yielding = yielding
        self._asked = Asked.NEVER
        #: How the program is still to be ended, by an exception out of the supervisor's block.
        self.pending_exception: BaseException | None = None
        #: The signal of which the process is to die, once everybody has drained.
        self.pending_signal: int | None = None
        self._handlers: list[_Handler] = []

    def install(self) -> None:
        """Listen from now on; off the main thread Python lets nobody."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = [handler for number in SIGNALS if (handler := _listen(number, self))]
        elif not self._yielding:
            hint = "signals are handled in the main thread only: call request_shutdown() from there"
            Channel("sigmic_guard").write(WARNING, "signals.unavailable", {"hint": hint})

    def restore(self) -> None:
        """Listen no more. Where nobody else does, what stood there before stands again."""
        for handler in self._handlers:
            handler.dismiss(self)

    def takes(self, before: Any) -> bool:
        """Tell whether this one wants to stand before that handler."""
        # None: it was not set by Python, and could neither be called nor be put back. What was
        # ignored when we came stays so: a shell's background jobs are not to end by a Ctrl-C.
        return before is not None and before is not signal.SIG_IGN

    def receive(self, *, relayed: bool) -> None:
        """Take a signal."""
        self._asked = self._asked.after(relayed=relayed)
        self._received()

    def note_end(self, number: int, end: BaseException | None, *, default: bool) -> None:
        """Remember how the program is still to be ended.

        :param end: what the handler that stood before raised to end it.
        :param default: the signal's default action would have ended it.
        """
        if default and self._yielding:
            self.pending_signal = number
        elif default:
            self.pending_exception = self.pending_exception or SystemExit(128 + number)
        elif end is not None:
            self.pending_exception = self.pending_exception or type(end)(*end.args)

    @property
    def impatient(self) -> bool:
        """Whether somebody has asked twice."""
        return self._asked is Asked.TWICE

    def drained(self) -> None:
        """Die of the signal that would have ended the process, unless others have yet to drain."""
        number, self.pending_signal = self.pending_signal, None
        self.restore()
        if number is not None and not any(handler.awaited(number) for handler in self._handlers):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def raise_pending(self) -> None:
        """End the program as it would have been without us.

        :raises SystemExit: for a default action; the status is 128 + the signal's number. Or what
            a function raised, which for SIGINT's own is ``KeyboardInterrupt``.
        """
        if self.pending_exception is not None:
            error, self.pending_exception = self.pending_exception, None
            raise error.with_traceback(None)


class _Handler:
    """What stands for one signal, and what stood there before."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._before: Any = signal.getsignal(number)
        self._listeners: list[SignalHandlers] = []
        self._asked = Asked.NEVER
        self._parent = os.getppid()

    @property
    def __self__(self) -> object:
        """That of a bound method that stood here before: some look there for their server."""
        return self._before.__self__

    @property
    def on_top(self) -> bool:
        """Whether nobody has replaced it."""
        standing: object = signal.getsignal(self._number)
        return standing is self

    def add(self, listener: SignalHandlers) -> bool:
        """Let one more listen, if it wants to stand before what stands there."""
        if not listener.takes(self._before):
            return False
        self._listeners.append(listener)
        return True

    def stand(self) -> None:
        """Take the place of what stood there."""
        _standing[self._number] = self
        signal.signal(self._number, self)

    def step_down(self) -> None:
        """Put back what stood before; where somebody has replaced us, only pass on."""
        if _standing.get(self._number) is self:
            del _standing[self._number]
        if self.on_top:
            signal.signal(self._number, self._before)

    def dismiss(self, listener: SignalHandlers) -> None:
        """Let one listen no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            if not self._listeners:
                self.step_down()

    def awaited(self, number: int) -> bool:
        """Tell whether somebody still drains of whose signal the process is to die."""
        return any(listener.pending_signal == number for listener in self._listeners)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Deal with the signal, after those that came before it."""
        _arrivals.add(self, number, frame)

    def deal_with(self, number: int, frame: FrameType | None) -> None:
        """Tell those who listen, and give what stood before its turn."""
        listeners = tuple(self._listeners)
        if not listeners or self._asked is Asked.TWICE:
            # Somebody calls on to us who has replaced us.
            self._pass_on(number, frame)
            return
        relayed = self._may_be_relayed()
        self._asked = self._asked.after(relayed=relayed)
        if self._asked is Asked.TWICE:
            self.step_down()  # who asks twice means it: a third goes past us
        for listener in listeners:
            listener.receive(relayed=relayed)
        end: BaseException | None = None
        try:
            if callable(self._before):
                with _arrivals.let_in():  # it may take its time, and somebody be in a hurry
                    self._before(number, frame)
        except (KeyboardInterrupt, SystemExit) as raised:
            end = raised
        for listener in listeners:
            listener.note_end(number, end, default=self._before is signal.SIG_DFL)

    def _may_be_relayed(self) -> bool:
        """Tell whether our parent may have sent the signal because it got one itself."""
        if self._number != signal.SIGTERM:
            return False
        parent = os.getppid()
        if parent != self._parent:
            return True  # by whoever started it: the same signal may have ended it
        return parent != 0 and _handles(parent, self._number)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before):
            with _arrivals.let_in():
                self._before(number, frame)
        elif self._before is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def forget_in_child(self) -> None:
        """Stand for nobody in a forked child: its signals are not its parent's."""
        self._listeners.clear()
        self.step_down()


class _Arrivals:
    """Signals in the order in which they came, all on the main thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[_Handler, int, FrameType | None]] = deque()
        self._busy = False

    def add(self, handler: _Handler, number: int, frame: FrameType | None) -> None:
        """Deal with a signal; if it interrupts our work on another one, after that."""
        self._waiting.append((handler, number, frame))
        self._go_through()

    def _go_through(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                handler, number, frame = self._waiting.popleft()
                handler.deal_with(number, frame)
        finally:
            self._busy = False
            if self._waiting:  # one more came just before that, or what stood there before raised
                self._go_through()

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Let others interrupt what is done here."""
        self._busy = False
        try:
            yield
        finally:
            self._busy = True

    def forget_in_child(self) -> None:
        """Deal with none of a parent's signals in its forked child."""
        self._waiting.clear()
        self._busy = False


def _handles(pid: int, number: int) -> bool:
    """Tell whether a process deals with a signal itself; also where that cannot be seen."""
    try:
        file = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_NONBLOCK)  # there is no disk in it
        try:
            status = os.read(file, _STATUS_SIZE)
        finally:
            os.close(file)
    except OSError:
        return True
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(_HANDLED)]
    return not masks or any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


_arrivals: Final = _Arrivals()

#: By number: the handler of ours that was set last, as long as somebody listens.
_standing: Final[dict[int, _Handler]] = {}


def _listen(number: int, listener: SignalHandlers) -> _Handler | None:
    standing = _standing.get(number)
    if standing is not None and standing.on_top:
        return standing if standing.add(listener) else None
    # Who has replaced an older one of ours may or may not call on to it: stand before both.
    handler = _Handler(number)
    if not handler.add(listener):
        return None
    handler.stand()
    return handler


@in_child
def _forget_in_child() -> None:
    _arrivals.forget_in_child()
    for handler in tuple(_standing.values()):
        handler.forget_in_child()
