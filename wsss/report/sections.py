"""The parts of the page that hold numbers: comparison, classes, confusion, costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsss.report.blocks import (
    Block,
    Cell,
    Fold,
    Legend,
    Plot,
    Plots,
    Section,
    Swatches,
    Table,
    Text,
)
from wsss.report.comparison import ABSENT, comparison, percent
from wsss.report.costs import columns, cost_table, costs
from wsss.report.drawings import class_bars, cost_bars
from wsss.report.results import Results, table_of
from wsss.report.scores import STEPS

# Classes that a confusion matrix with numbers still has room for.
MANY_CLASSES = 40
_CONFUSIONS = 30


def comparison_section(results: Results) -> Section:
    """The table of `wsss compare`, and the supervised bound."""
    found = comparison(results.where.dataset, results.rows, results.seeds, results.params.twin)
    notes = list(found.notes)
    if len(results.seeds) == 1:
        notes.append("One seed: no spread over seeds is known.")
    headings, *rows = found.table
    return Section(
        "comparison",
        "Comparison",
        [Table(found.title, headings, rows, notes, keyed=True), *_unfinished(results)],
    )


def _unfinished(results: Results) -> Iterator[Block]:
    """What the variants still lack, those that lack the same together."""
    lacking: dict[str, list[str]] = {}
    for row in results.rows:
        wanted = [s for s in STEPS if s in results.expected(row.variant)]
        open_ = [STEPS[s] for s in wanted if len(row.steps.get(s, [])) < len(results.seeds)]
        if open_:
            what = ", ".join(open_) if row.steps else "everything"
            lacking.setdefault(what, []).append(row.variant)
    if lacking:
        rows = [[", ".join(variants), what] for what, variants in lacking.items()]
        yield Table("Not scored yet", ["variants", "what is missing"], rows, numbers=False)


# Classes


def class_section(results: Results) -> Section:
    """IoU of every class: bars, and the numbers behind them."""
    found = {v: _class_ious(results, v) for v in results.variants}
    found = {variant: values for variant, values in found.items() if any(values.values())}
    if not found:
        return Section("classes", "Classes", [Text("No final masks have been scored yet.")])
    plots: list[Plot] = []
    rows: list[list[str]] = []
    for name in results.classes:
        means = {v: _mean(values[name]) for v, values in found.items()}
        said = ", ".join(f"{v} {_value(value)}" for v, value in means.items())
        svg = class_bars(f"class-{name}", means, results.looks)
        plots.append(Plot(name, svg, f"IoU of {name} in percent: {said}."))
        cells = [percent(values[name], len(results.seeds)) for values in found.values()]
        rows.append([name, *cells])
    table = Table("val +CRF: IoU (%) per class", ["class", *found], rows)
    about = Text("IoU (%) of the final masks, class by class.")
    blocks: list[Block] = [about, Legend(list(found)), Plots(plots), Fold("Numbers", [table])]
    return Section("classes", "Classes", blocks)


def _class_ious(results: Results, variant: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in results.classes}
    for metrics in results.metrics(variant, "final"):
        for row in table_of(Path(metrics["path"]).with_suffix(".classes.csv")):
            if row["iou"] and row["class"] in found:
                found[row["class"]].append(float(row["iou"]))
    return found


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _value(value: float | None) -> str:
    return "absent" if value is None else f"{100 * value:.1f}"


def confusion_section(results: Results) -> Section:
    """Where the pixels of each class went, in percent of its pixels; seeds are summed."""
    folds: list[Block] = []
    for variant in results.variants:
        matrix = _confusion(results, variant)
        if matrix:
            table = _matrix if len(results.classes) <= MANY_CLASSES else _largest
            folds.append(Fold(variant, [table(results.classes, matrix)], open=not folds))
    if not folds:
        folds = [Text("No final masks have been scored yet.")]
    return Section("confusion", "Confusion", folds)


def _confusion(results: Results, variant: str) -> list[list[int]]:
    total: list[list[int]] = []
    for metrics in results.metrics(variant, "final"):
        rows = table_of(Path(metrics["path"]).with_suffix(".confusion.csv"))
        matrix = [[int(row[name]) for name in results.classes] for row in rows]
        pairs = zip(total or matrix, matrix, strict=True)
        sums = [[a + b for a, b in zip(one, two, strict=True)] for one, two in pairs]
        total = sums if total else matrix
    return total


def _matrix(classes: list[str], matrix: list[list[int]]) -> Table:
    rows: list[list[str | Cell]] = []
    for name, line in zip(classes, matrix, strict=True):
        whole = sum(line)
        row: list[str | Cell] = [name]
        for count in line:
            if not whole:
                row.append(Cell(ABSENT, hint="the class is not in the truth"))
            else:
                share = count / whole
                row.append(Cell(f"{100 * share:.1f}", shade=share, hint=f"{count} pixels"))
        rows.append(row)
    caption = "Final masks: percent of the pixels of the true class (row) predicted as (column)"
    return Table(caption, ["truth \\ predicted", *classes], rows)


def _largest(classes: list[str], matrix: list[list[int]]) -> Table:
    cells = [
        (count / max(sum(line), 1), classes[i], classes[j], count)
        for i, line in enumerate(matrix)
        for j, count in enumerate(line)
        if i != j and count
    ]
    cells.sort(key=lambda cell: (-cell[3], cell[1], cell[2]))
    rows = [[t, p, f"{100 * s:.1f}", str(c)] for s, t, p, c in cells[:_CONFUSIONS]]
    caption = f"Final masks: the {len(rows)} largest confusions of {len(classes)} classes"
    return Table(caption, ["truth", "predicted", "% of truth", "pixels"], rows)


# Costs


def cost_section(results: Results) -> Section:
    """Wall time and memory of every stage."""
    rows = costs(results.records, results.variants)
    if not rows:
        text = "No records of jobs (*.run.json) are here: what the run cost is not known."
        return Section("costs", "Time and memory", [Text(text)])
    stages = list(dict.fromkeys(row.stage for row in rows))
    svg, kinds = cost_bars("costs", rows)
    total = sum(row.seconds for row in rows)
    plot = Plot(
        "Wall time per stage, one run of every variant (minutes)",
        svg,
        f"{total / 60:.0f} minutes in all; stages: {', '.join(stages)}.",
    )
    head, *cells = cost_table(rows, [name for name in columns(rows) if name != "runs"])
    fold = Table(
        "Seconds are summed over the jobs of a run (shards, evaluations) and averaged over seeds; "
        "memory is the largest of any job, of several processes that of the first",
        head,
        cells,
    )
    legend = Swatches([(stage, f"var(--s{series})") for stage, series in kinds])
    return Section("costs", "Time and memory", [legend, Plots([plot]), Fold("Every stage", [fold])])
