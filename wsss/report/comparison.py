"""The comparison of variants: title, headings, cells and notes of its table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wsss.report.scores import STEPS, Row, Twin, all_metrics

ABSENT = "–"
ORACLE_NOTE = (
    "* oracle: the threshold that scores best on the reported masks themselves; a bound, not a "
    "result."
)


class Comparison(NamedTuple):
    """A title, a table with its headings first, and notes."""

    title: str
    table: list[list[str]]
    notes: list[str]


def comparison(dataset: str, rows: Sequence[Row], seeds: Sequence[int], twin: Twin) -> Comparison:
    """Lay rows out in percent; several seeds give mean ± sample standard deviation.

    The last column, where a supervised twin has a score, is the final score as a share of it.
    """
    bounded = any(row.upper for row in rows)
    table = [_headings(rows, bounded), *(_cells(row, bounded, len(seeds)) for row in rows)]
    return Comparison(_title(dataset, rows, seeds), table, _notes(rows, twin))


def percent(values: Sequence[float], seeds: int) -> str:
    """Mean ± spread of a score, marked where fewer runs than ``seeds`` have it."""
    if not values:
        return ABSENT
    text = f"{100 * statistics.fmean(values):.1f}"
    if len(values) > 1:
        text += f" ± {100 * statistics.stdev(values):.1f}"
    return text if len(values) == seeds else f"{text} (n={len(values)})"


def operating_points(row: Row, step: str) -> str:
    """The thresholds in use, and where they come from."""
    metrics = [m for m in row.steps.get(step, []) if "threshold" in m]
    points = {(m["threshold"], m["threshold_source"]) for m in metrics}
    return ", ".join(f"{value:g} ({source})" for value, source in sorted(points))


def _title(dataset: str, rows: Iterable[Row], seeds: Sequence[int]) -> str:
    lists = {
        m["role"]: f"{m['role']} list '{m['split']}' ({m['images']} images)"
        for m in all_metrics(rows)
    }
    runs = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{dataset}: mIoU (%), {', '.join([*(lists[role] for role in sorted(lists)), runs])}"


def _headings(rows: Sequence[Row], bounded: bool) -> list[str]:
    heads = ["variant"]
    for step, name in STEPS.items():
        tagged = any(m["tags_used"] for row in rows for m in row.steps.get(step, []))
        swept = any(row.values(step, "oracle_miou") for row in rows)
        oracle = " [oracle*]" if swept else ""
        heads.append(f"{name}{'†' if tagged else ''}{oracle}")
    return [*heads, "of supervised"] if bounded else heads


def _cells(row: Row, bounded: bool, seeds: int) -> list[str]:
    cells = [row.variant]
    for step in STEPS:
        cell = percent(row.values(step), seeds)
        oracle = row.values(step, "oracle_miou")
        cells.append(f"{cell} [{percent(oracle, seeds)}]" if oracle else cell)
    if bounded:
        cells.append(ABSENT if row.share is None else f"{100 * row.share:.1f}")
    return cells


def _notes(rows: Sequence[Row], twin: Twin) -> list[str]:
    notes = []
    for step, name in (("cam", "CAM"), ("walk", "Walk")):
        swept = [row for row in rows if row.values(step, "oracle_miou")]
        if swept:
            used = (f"{row.variant} {operating_points(row, step)}" for row in swept)
            notes.append(f"{name} thresholds in use: {'; '.join(used)}.")
    if notes:
        notes.insert(0, ORACLE_NOTE)
    if any(metrics["tags_used"] for metrics in all_metrics(rows)):
        notes.append(
            "† image-level tags were used: classes that an image is not tagged with are ruled "
            "out. The other columns are predictions without tags."
        )
    if any(len(metrics) > 1 for row in rows for metrics in row.steps.values()):
        notes.append("± sample standard deviation over seeds.")
    imported = [row.variant for row in rows if any(m.get("imported") for m in all_metrics([row]))]
    if imported:
        notes.append(
            "Networks imported from published checkpoints, not trained here: "
            f"{', '.join(imported)}; each metrics file names them."
        )
    bounds = dict.fromkeys(str(twin(row.variant)) for row in rows if row.upper)
    if bounds:
        which = "" if len(bounds) == 1 else ", the one with the same segmentation network"
        names = ", ".join(map(repr, bounds))
        notes.append(f"of supervised: val +CRF as a percentage of that of {names}{which}.")
    return notes
