"""What a row of the table is: contestants, cases, goals and plots, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.core.site import Site

    #: Does the work once, in a process of its own, and returns what it measured.
    Contestant: TypeAlias = Callable[[Site], Awaitable[Mapping[str, float]]]

#: The contestant that goals are about, unless they say otherwise.
OURS: Final = "sigmic_guard"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size of a row.

    :ivar label: names it in the table.
    :ivar numbers: what contestants read with ``site["…"]``.
    :ivar contestants: who takes part.
    :ivar seconds: that one turn may take.
    :ivar rounds: at most; ``None`` for as many as the run has. For what is the same each time.
    """

    label: str
    numbers: Mapping[str, float]
    contestants: tuple[str, ...]
    seconds: float = 120.0
    rounds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound for a figure, or for the ratio of two, of one run. A missed goal is no failure.

    :ivar text: what is promised.
    :ivar case, who, measure: the figure.
    :ivar over: the contestant of the other figure; ``over_case`` and ``over_measure`` where those
        differ too. The ratio is that of the medians.
    :ivar grows_with: a number of the cases: the figure is the exponent with which the measure grows
        with it, over all cases.
    """

    text: str
    case: str
    measure: str
    at_least: float | None = None
    at_most: float | None = None
    who: str = OURS
    over: str | None = None
    over_case: str | None = None
    over_measure: str | None = None
    grows_with: str | None = None

    @property
    def is_ratio(self) -> bool:
        """Whether it has no unit."""
        return bool(self.over or self.over_case or self.over_measure or self.grows_with)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One picture of a row.

    :ivar cases: that it shows; ``None`` for all.
    :ivar over: the number of the cases that is the x axis of a log-log plot; ``None`` for bars.
    """

    measure: str
    title: str
    over: str | None = None
    cases: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    :ivar headline: the measure that contestants are compared by in the table.
    :ivar requests: that a piece of work makes, of which ``rate`` tells; 0 for none to speak of.
    :ivar cases: called with whether it shall be quick.
    :ivar all_end: whether the server's books are to show, after each turn, that every task was
        deleted once, or completed by itself.
    """

    name: str
    title: str
    headline: str
    contestants: Mapping[str, Contestant]
    cases: Callable[[bool], list[Case]]
    goals: tuple[Goal, ...] = ()
    plots: tuple[Plot, ...] = ()
    requests: int = 0
    all_end: bool = False


@dataclass(frozen=True)
class Measure:
    """How a figure is told. ``more_is_better`` says which way a ratio is good."""

    unit: str
    more_is_better: bool = False


#: Every figure that a contestant may return.
MEASURES: Final[Mapping[str, Measure]] = {
    "rate": Measure("/s", more_is_better=True),
    "megabytes": Measure("MB/s", more_is_better=True),
    "seconds": Measure("s"),
    "all": Measure("s in all"),
    "cpu": Measure("µs CPU each"),
    "each": Measure("µs each"),
    "p50": Measure("ms p50"),
    "p99": Measure("ms p99"),
    "block": Measure("ms longest block"),
    "collector": Measure("ms longest collection"),
    "snapshot": Measure("ms snapshot"),
    "drain": Measure("s drain"),
    "bytes": Measure("bytes each"),
    "peak": Measure("MB held at most"),
    "requests": Measure("requests/s"),
}
