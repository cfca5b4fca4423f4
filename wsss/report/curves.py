"""The parts of the page that hold curves: CAM thresholds and trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsss.report.blocks import Block, Heading, Legend, Plot, Plots, Section, Table, Text
from wsss.report.comparison import ORACLE_NOTE
from wsss.report.drawings import Curve, Point, curves_plot
from wsss.report.results import Results, table_of

# Stages that train, in the order of the pipeline, and what they are called.
TRAININGS = {
    "classify": "classification",
    "affinity": "AffinityNet",
    "irnet": "IRNet",
    "segment": "segmentation",
}
_LABELS = {"lr": "learning rate", "loss": "total loss"}
_NOT_LOSSES = ("step", "epoch")


def threshold_section(results: Results) -> Section | None:
    """mIoU at every threshold of CAMs and of walked scores; None without any weak variant."""
    blocks: list[Block] = []
    plots: list[Plot] = []
    rows: list[list[str]] = []
    for step, name in (("cam", "CAM"), ("walk", "random walk")):
        plots += _sweep(results, step, name, rows)
    if not plots:
        if not any({"cam", "walk"} & {*results.expected(v)} for v in results.variants):
            return None
        blocks = [Text("No threshold sweep yet: it comes with the evaluation of CAMs.")]
    else:
        headings = ["variant", "scores", "seed", "threshold", "mIoU (%)", "oracle", "mIoU (%)*"]
        table = Table("Operating points", headings, rows, [ORACLE_NOTE], keyed=True)
        about = (
            "Filled: the operating point, configured or chosen on the list 'tune' (faint dashes: "
            "the curve on that list). Hollow: the oracle, the best threshold on the reported "
            "masks themselves, a bound and not a result."
        )
        shown = {row[0] for row in rows}
        legend = Legend([variant for variant in results.variants if variant in shown])
        blocks = [Text(about), legend, Plots(plots), table]
    return Section("thresholds", "Thresholds", blocks)


def _sweep(results: Results, step: str, name: str, rows: list[list[str]]) -> list[Plot]:
    curves: list[Curve] = []
    points: list[Point] = []
    for variant, seed in results.runs():
        if results.owner(variant, f"metrics/{step}") != variant:
            continue
        metrics = results.seed_metrics(variant, seed, step)
        if metrics is None or "oracle_threshold" not in metrics:
            continue
        base = results.run(variant, seed).metrics(step)
        tuned = f"{base.name}_tune.sweep.csv"
        for path, faint in ((f"{base.name}.sweep.csv", False), (tuned, True)):
            x, y = _columns(table_of(base.with_name(path)), "threshold", "miou")
            if x:
                curves.append(Curve(variant, x, [100 * value for value in y], faint))
        found = _points(metrics)
        points += [Point(variant, *found[0]), Point(variant, *found[1], hollow=True)]
        rows.append([variant, name, str(seed), *_point_cells(metrics)])
    if not curves:
        return []
    labels = ("threshold", "mIoU (%)")
    svg = curves_plot(f"sweep-{step}", curves, results.looks, labels, points)
    said = "; ".join(" ".join(row[:1] + row[3:5]) for row in rows if row[1] == name)
    return [Plot(f"{name}: mIoU at every threshold", svg, f"Operating points: {said}.")]


def _points(metrics: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    return (
        (metrics["threshold"], 100 * metrics["miou"]),
        (metrics["oracle_threshold"], 100 * metrics["oracle_miou"]),
    )


def _point_cells(metrics: Mapping[str, Any]) -> list[str]:
    (at, miou), (best, bound) = _points(metrics)
    source = metrics["threshold_source"]
    return [f"{at:g} ({source})", f"{miou:.1f}", f"{best:g}", f"{bound:.1f}"]


def _columns(rows: list[dict[str, str]], *names: str) -> tuple[list[float], ...]:
    """Number columns of the rows in which none of them is empty."""
    full = [row for row in rows if all(row.get(name) for name in names)]
    return tuple([float(row[name]) for row in full] for name in names)


def training_section(results: Results) -> Section:
    """Every loss term of every training over its steps."""
    blocks: list[Block] = []
    for stage, name in TRAININGS.items():
        blocks += _training(results, stage, name)
    if not blocks:
        blocks = [Text("Nothing has been trained yet, or only published weights are used.")]
    elif len(results.seeds) > 1:
        blocks.insert(0, Text("One line a seed."))
    return Section("training", "Training", blocks)


def _training(results: Results, stage: str, name: str) -> list[Block]:
    tables = {}
    for variant, seed in results.runs():
        if results.owner(variant, stage) == variant:
            rows = table_of(results.run(variant, seed).run / stage / "curve.csv")
            if rows:
                tables[variant, seed] = rows
    if not tables:
        return []
    plots = []
    for term in _terms(list(tables.values())):
        curves = []
        for (variant, _), rows in tables.items():
            x, y = _columns(rows, "step", term)
            if x:
                curves.append(Curve(variant, x, y))
        label = _LABELS.get(term, f"loss '{term}'")
        svg = curves_plot(f"{stage}-{term}", curves, results.looks, ("step", ""))
        ends = ", ".join(f"{c.variant} from {c.y[0]:.3g} to {c.y[-1]:.3g}" for c in curves)
        plots.append(Plot(label, svg, f"{label} over steps: {ends}."))
    legend = Legend(list(dict.fromkeys(variant for variant, _ in tables)))
    return [Heading(f"{name[0].upper()}{name[1:]}"), legend, Plots(plots)]


def _terms(tables: list[list[dict[str, str]]]) -> list[str]:
    """Columns to draw, the learning rate last; the total where it is the sum of several."""
    names = dict.fromkeys(name for rows in tables for name in rows[0] if name not in _NOT_LOSSES)
    single = all(
        any(row.get("loss") == row.get(n) for n in names if n not in ("loss", "lr"))
        for rows in tables
        for row in rows
    )
    terms = [n for n in names if n not in ("lr", *(["loss"] if single else []))]
    return [*terms, *(["lr"] if "lr" in names else [])]
