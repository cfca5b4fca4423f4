"""Put all variants side by side: one table of scores, one of costs.

:func:`compare` reads the metrics of every requested variant and seed and writes
``comparison.csv`` (fractions) and ``comparison.md`` (percent) into the data set's folder.
:func:`timings` does the same with what the jobs cost; that table is for reading only and is no
reproducible artifact.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss.artifacts import save_csv
from wsss.atomic import atomic_path
from wsss.config import Params
from wsss.errors import UserError
from wsss.paths import Paths
from wsss.report.comparison import comparison, operating_points
from wsss.report.costs import columns, cost_table, costs, records
from wsss.report.scores import STEPS, Owners, Row, Twin, read_rows, read_run
from wsss.report.text import aligned, markdown
from wsss.stages.mious import save_mious


def compare(
    results: Path,
    dataset: str,
    variants: Sequence[str],
    seeds: Sequence[int],
    twin: Twin = lambda _: "supervised",
    owners: Owners = lambda _: {},
) -> str:
    """Write ``comparison.csv``, ``comparison.md`` and each run's ``miou.json``; return the table.

    Args:
        results: folder of all data sets.
        dataset: its name.
        variants: rows, in this order.
        seeds: runs of each variant; several give mean ± sample standard deviation.
        twin: names a variant's supervised twin, trained with masks. Where that is among
            ``variants``, the last column is the variant's final score as a share of its.
        owners: where shared metrics are.

    Raises:
        UserError: a run has no metrics at all, a file is no report of an evaluation, or two
            reports are not comparable (other data, another list of images).
    """
    where = Paths(Path(results), dataset)
    if not variants or not seeds:
        raise UserError("nothing to compare: name at least one variant and one seed")
    for variant in variants:
        for seed in seeds:
            _require_metrics(where, variant, seed, owners)
    rows = read_rows(where, variants, seeds, twin, owners)
    found = comparison(dataset, rows, seeds, twin)
    _save_comparison(where.root / "comparison.csv", rows)
    for variant in variants:
        for seed in seeds:
            save_mious(Paths(where.results, dataset, variant, seed, owners(variant)), STEPS)
    _save_text(where.root / "comparison.md", markdown(*found))
    return "\n".join([found.title, "", *aligned(found.table), "", *found.notes]) + "\n"


def timings(
    results: Path, dataset: str, variants: Sequence[str], seeds: Sequence[int], params: Params
) -> str:
    """Write ``timings.csv`` and ``timings.md`` from the ``*.run.json``; return the table as text.

    One row a variant and stage, see :class:`wsss.report.costs.Cost`; ``params`` says which stages
    are part of a result.
    """
    where = Paths(Path(results), dataset)
    root, rows = where.root, costs(records(where, variants, seeds, params), variants)
    fields = columns(rows)
    lines = [dict(zip(fields, row, strict=False)) for row in rows]  # the last may be left out
    save_csv(root / "timings.csv", lines, fields)
    title, cells = f"{dataset}: wall time and peak memory by stage", cost_table(rows, fields)
    _save_text(root / "timings.md", markdown(title, cells, []))
    return "\n".join([title, "", *aligned(cells)]) + "\n"


def _require_metrics(where: Paths, variant: str, seed: int, owners: Owners) -> None:
    if not read_run(where, variant, seed, owners):
        folder = Paths(where.results, where.dataset, variant, seed).run / "metrics"
        raise UserError(
            f"{folder} holds no metrics of variant {variant!r}, seed {seed}: "
            "run its evaluation first"
        )


def _save_comparison(path: Path, rows: Sequence[Row]) -> None:
    keys = [(step, "miou") for step in STEPS]
    keys.insert(1, ("cam", "oracle_miou"))
    names = [f"{step}_{key}" for step, key in keys]
    columns = ["variant", *(f"{name}{end}" for name in names for end in ("", "_sd", "_n"))]
    columns += ["cam_threshold", "walk_threshold", "share_of_supervised"]
    lines = []
    for row in rows:
        line: dict[str, Any] = {"variant": row.variant, "share_of_supervised": row.share}
        for name, (step, key) in zip(names, keys, strict=True):
            values = row.values(step, key)
            line[name] = row.mean(step, key)
            line[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
            line[f"{name}_n"] = len(values)
        line["cam_threshold"] = operating_points(row, "cam")
        line["walk_threshold"] = operating_points(row, "walk")
        lines.append({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()})
    save_csv(path, lines, columns)


def _save_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
