"""The pictures: bars for contestants, log-log lines for growth; SVG and PNG, fit for a talk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benchmarks.core.model import MEASURES, OURS
from benchmarks.core.report import number
from benchmarks.core.stats import median
from benchmarks.rows import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.core.model import Plot
    from benchmarks.core.results import RowResult, Run

#: Ours, in its variants, and the others: distinct also for who cannot tell red from green.
_OURS: Final = ("#d1495b", "#edae49", "#e78a6b")
_OTHERS: Final = (
    *("#00798c", "#1f3b73", "#8d99ae", "#8e5ea2", "#3c9d4e", "#c77dff", "#6b4f3a", "#52b2cf"),
)
_INK: Final = "#222222"
_STYLE: Final = {"spines": ("top", "right")}


def plot_all(run: Run, folder: Path) -> list[Path]:
    """Draw every plot of every row, and return the paths of the SVGs."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for result in run.rows:
        for plot in load(result.name).plots:
            figure = draw(plot, result)
            if figure is None:
                continue
            path = folder / f"{result.name}-{plot.measure}{'-growth' if plot.over else ''}.svg"
            # No dates and no random ids: the same figures make the same file.
            figure.savefig(path, metadata={"Date": None})
            figure.savefig(path.with_suffix(".png"), dpi=160)
            drawn.append(path)
    return drawn


def draw(plot: Plot, result: RowResult) -> Figure | None:
    """Draw one plot; ``None`` where nothing of it was measured."""
    cases = [
        case
        for case, contestants in result.cases.items()
        if any(plot.measure in figures for figures in contestants.values())
        and (plot.cases is None or case in plot.cases)
    ]
    if plot.over:
        return _lines(plot, plot.over, result) if len(cases) > 1 else None
    return _bars(plot, result, cases) if cases else None


def _contestants(result: RowResult, measure: str) -> list[str]:
    found = dict.fromkeys(who for _, who, figures in result.lines() if measure in figures)
    return [*found]


def _colours(names: Sequence[str]) -> dict[str, str]:
    ours = [name for name in names if name.startswith(OURS)]
    others = [name for name in names if name not in ours]
    return {
        **{name: _OURS[index % len(_OURS)] for index, name in enumerate(ours)},
        **{name: _OTHERS[index % len(_OTHERS)] for index, name in enumerate(others)},
    }


def _bars(plot: Plot, result: RowResult, cases: list[str]) -> Figure:
    """Draw a panel for each case, and a bar for each contestant, with the least and the most."""
    names = _contestants(result, plot.measure)
    colours = _colours(names)
    heights = [sum(_has(result, case, name, plot.measure) for name in names) for case in cases]
    figure = Figure(
        figsize=(10, 1.4 + 0.52 * sum(heights) + 0.45 * len(cases)), layout="constrained"
    )
    panels = figure.subplots(
        len(cases), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    for axes, case in zip(panels[:, 0], cases, strict=True):
        present = [name for name in names if _has(result, case, name, plot.measure)]
        for place, name in enumerate(reversed(present)):
            values = result.figures(case, name, plot.measure)
            middle = median(values)
            axes.barh(place, middle, height=0.72, color=colours[name])
            axes.plot([min(values), max(values)], [place, place], color=_INK, linewidth=1.2)
            axes.annotate(
                number(middle),
                (max(middle, *values), place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=11,
                color=_INK,
            )
        axes.set_yticks(range(len(present)), [*reversed(present)], fontsize=11)
        if len(cases) > 1 or case:
            axes.set_title(case, loc="left", fontsize=11, color="#555555")
        _tidy(axes)
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
    panels[-1, 0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    _entitle(figure, plot)
    return figure


def _has(result: RowResult, case: str, name: str, measure: str) -> bool:
    return bool(result.figures(case, name, measure))


def _lines(plot: Plot, over: str, result: RowResult) -> Figure:
    """Draw a line for each contestant, log-log, and what linear growth would be."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    names = _contestants(result, plot.measure)
    colours = _colours(names)
    ends: list[tuple[float, float, str]] = []
    for name in names:
        points = sorted(_points(result, name, plot.measure, over))
        xs, ys = [x for x, _ in points], [y for _, y in points]
        ours = name.startswith(OURS)
        axes.loglog(
            xs, ys, marker="o", linewidth=2.6 if ours else 1.8, color=colours[name], label=name
        )
        ends.append((xs[-1], ys[-1], name))
    _reference(axes, ends, plot)
    sizes = sorted({x for name in names for x, _ in _points(result, name, plot.measure, over)})
    axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("tasks", fontsize=12)
    axes.grid(visible=True, which="major", color="#e5e5e5")
    axes.legend(frameon=False, fontsize=11, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _tidy(axes)
    _entitle(figure, plot)
    return figure


def _points(result: RowResult, name: str, measure: str, over: str) -> Iterator[tuple[float, float]]:
    for case, numbers in result.numbers.items():
        value = result.median(case, name, measure)
        if value and over in numbers:
            yield numbers[over], value


def _reference(axes: Axes, ends: list[tuple[float, float, str]], plot: Plot) -> None:
    """Draw the slope of linear growth through the least line, where the measure is of all tasks."""
    if plot.measure != "seconds" or not ends:
        return
    left, right = axes.get_xlim()
    x, y, _ = min(ends, key=lambda end: end[1] / end[0])
    axes.plot(
        [left, right],
        [y * left / x * 0.7, y * right / x * 0.7],
        linestyle=":",
        color="#999999",
        label="linear",
    )
    axes.set_xlim(left, right)


def _tidy(axes: Axes) -> None:
    for side in _STYLE["spines"]:
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=11)


def _entitle(figure: Figure, plot: Plot) -> None:
    measure = MEASURES[plot.measure]
    better = "more is better" if measure.more_is_better else "less is better"
    figure.suptitle(f"{plot.title}\n({better})", fontsize=14, x=0.01, ha="left")
