"""The run of one stage: its curves over steps, what it cost, its small files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss.artifacts import json_bytes
from wsss.pipeline import TRAINED
from wsss.tracking.layout import roles_of
from wsss.tracking.records import File, Metric, Record, digest, flatten, metric_name
from wsss.tracking.results import NO_SCORES, Results, file_hash, read_rows

# Counts of pixels say nothing beside the scores made of them.
_COUNTED = ("gt_pixels", "pred_pixels", "pairs", "pairs_without_box")


def stage_record(results: Results, stage: str, pictures: tuple[File, ...] = ()) -> Record:
    """Return the run of a finished stage."""
    outputs = results.outputs(stage)
    folder = outputs[0].parent
    curves: list[Metric] = []
    small = [*_records(results, stage)]
    if stage in TRAINED:
        curves = [*_curve(folder / "curve.csv"), *_curve(folder / "curve.run.csv")]
        small += [folder / "curve.csv", folder / "curve.run.csv"]
    return Record(
        key=f"{results.key}/{stage}",
        name=stage,
        parent=results.key,
        complete=True,
        times=results.times(stage),
        params=flatten(results.stage_params(stage)),
        tags=_tags(results, stage),
        metrics=(*curves, *_costs(results, stage)),
        inputs=results.inputs(*roles_of(stage)),
        files=(*_files(small), _listing(outputs), *pictures),
    )


def evaluation_record(results: Results, what: str) -> Record:
    """Return the run of an evaluation: its scores, also by class and by threshold."""
    stage, report = f"evaluate_{what}", results.report(what)
    assert report is not None
    path = results.paths.metrics(what)
    names = (f"{what}.json", *(f"{what}.{t}.csv" for t in ("classes", "confusion", "sweep")))
    tables = [path.with_name(name) for name in names]
    facts = {k: v for k, v in report.items() if not is_score(k, v)}
    return Record(
        key=f"{results.key}/{stage}",
        name=stage,
        parent=results.key,
        complete=True,
        times=results.times(stage),
        params=flatten(facts),
        tags=_tags(results, stage),
        metrics=(
            *(*scores(report), *_by_class(results, what), *_sweep(results, what)),
            *_costs(results, stage),
        ),
        inputs=results.inputs(*roles_of(stage)),
        files=tuple(_files([*tables, *_records(results, stage)])),
    )


def is_score(name: str, value: Any) -> bool:
    """Whether an entry of a report is a result, not a fact about what was scored."""
    return isinstance(value, int | float) and not isinstance(value, bool) and name not in NO_SCORES


def scores(report: dict[str, Any], prefix: str = "") -> Iterator[Metric]:
    """The numbers that an evaluation found."""
    for name, value in sorted(report.items()):
        if is_score(name, value):
            yield Metric(metric_name(f"{prefix}{name}"), float(value))


def _by_class(results: Results, what: str) -> Iterator[Metric]:
    for row in results.table(what, "classes"):
        for column, cell in row.items():
            if column not in ("class", *_COUNTED) and cell:
                yield Metric(metric_name(f"{column}/{row['class']}"), float(cell))


def _sweep(results: Results, what: str) -> Iterator[Metric]:
    """The scores at every threshold, as curves; a step is a threshold's place in the table."""
    for step, row in enumerate(results.table(what, "sweep")):
        for column, cell in row.items():
            if cell:
                yield Metric(metric_name(f"sweep/{column}"), float(cell), step)


def _curve(path: Path) -> Iterator[Metric]:
    """Every column of a training curve over its steps; cells that are empty are left out."""
    for row in read_rows(path):
        for column, cell in row.items():
            if column != "step" and cell:
                yield Metric(metric_name(column), float(cell), int(row["step"]))


def cost_metrics(jobs: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """What jobs cost together; GPU memory only where it was used."""
    if jobs:
        yield Metric("seconds", round(sum(float(job["seconds"]) for job in jobs), 2))
        yield Metric("peak_memory_mb", max(float(job["peak_rss_mb"]) for job in jobs))
    cuda = [float(job["cuda_peak_mb"]) for job in jobs if job.get("cuda_peak_mb") is not None]
    if cuda:
        yield Metric("peak_cuda_mb", max(cuda))


def _costs(results: Results, stage: str) -> Iterator[Metric]:
    return cost_metrics([facts for _, facts in results.costs(stage)])


def _tags(results: Results, stage: str) -> dict[str, str]:
    jobs = [facts for _, facts in results.costs(stage)]
    differing = results.differing(stage) if stage in TRAINED else []
    tags = {
        "stage": stage,
        "variant": results.variant,
        "seed": str(results.seed),
        "data_hash": results.about["data_hash"],
        "git": revisions(jobs),
        "machine": ", ".join(dict.fromkeys(str(job.get("machine", "")) for job in jobs)),
        "code_hash": results.code(stage) or "",
        "other_params": ", ".join(differing),
    }
    return {name: value for name, value in tags.items() if value}


def revisions(jobs: Iterable[dict[str, Any]]) -> str:
    """Return the commits that jobs ran at, in order, each once."""
    return ", ".join(dict.fromkeys(str(job["git"]) for job in jobs if job.get("git")))


def _records(results: Results, stage: str) -> list[Path]:
    return [path for path, _ in results.costs(stage)]


def _files(paths: Iterable[Path]) -> Iterator[File]:
    for path in paths:
        if path.is_file():
            folder = "shards/" if path.parent.name == "shards" else ""
            yield File(f"{folder}{path.name}", file_hash(path), path.read_bytes)


def _listing(outputs: list[Path]) -> File:
    """Names, sizes and hashes of the artifacts, which stay where they are."""
    facts = {p.name: {"bytes": p.stat().st_size, "blake2b": file_hash(p)} for p in outputs}
    data = json_bytes(facts)
    return File("artifacts.json", digest(data), lambda: data)
