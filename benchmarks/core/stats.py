"""The few statistics that are needed: medians, spread, percentiles, growth."""

from __future__ import annotations

from math import log
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["median", "percentile", "slope", "spread"]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all (0 to 1) do not exceed; 0.0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] if ranked else 0.0


def spread(values: Sequence[float]) -> float:
    """Return half of the distance between the least and the greatest, by the median."""
    middle = median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the exponent with which the costs grow: 1 is linear, 2 quadratic (least squares)."""
    points = [(log(size), log(cost)) for size, cost in zip(sizes, costs, strict=True) if cost > 0]
    if len({x for x, _ in points}) < 2:
        raise ValueError("an exponent needs costs at two sizes at least")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / sum((x - mean_x) ** 2 for x, _ in points)
