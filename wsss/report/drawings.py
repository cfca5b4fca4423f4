"""The drawings of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wsss.report.costs import Cost
from wsss.report.palette import Look
from wsss.report.plotting import INK, MUTED, PAPER, draw, series_colour
from wsss.report.statistics import Interval

Looks = Mapping[str, Look]
# Stages beyond the most costly ones are drawn together.
_COST_STAGES = 7


class Curve(NamedTuple):
    """A line of a variant; ``faint`` for one that only explains another."""

    variant: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


class Point(NamedTuple):
    """A marked place on a variant's line: an operating point, or a hollow oracle."""

    variant: str
    x: float
    y: float
    hollow: bool = False


def interval_plot(name: str, intervals: Mapping[str, Interval], looks: Looks) -> str:
    """A line a variant from the low to the high end of its interval (%), a dot at its value."""

    def paint(axes: Axes) -> None:
        for row, (variant, interval) in enumerate(intervals.items()):
            look = looks[variant]
            low, value, high = (100 * x for x in (interval.low, interval.value, interval.high))
            axes.plot([low, high], [row, row], color=look.colour, linestyle=look.dash, lw=2.2)
            axes.plot(
                *([value], [row], "o"), color=look.colour, markersize=6.5, markeredgecolor=PAPER
            )
            axes.annotate(
                f"{value:.1f}",
                (value, row),
                (0, 6),
                textcoords="offset points",
                ha="center",
                color=INK,
                fontsize=8,
            )
        _rows(axes, [looks[variant] for variant in intervals])
        axes.set_xlabel("mIoU (%)")

    return draw(name, paint, (5.2, 0.65 + 0.34 * len(intervals)))


def class_bars(name: str, values: Mapping[str, float | None], looks: Looks) -> str:
    """A bar a variant, 0 to 100 %, with its value; a class that is absent has none."""

    def paint(axes: Axes) -> None:
        for row, (variant, value) in enumerate(values.items()):
            look = looks[variant]
            if value is None:
                axes.text(1, row, "absent", va="center", color=MUTED, fontsize=8)
                continue
            axes.barh(
                *(row, 100 * value, 0.74),
                color=look.colour,
                hatch=look.hatch,
                edgecolor=PAPER,
                linewidth=0,
            )
            axes.text(100 * value + 1.5, row, f"{100 * value:.1f}", va="center", fontsize=8)
        _rows(axes, [looks[variant] for variant in values])
        axes.set_xlim(0, 112)
        axes.set_xticks([0, 25, 50, 75, 100])

    return draw(name, paint, (2.9, 0.45 + 0.2 * max(len(values), 2)))


def curves_plot(
    name: str,
    curves: Sequence[Curve],
    looks: Looks,
    labels: tuple[str, str],
    points: Sequence[Point] = (),
) -> str:
    """Lines of variants with marked points."""

    def paint(axes: Axes) -> None:
        for curve in curves:
            look = looks[curve.variant]
            axes.plot(
                *(curve.x, curve.y),
                color=look.colour,
                linestyle=(0, (2, 2)) if curve.faint else look.dash,
                alpha=0.55 if curve.faint else 1,
                linewidth=1.1 if curve.faint else 1.6,
                marker="o" if len(curve.x) == 1 else None,
                markersize=4,
            )
        for point in points:
            colour = looks[point.variant].colour
            axes.plot(
                *([point.x], [point.y], "o"),
                markersize=7 if point.hollow else 6.5,
                markerfacecolor=PAPER if point.hollow else colour,
                markeredgecolor=colour if point.hollow else PAPER,
                markeredgewidth=1.6 if point.hollow else 1,
                zorder=3 if point.hollow else 4,
            )
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=labels[0] == "step"))
        axes.yaxis.set_major_locator(MaxNLocator(6))

    return draw(name, paint)


def cost_bars(name: str, rows: Sequence[Cost]) -> tuple[str, list[tuple[str, int]]]:
    """Stacked minutes of each variant; also each stage drawn with its series, in order."""
    totals: dict[str, float] = {}
    for row in rows:
        totals[row.stage] = totals.get(row.stage, 0) + row.seconds
    leading = sorted(totals, key=lambda stage: (-totals[stage], stage))[:_COST_STAGES]
    order = [stage for stage in totals if stage in leading]
    kinds = [*order, *(["others"] if len(totals) > len(order) else [])]
    spent: dict[str, float] = {}
    for row in rows:
        spent[row.variant] = spent.get(row.variant, 0) + row.seconds
    # What takes no time to speak of gets no empty line.
    variants = [v for v in spent if spent[v] >= max(spent.values()) / 500]

    def paint(axes: Axes) -> None:
        starts = dict.fromkeys(variants, 0.0)
        for series, kind in enumerate(kinds):
            for place, variant in enumerate(variants):
                minutes = _minutes(rows, variant, kind, order)
                axes.barh(
                    *(place, minutes, 0.72, starts[variant]),
                    color=series_colour(series),
                    edgecolor=PAPER,
                    linewidth=0.6,
                )
                starts[variant] += minutes
        axes.set_yticks(range(len(variants)), [v or "(shared)" for v in variants])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("minutes")

    svg = draw(name, paint, (5.2, 0.7 + 0.28 * max(len(variants), 2)))
    return svg, [(kind, series) for series, kind in enumerate(kinds)]


def _minutes(rows: Sequence[Cost], variant: str, kind: str, order: Sequence[str]) -> float:
    mine = (row for row in rows if row.variant == variant)
    return (
        sum(
            row.seconds
            for row in mine
            if row.stage == kind or (kind == "others" and row.stage not in order)
        )
        / 60
    )


def _rows(axes: Axes, looks: Sequence[Look]) -> None:
    """Rows from the top down, each with its variant's number."""
    axes.set_yticks(range(len(looks)), [str(look.number) for look in looks])
    axes.set_ylim(len(looks) - 0.4, -0.8)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
