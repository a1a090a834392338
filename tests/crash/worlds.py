"""The worlds in which a process dies: how far answers can be trusted there, and the wall clock."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from sigmic_guard.errors import ProtocolError
from sigmic_guard.testing import SWAPPED
from tests.crash import program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sigmic_guard.testing import FakeSigmic
    from tests.crash.life import Life

HOUR: Final = 3600.0
#: Requests of each route, in each life, that a gateway answers.
PAGES: Final = 2
#: With which status, which says nothing.
STATUSES: Final = {"create": 409, "get": 404, "list": 403, "delete": 404, "stream": 401}
#: The step of a life at which its clock is set.
SET_AT: Final = 60


@dataclass(frozen=True, kw_only=True)
class World:
    """One of them; by default all is as it should be."""

    #: Seconds by which GET, the list and streams lag behind what is.
    read_lag: float = 0.0
    #: GETs that tell of another task, in each life.
    swapped: int = 0
    #: Whether a gateway answers first, and whether what was asked for has taken effect by then.
    gateway: bool = False
    after_effect: bool = False
    #: By how many seconds the wall clock is ahead in each life, at first and later.
    clocks: Sequence[tuple[float, float]] = ()
    ways: Sequence[program.Way] = field(default=program.ALL, repr=False)

    def begin(self, fake: FakeSigmic) -> None:
        """Get ready for another life."""
        fake.read_lag = self.read_lag
        fake.on("get", *[SWAPPED] * self.swapped)


class Gateway:
    """Stands between one process and the API."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._answered = Counter[str]()

    def answer(self, name: str, *, after_effect: bool) -> None:
        """Answer in the API's place, if it does.

        :raises ProtocolError: it does, with a page of its own.
        """
        world, route = self._world, name.split(maxsplit=1)[0]
        if world.gateway and world.after_effect is after_effect and self._answered[route] < PAGES:
            self._answered[route] += 1
            raise self.page(route)

    @staticmethod
    def page(route: str) -> Exception:
        """Return what comes of its page."""
        return ProtocolError("a page", status=STATUSES.get(route, 403))


@contextmanager
def clock_of(life: Life, clocks: tuple[float, float]) -> Iterator[None]:
    """Set the wall clock of a life."""
    at_first, later = clocks

    def wall_time() -> float:
        return time.time() + (at_first if len(life.steps) < SET_AT else later)

    clock = SimpleNamespace(time=wall_time, monotonic=time.monotonic)
    with patch("sigmic_guard.supervisor.ground.clock.time", clock):
        yield


PLAIN: Final = World()
WORLDS: Final = {
    "lagging": World(read_lag=2.0),
    "swapped": World(swapped=3),
    "behind a gateway": World(gateway=True),
    "a gateway answers for it": World(gateway=True, after_effect=True),
    "the owner's clock lags": World(clocks=((-HOUR, -HOUR),)),
    "the owner's clock is set back": World(clocks=((0.0, -HOUR),)),
    "the owner's clock is set right": World(clocks=((-HOUR, 0.0),)),
    "the heir's clock is ahead": World(clocks=((0.0, 0.0), (HOUR, HOUR))),
    "the heir's clock steps": World(clocks=((0.0, 0.0), (0.0, HOUR))),
    "both clocks are wrong": World(clocks=((-HOUR, -HOUR), (HOUR, HOUR))),
    "plain calls": World(ways=program.PLAIN_CALLS),
}
