"""Put all variants side by side: one table of scores, one of costs.

:func:`compare` reads the metrics of every requested variant and seed and writes
``comparison.csv`` (fractions) and ``comparison.md`` (percent) into the data set's folder.
:func:`timings` does the same with what the jobs cost; that table is for reading only and is no
reproducible artifact.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss.artifacts import load_json, save_csv
from wsss.atomic import atomic_path
from wsss.config.slices import STAGES
from wsss.errors import UserError
from wsss.paths import Paths
from wsss.stages.mious import save_mious

# Metrics files in the order of the pipeline, and their headings.
STEPS = {
    "cam": "CAM seed",
    "crf": "CRF",
    "walk": "walk",
    "pseudo": "pseudo",
    "single": "val single-scale",
    "multi": "val multi-scale",
    "final": "val +CRF",
}
_NEEDED = ("miou", "data_hash", "role", "split", "images", "tags_used")
ABSENT = "–"

Report = Mapping[str, Any]
# Which other variant holds what a variant shares, see :mod:`wsss.config.sharing`.
Owners = Callable[[str], Mapping[str, str]]


@dataclass
class _Row:
    """One variant: the reports of each step, one a seed; the score of its supervised twin."""

    variant: str
    reports: dict[str, list[Report]] = field(default_factory=dict)
    upper: float | None = None

    def values(self, step: str, key: str = "miou") -> list[float]:
        return [r[key] for r in self.reports.get(step, []) if r.get(key) is not None]

    def mean(self, step: str, key: str = "miou") -> float | None:
        values = self.values(step, key)
        return statistics.fmean(values) if values else None


def compare(
    results: Path,
    dataset: str,
    variants: Sequence[str],
    seeds: Sequence[int],
    twin: Callable[[str], str | None] = lambda _: "supervised",
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
    rows = [_read(where, variant, seeds, owners(variant)) for variant in variants]
    if not rows or not seeds:
        raise UserError("nothing to compare: name at least one variant and one seed")
    _refuse_unlike(rows)
    root = Paths(Path(results), dataset).root
    finals = {row.variant: row.mean("final") for row in rows}
    for row in rows:
        row.upper = finals.get(twin(row.variant) or "")
    _save_comparison(root / "comparison.csv", rows)
    for variant in variants:
        for seed in seeds:
            save_mious(Paths(where.results, dataset, variant, seed, owners(variant)), STEPS)
    bounded = any(row.upper for row in rows)
    table = [_headings(rows, bounded), *(_cells(row, bounded, len(seeds)) for row in rows)]
    title, notes = _title(dataset, rows, seeds), _notes(rows, twin)
    _save_text(root / "comparison.md", _markdown(title, table, notes))
    return "\n".join([title, "", *_aligned(table), "", *notes]) + "\n"


def timings(results: Path, dataset: str, variants: Sequence[str], seeds: Sequence[int]) -> str:
    """Write ``timings.csv`` and ``timings.md`` from the ``*.run.json``; return the table as text.

    One row a variant and stage: seconds are summed over the jobs of a run (its shards and
    evaluations) and averaged over the seeds; memory is the largest of any job, in MB.
    """
    root = Paths(Path(results), dataset).root
    jobs: dict[tuple[str, str], list[Report]] = defaultdict(list)
    for path in sorted(root.rglob("*.run.json")):
        facts = load_json(path)
        variant = facts.get("variant") or ""
        if not variant or (variant in variants and facts.get("seed") in seeds):
            jobs[variant, facts["stage"]].append(facts)
    rows = [_cost(variant, stage, found) for (variant, stage), found in jobs.items()]
    variant_order, stage_order = ["", *variants], [*STAGES]
    rows.sort(key=lambda r: (variant_order.index(r["variant"]), _place(r["stage"], stage_order)))
    columns = ("variant", "stage", "runs", "jobs", "seconds", "peak_rss_mb")
    save_csv(root / "timings.csv", rows, columns)
    head = ["variant", "stage", "runs", "jobs", "seconds per run", "peak memory (MB)"]
    body = [[str(row[column]) or "(shared)" for column in columns] for row in rows]
    title = f"{dataset}: wall time and peak memory by stage"
    _save_text(root / "timings.md", _markdown(title, [head, *body], []))
    return "\n".join([title, "", *_aligned([head, *body])]) + "\n"


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _cost(variant: str, stage: str, jobs: Sequence[Report]) -> dict[str, Any]:
    runs = len({job.get("seed") for job in jobs})
    return {
        "variant": variant,
        "stage": stage,
        "runs": runs,
        "jobs": len(jobs),
        "seconds": round(sum(job["seconds"] for job in jobs) / runs, 1),
        "peak_rss_mb": round(max(job["peak_rss_mb"] for job in jobs)),
    }


# Reading


def _read(where: Paths, variant: str, seeds: Sequence[int], owners: Mapping[str, str]) -> _Row:
    row = _Row(variant)
    for seed in seeds:
        paths = Paths(where.results, where.dataset, variant, seed, owners)
        files = {step: Path(f"{paths.metrics(step)}.json") for step in STEPS}
        found = {step: path for step, path in files.items() if path.is_file()}
        if not found:
            raise UserError(
                f"{files['final'].parent} holds no metrics of variant {variant!r}, seed {seed}: "
                "run its evaluation first"
            )
        for step, path in found.items():
            row.reports.setdefault(step, []).append(_report(path))
    return row


def _report(path: Path) -> Report:
    report = load_json(path)
    lacking = [k for k in _NEEDED if k not in report] if isinstance(report, dict) else _NEEDED
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}: delete it and evaluate again")
    return {**report, "path": path}


def _all(rows: Iterable[_Row]) -> list[Report]:
    return [r for row in rows for reports in row.reports.values() for r in reports]


def _refuse_unlike(rows: Iterable[_Row]) -> None:
    """Numbers stand side by side only if they were measured on the same images."""
    first: dict[str, Report] = {}
    for report in _all(rows):
        for scope, keys in (("", ("data_hash",)), (report["role"], ("split", "images"))):
            other = first.setdefault(scope, report)
            for key in keys:
                if report[key] != other[key]:
                    raise UserError(
                        f"{report['path']} and {other['path']} cannot be compared: {key} is "
                        f"{report[key]!r} in one and {other[key]!r} in the other; evaluate again"
                    )


# Laying out


def _title(dataset: str, rows: Iterable[_Row], seeds: Sequence[int]) -> str:
    lists = {
        r["role"]: f"{r['role']} list '{r['split']}' ({r['images']} images)" for r in _all(rows)
    }
    runs = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{dataset}: mIoU (%), {', '.join(lists[role] for role in sorted(lists))}, {runs}"


def _headings(rows: Sequence[_Row], bounded: bool) -> list[str]:
    heads = ["variant"]
    for step, name in STEPS.items():
        tagged = any(r["tags_used"] for row in rows for r in row.reports.get(step, []))
        swept = any(row.values(step, "oracle_miou") for row in rows)
        oracle = " [oracle*]" if swept else ""
        heads.append(f"{name}{'†' if tagged else ''}{oracle}")
    return [*heads, "of supervised"] if bounded else heads


def _cells(row: _Row, bounded: bool, seeds: int) -> list[str]:
    cells = [row.variant]
    for step in STEPS:
        cell = _percent(row.values(step), seeds)
        oracle = row.values(step, "oracle_miou")
        cells.append(f"{cell} [{_percent(oracle, seeds)}]" if oracle else cell)
    if bounded:
        share = _share(row)
        cells.append(ABSENT if share is None else f"{100 * share:.1f}")
    return cells


def _percent(values: Sequence[float], seeds: int) -> str:
    if not values:
        return ABSENT
    text = f"{100 * statistics.fmean(values):.1f}"
    if len(values) > 1:
        text += f" ± {100 * statistics.stdev(values):.1f}"
    return text if len(values) == seeds else f"{text} (n={len(values)})"


def _share(row: _Row) -> float | None:
    final = row.mean("final")
    return final / row.upper if row.upper and final is not None else None


def _notes(rows: Sequence[_Row], twin: Callable[[str], str | None]) -> list[str]:
    notes = []
    for step, name in (("cam", "CAM"), ("walk", "Walk")):
        if any(row.values(step, "oracle_miou") for row in rows):
            used = (
                f"{row.variant} {_operating_points(row, step)}"
                for row in rows
                if row.values(step, "oracle_miou")
            )
            notes.append(f"{name} thresholds in use: {'; '.join(used)}.")
    if notes:
        notes.insert(
            0,
            "* oracle: the threshold that scores best on the reported masks themselves; a bound, "
            "not a result.",
        )
    if any(report["tags_used"] for report in _all(rows)):
        notes.append(
            "† image-level tags were used: classes that an image is not tagged with are ruled "
            "out. The other columns are predictions without tags."
        )
    if any(len(reports) > 1 for row in rows for reports in row.reports.values()):
        notes.append("± sample standard deviation over seeds.")
    imported = [row.variant for row in rows if any(r.get("imported") for r in _all([row]))]
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


def _operating_points(row: _Row, step: str) -> str:
    reports = [r for r in row.reports.get(step, []) if "threshold" in r]
    points = {(r["threshold"], r["threshold_source"]) for r in reports}
    return ", ".join(f"{value:g} ({source})" for value, source in sorted(points))


def _save_comparison(path: Path, rows: Sequence[_Row]) -> None:
    keys = [(step, "miou") for step in STEPS]
    keys.insert(1, ("cam", "oracle_miou"))
    names = [f"{step}_{key}" for step, key in keys]
    columns = ["variant", *(f"{name}{end}" for name in names for end in ("", "_sd", "_n"))]
    columns += ["cam_threshold", "walk_threshold", "share_of_supervised"]
    lines = []
    for row in rows:
        line: dict[str, Any] = {"variant": row.variant, "share_of_supervised": _share(row)}
        for name, (step, key) in zip(names, keys, strict=True):
            values = row.values(step, key)
            line[name] = row.mean(step, key)
            line[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
            line[f"{name}_n"] = len(values)
        line["cam_threshold"] = _operating_points(row, "cam")
        line["walk_threshold"] = _operating_points(row, "walk")
        lines.append({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()})
    save_csv(path, lines, columns)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Plain text columns: names to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = []
    for line in table:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _markdown(title: str, table: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    ruler = line(["---", *["--:"] * (len(table[0]) - 1)])
    body = [line(table[0]), ruler, *map(line, table[1:])]
    # A leading * or ± must stay text.
    footer = [part for note in notes for part in ("", note.replace("*", "\\*"))]
    heads = [body[0].replace("*", "\\*"), *body[1:]]
    return "\n".join([f"# {title}", "", *heads, *footer]) + "\n"


def _save_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
