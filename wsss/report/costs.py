"""What the jobs cost, read from the ``*.run.json`` beside their artifacts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wsss import jobrecords
from wsss.artifacts import load_json
from wsss.config import Params
from wsss.config.slices import STAGES
from wsss.paths import Paths
from wsss.report.comparison import ABSENT

HEADS = {
    "seconds": "seconds per run",
    "peak_rss_mb": "peak memory (MB)",
    "cuda_peak_mb": "peak GPU memory (MB)",
}


class Cost(NamedTuple):
    """One variant's stage: ``seconds`` are summed over the jobs of a run (its shards and
    evaluations) and averaged over the runs; memory is the largest of any job (of several
    processes, of the first), that on the GPU None where none was used.

    ``variant`` is empty for what all variants share.
    """

    variant: str
    stage: str
    runs: int
    jobs: int
    seconds: float
    peak_rss_mb: int
    cuda_peak_mb: int | None = None


def records(
    where: Paths, variants: Sequence[str], seeds: Sequence[int], params: Params
) -> list[Mapping[str, Any]]:
    """Read the records of all jobs that made the results of these variants and seeds."""
    found = [load_json(path) for path in sorted(where.data.glob("*.run.json"))]
    for variant in variants:
        for seed in seeds:
            paths = Paths(where.results, where.dataset, variant, seed)
            found += [job.facts for job in jobrecords.records(paths, params)]
    return found


def costs(jobs: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> list[Cost]:
    """Sum records up, in the order of ``variants`` and of the pipeline."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for facts in jobs:
        groups[facts.get("variant") or "", facts["stage"]].append(facts)
    rows = [_cost(variant, stage, found) for (variant, stage), found in groups.items()]
    variant_order, stage_order = ["", *variants], [*STAGES]
    rows.sort(key=lambda r: (variant_order.index(r.variant), _place(r.stage, stage_order)))
    return rows


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _cost(variant: str, stage: str, jobs: Sequence[Mapping[str, Any]]) -> Cost:
    runs = len({job.get("seed") for job in jobs})
    cuda = [job["cuda_peak_mb"] for job in jobs if job.get("cuda_peak_mb") is not None]
    return Cost(
        variant,
        stage,
        runs,
        len(jobs),
        round(sum(job["seconds"] for job in jobs) / runs, 1),
        round(max(job["peak_rss_mb"] for job in jobs)),
        round(max(cuda)) if cuda else None,
    )


def columns(rows: Sequence[Cost]) -> list[str]:
    """Return the fields to show: memory on GPUs only where any was used."""
    used = any(row.cuda_peak_mb is not None for row in rows)
    return [name for name in Cost._fields if used or name != "cuda_peak_mb"]


def cost_table(rows: Sequence[Cost], fields: Sequence[str]) -> list[list[str]]:
    """Return these fields as text, headings first."""
    body = [[_cell(getattr(row, name)) for name in fields] for row in rows]
    return [[HEADS.get(name, name) for name in fields], *body]


def _cell(value: str | float | None) -> str:
    return ABSENT if value is None else str(value) or "(shared)"
