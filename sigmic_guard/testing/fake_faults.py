"""What can go wrong with the requests of a :class:`~sigmic_guard.testing.FakeSigmic`, and when."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

import anyio

#: The methods whose calls can be made to fail, or held at a gate. ``receive`` is an open stream's.
METHODS: Final = frozenset(
    {"create", "get", "list", "delete", "send", "approve", "stream", "receive"}
)


class Call(NamedTuple):
    """One request that arrived; ``task_id`` is ``None`` for ``create`` and ``list``."""

    method: str
    task_id: str | None
    at: float


class Fault(Enum):
    """A way to answer that is none."""

    HANG = "hang"
    LOST = "lost"
    SWAPPED = "swapped"


#: No answer ever comes, and nothing takes effect: the caller's time-out ends it.
HANG: Final = Fault.HANG
#: The request takes effect, and its answer is lost: ``ConnectionFailed(sent=True)``.
LOST: Final = Fault.LOST
#: The request takes effect, and is answered with what another task is told of: ``get`` with its
#: record, ``create`` with its id if it lives. It is the one that was active last.
SWAPPED: Final = Fault.SWAPPED


@dataclass(frozen=True, slots=True)
class Answer:
    """Gives this answer, whatever it is, and nothing takes effect."""

    value: Any


#: For ``delete``: the documented answer, while the task runs on.
LIE: Final = Answer(value=True)

Reaction: TypeAlias = (
    BaseException
    | float
    | Fault
    | Answer
    | Callable[[Call], "Reaction | Awaitable[Reaction | None] | None"]
)


class Gate:
    """Holds requests at one exact point until the test opens it.

    :ivar entered: set when the first request has come to the gate.
    :ivar waiting: how many requests stand at it now.
    """

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.waiting = 0
        self._open = anyio.Event()

    def open(self) -> None:
        """Let everybody through, from now on."""
        self._open.set()

    async def hold(self) -> None:
        """Wait until it is open."""
        self.waiting += 1
        self.entered.set()
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1


class Faults:
    """Which reaction is whose turn."""

    def __init__(self) -> None:
        self._next: defaultdict[str, deque[Reaction | None]] = defaultdict(deque)
        self._always: dict[str, Reaction] = {}
        self._gates: dict[tuple[str, bool], Gate] = {}

    def on(self, method: str, *reactions: Reaction | None) -> None:
        """Plan one reaction per call to come."""
        check_method(method)
        self._next[method].extend(reactions)

    def always(self, method: str, reaction: Reaction | None) -> None:
        """Set the reaction to calls for which none is planned; ``None`` takes it back."""
        check_method(method)
        if reaction is None:
            self._always.pop(method, None)
        else:
            self._always[method] = reaction

    def gate(self, method: str, *, answer: bool) -> Gate:
        """Put up a gate, in place of one that stood there."""
        check_method(method)
        gate = self._gates[method, answer] = Gate()
        return gate

    async def pass_gate(self, method: str, *, answer: bool) -> None:
        """Wait at the gate, if there is one."""
        gate = self._gates.get((method, answer))
        if gate is not None:
            await gate.hold()

    async def reaction_to(self, call: Call) -> float | Answer | Fault | None:
        """Return what shall happen to a call; callables have been asked.

        :raises BaseException: the reaction is one.
        """
        planned = self._next[call.method]
        reaction = planned.popleft() if planned else self._always.get(call.method)
        while callable(reaction):
            told = reaction(call)
            reaction = await told if inspect.isawaitable(told) else told
        if isinstance(reaction, BaseException):
            # A copy: an exception that is raised again and again grows by a traceback each time.
            raise copy.copy(reaction)
        return reaction


def check_method(method: str) -> None:
    """Refuse a name that no request has.

    :raises ValueError: it is misspelt.
    """
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(sorted(METHODS))}")
