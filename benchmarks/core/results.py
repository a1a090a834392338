"""What a run measured, as data: what ``--json`` writes, and ``--against`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.core.stats import median

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RowResult", "Run"]

#: How many times as many requests as the fastest client makes the server has to answer.
FASTER: Final = 1.5

#: Of one contestant: its figures by measure, one for each round.
Figures = dict[str, list[float]]


class RowResult(msgspec.Struct, kw_only=True):
    """One row.

    :ivar cases: figures by case and contestant.
    :ivar numbers: those of the cases.
    :ivar absent: the packages that are not installed, by contestant.
    :ivar failures: of sanity checks; one makes the run fail.
    """

    name: str
    cases: dict[str, dict[str, Figures]] = {}
    numbers: dict[str, dict[str, float]] = {}
    absent: dict[str, str] = {}
    failures: list[str] = []

    def note(self, case: str, who: str, values: dict[str, float]) -> None:
        """Add what one turn measured."""
        figures = self.cases.setdefault(case, {}).setdefault(who, {})
        for measure, value in values.items():
            figures.setdefault(measure, []).append(value)

    def figures(self, case: str, who: str, measure: str) -> list[float]:
        """Return what was measured in each round; nothing where it was not."""
        return self.cases.get(case, {}).get(who, {}).get(measure, [])

    def median(self, case: str, who: str, measure: str) -> float | None:
        """Return the median of it."""
        values = self.figures(case, who, measure)
        return median(values) if values else None

    def lines(self) -> Iterator[tuple[str, str, Figures]]:
        """Yield case, contestant and figures, in their order."""
        for case, contestants in self.cases.items():
            for who, figures in contestants.items():
                yield case, who, figures


class Run(msgspec.Struct, kw_only=True):
    """A whole run."""

    facts: dict[str, str]
    quick: bool
    rounds: int
    rows: list[RowResult] = []

    #: The requests a second of the fastest client, and those that the server can answer.
    fastest: float = 0.0
    limit: float = 0.0

    @property
    def failures(self) -> list[str]:
        """Every sanity check that failed."""
        failed = [f"{row.name}: {failure}" for row in self.rows for failure in row.failures]
        if self.limit and self.limit < self.fastest * FASTER:
            failed.append(f"the server was the limit: {self.told_limit}")
        return failed

    @property
    def told_limit(self) -> str:
        """Say how far the fastest client was from what the server can do."""
        return (
            f"it answers {self.limit:,.0f} requests a second, "
            f"and the fastest client made {self.fastest:,.0f}"
        )
