"""The part of the page that says how sure scores and differences between variants are."""

from __future__ import annotations

from wsss.report.blocks import Block, Cell, Heading, Legend, Plot, Plots, Section, Table, Text
from wsss.report.comparison import ABSENT
from wsss.report.drawings import interval_plot
from wsss.report.results import Results
from wsss.report.statistics import Interval, Paired, paired


def interval_section(results: Results) -> Section:
    """Paired bootstrap intervals of final masks and of pseudo masks."""
    blocks: list[Block] = []
    for step, name in (("final", "final masks (val +CRF)"), ("pseudo", "pseudo masks")):
        blocks += _intervals(results, step, name)
    if not blocks:
        blocks = [Text("No per-image counts yet: they come with the evaluation of final masks.")]
    return Section("intervals", "Differences between variants", blocks)


def _intervals(results: Results, step: str, name: str) -> list[Block]:
    counted = results.counted(step)
    if not counted or (step != "final" and len(counted) < 2):
        return []
    settings = results.settings
    found = paired(counted, settings.bootstrap, settings.seed, settings.confidence)
    images = len(next(iter(counted.values()))[0].hit)
    level = f"{100 * settings.confidence:g} %"
    seeds = (
        "A variant's score is the mean over its seeds, each scored on the same resampled images. "
        if len(results.seeds) > 1
        else ""
    )
    about = (
        f"mIoU of the data set with {level} intervals of a paired bootstrap over the "
        f"{images} images ({settings.bootstrap} resamples). Each resample draws images with "
        "replacement, the same for all variants, sums their pixels and takes the mIoU from the "
        f"sums. {seeds}The intervals tell what other images of this kind would change, not what "
        "training again would."
    )
    blocks: list[Block] = [
        Heading(f"{name[0].upper()}{name[1:]}"),
        Text(about),
        Legend(list(counted)),
        Plots([_interval_drawing(results, step, name, found, level)]),
        _score_table(results, found, level),
    ]
    if len(counted) > 1:
        blocks.append(_difference_table(found, level, settings.confidence))
    return blocks


def _interval_drawing(results: Results, step: str, name: str, found: Paired, level: str) -> Plot:
    svg = interval_plot(f"intervals-{step}", found.scores, results.looks)
    said = "; ".join(f"{v} {_interval(i)}" for v, i in found.scores.items())
    return Plot(f"mIoU (%) and its {level} interval", svg, f"mIoU in percent of {name}: {said}.")


def _score_table(results: Results, found: Paired, level: str) -> Table:
    twins = {variant: results.params.twin(variant) or "" for variant in found.scores}
    bounded = any((v, twin) in found.differences for v, twin in twins.items())
    rows: list[list[str | Cell]] = []
    for variant, interval in found.scores.items():
        bounds = f"{_points(interval.low)} to {_points(interval.high)}"
        rows.append([variant, _points(interval.value), bounds])
        if bounded:
            twin = twins[variant]
            difference = found.differences.get((variant, twin))
            shown = ABSENT if difference is None else _signed(difference)
            hint = "" if difference is None else f"{variant} minus {twin}"
            rows[-1].append(Cell(shown, hint=hint))
    headings = ["variant", "mIoU (%)", f"{level} interval"]
    if bounded:
        headings.append("minus its supervised bound (points)")
    return Table("The same in numbers", headings, rows, keyed=True)


def _difference_table(found: Paired, level: str, confidence: float) -> Table:
    variants = list(found.scores)
    rows: list[list[str | Cell]] = []
    for a in variants:
        row: list[str | Cell] = [a]
        for b in variants:
            difference = found.differences.get((a, b))
            if difference is None:
                row.append(ABSENT)
            else:
                value, bounds = _signed(difference).split(" ", 1)
                row.append(Cell(value, bounds, strong=difference.excludes_zero))
        rows.append(row)
    pairs = len(variants) * (len(variants) - 1) // 2
    notes = [f"Bold: the {level} interval does not hold zero."]
    if pairs > 1:
        chance = pairs * (1 - confidence)
        notes.append(
            f"{pairs} pairs are shown and none is corrected for: were there no differences at "
            f"all, about {chance:.2g} of them would be expected in bold."
        )
    return Table(
        f"Variant of the row minus variant of the column, mIoU points [{level} interval]",
        ["variant", *variants],
        rows,
        notes,
        keyed=True,
    )


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(interval: Interval) -> str:
    low, high = _points(interval.low), _points(interval.high)
    return f"{_points(interval.value)} [{low}, {high}]"


def _signed(difference: Interval) -> str:
    value, low, high = (f"{100 * v:+.1f}".replace("-", "−") for v in difference)
    return f"{value} [{low}, {high}]"
