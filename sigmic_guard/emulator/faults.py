"""What goes wrong, when, and for which requests: `Fault`, and the box they are drawn from."""

import dataclasses
import math
import random
from collections.abc import Mapping
from typing import Literal, Self, get_args

import msgspec

from sigmic_guard.emulator.answers import CODES

ROUTES = ("create", "get", "list", "delete", "stream", "send", "approve")
"""The routes that a fault can be set on; `*` is all of them."""

Kind = Literal[
    "latency",
    "status",
    "html",
    "reset_before",
    "reset_mid",
    "reset_after",
    "lost_answer",
    "black_hole",
    "black_hole_after",
    "drip",
    "malformed",
    "truncated",
    "empty",
    "refused_200",
    "lie",
    "redirect",
    "oversize",
    "cut",
    "silent",
    "swapped",
]
KINDS: frozenset[str] = frozenset(get_args(Kind))
INEFFECTIVE: frozenset[Kind] = frozenset(
    {"status", "html", "reset_before", "black_hole", "refused_200", "lie", "redirect"}
)
"""The kinds that by default leave the request without effect."""
SPOILING: frozenset[Kind] = frozenset(
    {"reset_mid", "reset_after", "truncated", "drip", "cut", "silent"}
)
"""The kinds that need the request's own answer, which they then spoil."""
STREAM_ONLY: frozenset[Kind] = frozenset({"cut", "silent"})


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. Times are in seconds, sizes in bytes.

    Kinds:
        latency: wait `seconds`, then go on as usual (with another fault, if one applies).
        status: the failure envelope with `status`, `code`, `message` and `retry_after`.
        html: a gateway's HTML error page with `status` (default 502).
        reset_before: connection reset before the request is handled.
        reset_mid: half of the answer (of a stream: `events` events), then connection reset.
        reset_after: the whole answer, then connection reset.
        lost_answer: the request is handled, then the connection is dropped without a byte.
        black_hole: the request is neither handled nor answered.
        black_hole_after: the request is handled and never answered.
        drip: the answer a byte at a time, with `seconds` between.
        malformed: 200 with invalid JSON; of a stream: one event with invalid JSON.
        truncated: a Content-Length larger than the body; of a stream: ends within an event.
        empty: 200 and no body.
        refused_200: 200 with `success: false`.
        lie: 200 "Task cancelled", and the task runs on; for `delete` only.
        redirect: 302 (or `status`) to `location`.
        oversize: a body, or one event of a stream, of at least `size` bytes.
        cut: the stream is dropped after `events` events; for `stream` only.
        swapped: a GET tells of another task of the credential, the one that was active last, or of
            none that exists; a create gives such a task's id, if it lives. For these two only.
        silent: the stream opens and says nothing, no heartbeats either; for `stream` only.

    Raises:
        ValueError: a parameter is out of range or missing.
    """

    kind: Kind
    status: int | None = None
    code: str | None = None
    message: str = "injected by the emulator"
    retry_after: float | str | None = None
    """Seconds, or an HTTP date."""
    seconds: float = 0.0
    size: int = 64 * 2**20
    events: int = 1
    location: str | None = None
    effect: bool | None = None
    """Whether the request is handled before it is answered badly; None is what the kind says."""
    times: int | None = None
    """How often; None is until cleared."""
    every: int = 1
    """Only each k-th request."""
    probability: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense, at once rather than in the middle of a request."""
        problems = {
            f"no kind {self.kind!r}": self.kind not in KINDS,
            "seconds is finite, 0 or more": not (math.isfinite(self.seconds) and self.seconds >= 0),
            "times is at least 1, or None": self.times is not None and self.times < 1,
            "every is at least 1": self.every < 1,
            "probability is 0 to 1": not 0 <= self.probability <= 1,
            "size and events are 0 or more": self.size < 0 or self.events < 0,
            "a redirect needs a location": self.kind == "redirect" and not self.location,
            f"{self.kind} needs the effect": self.kind in SPOILING and self.effect is False,
            "status is 200 to 599": self.status is not None and not 200 <= self.status <= 599,
        }
        if wrong := [problem for problem, present in problems.items() if present]:
            message = f"Fault: {'; '.join(wrong)}"
            raise ValueError(message)

    @property
    def effective(self) -> bool:
        """Whether the request takes effect though its answer goes wrong."""
        return self.kind not in INEFFECTIVE if self.effect is None else self.effect

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that it adds to its answer."""
        if self.retry_after is None:
            return {}
        if isinstance(self.retry_after, str):
            return {"Retry-After": self.retry_after}
        return {"Retry-After": f"{self.retry_after:g}"}

    @property
    def answer_status(self) -> int:
        """The status of a `status` fault: as given, else that of its code, else 500."""
        return CODES.get(self.code or "", 500) if self.status is None else self.status

    @property
    def answer_code(self) -> str:
        """The code of a `status` fault: as given, else one that fits its status."""
        if self.code is not None:
            return self.code
        fitting = (code for code, status in CODES.items() if status == self.answer_status)
        return "RATE_LIMITED" if self.answer_status == 429 else next(fitting, "SERVER_ERROR")

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Self:
        """A fault from decoded JSON; raises ValueError for an unknown field or a wrong value."""
        if unknown := set(fields) - {field.name for field in dataclasses.fields(cls)}:
            message = f"a Fault has no field {', '.join(sorted(unknown))}"
            raise ValueError(message)
        return msgspec.convert(fields, cls)


def check_route(route: str, fault: Fault) -> None:
    """Refuse a fault for a route that does not know it; raises ValueError."""
    if route not in {*ROUTES, "*"}:
        message = f"no route {route!r}; there are {', '.join(ROUTES)} and *"
        raise ValueError(message)
    if fault.kind in STREAM_ONLY and route != "stream":
        message = f"a {fault.kind} fault is for the route stream, not {route}"
        raise ValueError(message)
    if fault.kind == "lie" and route != "delete":
        message = f"a lie fault is for the route delete, not {route}"
        raise ValueError(message)
    if fault.kind == "swapped" and route not in {"get", "create"}:
        message = f"a swapped fault is for the routes get and create, not {route}"
        raise ValueError(message)


@dataclasses.dataclass(slots=True)
class _Armed:
    route: str
    fault: Fault
    left: float
    seen: int = 0

    def fires(self, chance: random.Random) -> bool:
        self.seen += 1
        if self.seen % self.fault.every or chance.random() >= self.fault.probability:
            return False
        self.left -= 1
        return True


class FaultBox:
    """The faults that are armed, in the order in which they were set."""

    def __init__(self, seed: int) -> None:
        """Begin empty; `seed` makes the probabilities repeatable."""
        self._armed: list[_Armed] = []
        self._chance = random.Random(seed)

    def add(self, route: str, fault: Fault) -> None:
        """Arm a fault; raises ValueError where the route does not know it."""
        check_route(route, fault)
        self._armed.append(_Armed(route, fault, math.inf if fault.times is None else fault.times))

    def clear(self, route: str | None = None) -> None:
        """Disarm those set on this route, or all."""
        self._armed = [armed for armed in self._armed if route not in {None, armed.route}]

    def draw(self, route: str) -> tuple[float, Fault | None]:
        """What befalls a request: seconds of latency, and the first other fault that fires."""
        latency = 0.0
        found: Fault | None = None
        for armed in self._armed:
            if armed.route not in {route, "*"}:
                continue
            if armed.fault.kind == "latency":
                latency += armed.fault.seconds if armed.fires(self._chance) else 0.0
            elif found is None and armed.fires(self._chance):
                found = armed.fault
        if any(armed.left <= 0 for armed in self._armed):
            self._armed = [armed for armed in self._armed if armed.left > 0]
        return latency, found
