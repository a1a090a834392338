"""What can go wrong with the requests of a :class:`~sigmic_guard.testing.FakeSigmic`, and when."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import anyio

from sigmic_guard.emulator import Fault
from sigmic_guard.emulator.faults import ROUTES, FaultBox, check_route
from sigmic_guard.errors import ApiError, ConnectionFailed
from sigmic_guard.sigmic.responses import error_kind, read_retry_after

if TYPE_CHECKING:
    from sigmic_guard.emulator.answers import Refusal

#: The methods whose calls can be made to fail, or held at a gate. ``receive`` is an open stream's.
METHODS: Final = frozenset({*ROUTES, "receive"})


class Call(NamedTuple):
    """One request that arrived; ``task_id`` is ``None`` for ``create`` and ``list``."""

    method: str
    task_id: str | None
    at: float


#: No answer ever comes, and nothing takes effect: the caller's time-out ends it.
HANG: Final = Fault("black_hole")
#: The request takes effect, and its answer is lost: ``ConnectionFailed(sent=True)``.
LOST: Final = Fault("lost_answer")
#: The request takes effect, and is answered with what another task is told of: ``get`` with its
#: record, ``create`` with its id if it lives. It is the one that was active last; without another
#: ``get`` tells of one that does not exist.
SWAPPED: Final = Fault("swapped")
#: For ``delete``: the documented answer, while the task runs on.
LIE: Final = Fault("lie")

#: The faults that mean something without bytes on a wire.
KINDS: Final = frozenset(
    {
        "latency",
        "status",
        "reset_before",
        "lost_answer",
        "black_hole",
        "black_hole_after",
        "lie",
        "swapped",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Gives this answer, whatever it is, and nothing takes effect."""

    value: Any


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
    """Which reaction is whose turn: one that is planned, a fault that is armed, or the standing."""

    def __init__(self) -> None:
        self._next: defaultdict[str, deque[Reaction | None]] = defaultdict(deque)
        self._armed = FaultBox(seed=0)
        self._always: dict[str, Reaction] = {}
        self._gates: dict[tuple[str, bool], Gate] = {}

    def on(self, method: str, *reactions: Reaction | None) -> None:
        """Plan one reaction per call to come."""
        check_method(method)
        for reaction in reactions:
            check_reaction(method, reaction)
        self._next[method].extend(reactions)

    def always(self, method: str, reaction: Reaction | None) -> None:
        """Set the reaction to calls for which none is planned; ``None`` takes it back."""
        check_method(method)
        check_reaction(method, reaction)
        if reaction is None:
            self._always.pop(method, None)
        else:
            self._always[method] = reaction

    def arm(self, method: str, fault: Fault) -> None:
        """Arm a fault, for as often as it says."""
        check_reaction(method, fault)
        self._armed.add(method, fault)

    def clear(self, method: str | None) -> None:
        """Disarm those of this method, or all."""
        self._armed.clear(method)

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

        Of a fault without effect nothing is returned. One that is returned spoils the answer.

        :raises BaseException: the reaction is one.
        """
        planned = self._next[call.method]
        reaction = planned.popleft() if planned else await self._standing(call.method)
        while callable(reaction):
            told = reaction(call)
            reaction = await told if inspect.isawaitable(told) else told
        if isinstance(reaction, BaseException):
            # A copy: an exception that is raised again and again grows by a traceback each time.
            raise copy.copy(reaction)
        if isinstance(reaction, Fault):
            if reaction.kind == "latency":
                await anyio.sleep(reaction.seconds)
                return None
            if not reaction.effective:
                if reaction.kind == "lie":
                    return Answer(value=True)
                await spoil(reaction, call)
        return reaction

    async def _standing(self, method: str) -> Reaction | None:
        latency, fault = self._armed.draw(method) if method in ROUTES else (0.0, None)
        if latency:
            await anyio.sleep(latency)
        return fault or self._always.get(method)


async def spoil(fault: Fault, call: Call) -> None:
    """Let the caller have no answer, but an error or nothing at all; some faults leave him his.

    :raises ApiError: the answer is a refusal.
    :raises ConnectionFailed: there is none.
    """
    match fault.kind:
        case "status":
            status = fault.answer_status
            raise error_kind(status)(
                fault.message,
                code=fault.answer_code,
                status=status,
                retry_after=read_retry_after(fault.headers.get("Retry-After")),
            )
        case "lost_answer":
            raise ConnectionFailed(f"the answer to {call.method} was lost", sent=True)
        case "reset_before":
            raise ConnectionFailed("the connection was reset", sent=True)
        case "black_hole" | "black_hole_after":
            await anyio.sleep_forever()


def refused(refusal: Refusal) -> ApiError:
    """Return what the caller gets where the API refuses."""
    return error_kind(refusal.status)(refusal.message, code=refusal.code, status=refusal.status)


def check_method(method: str) -> None:
    """Refuse a name that no request has.

    :raises ValueError: it is misspelt.
    """
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(sorted(METHODS))}")


def check_reaction(method: str, reaction: Reaction | None) -> None:
    """Refuse a fault that means nothing here.

    :raises ValueError: it is about bytes on the wire, or not for this method.
    """
    if not isinstance(reaction, Fault):
        return
    if reaction.kind not in KINDS:
        raise ValueError(f"a {reaction.kind} fault is about bytes on the wire: use an Emulator")
    if method != "receive":
        check_route(method, reaction)
