"""The plan as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wsss.planning.plan import Plan, Planned
from wsss.report.text import aligned

UNKNOWN = "–"
HEAD = ("rule", "jobs", "time", "memory", "disk")
GPU = "GPU"  # memory, a column where any was measured
SAID = "what a job does"


def lines(plan: Plan, cores: int, gpus: int) -> list[str]:
    """Return what ``wsss plan`` prints."""
    facts = plan.facts
    roles = ", ".join(f"{r} {facts.groups[r].images}" for r in ("train", "seed", "tune", "val"))
    everything = facts.groups["all"]
    head = (
        f"data: {everything.images} images of {everything.pixels / 1e6:.3f} Mpx, {facts.classes} "
        f"classes, {everything.tags:.2f} tags an image ({roles}); from {facts.origin}"
    )
    if not plan.jobs:
        return [head, "", "Nothing to do: `wsss plan --all` plans everything again."]
    return [head, "", *_table(plan), "", *_totals(plan, cores, gpus), *_notes(plan)]


def _table(plan: Plan) -> list[str]:
    jobs = {rule: [job for job in plan.jobs if job.rule == rule] for rule in plan.counts}
    total = [_time(plan.seconds) if plan.bench else UNKNOWN, _largest(plan.jobs)]
    rows = [
        list(HEAD),
        *(_row(rule, some) for rule, some in jobs.items()),
        ["total", str(len(plan.jobs)), *total, _size(_sum_sizes(plan.jobs))],
    ]
    if _has_gpus(plan):
        column = [GPU, *map(_largest_on_gpu, jobs.values()), _largest_on_gpu(plan.jobs)]
        for row, text in zip(rows, column, strict=True):
            row.insert(HEAD.index("disk"), text)
    said = [SAID, "-" * len(SAID), *map(_said, jobs.values()), ""]
    body = aligned(rows)
    width = max(map(len, body))
    return [f"{line.ljust(width)}  {text}".rstrip() for line, text in zip(body, said, strict=True)]


def _row(rule: str, jobs: Sequence[Planned]) -> list[str]:
    counted = [job for job in jobs if job.work]
    known = [job.seconds for job in counted if job.seconds is not None]
    time = _time(sum(known)) if counted and len(known) == len(counted) else UNKNOWN
    return [rule, str(len(jobs)), time, _largest(jobs), _size(_sum_sizes(jobs))]


def _said(jobs: Sequence[Planned]) -> str:
    """The work of the first job, and of how many other kinds there are."""
    texts = list(dict.fromkeys("; ".join(w.text for w in job.work) for job in jobs if job.work))
    if not texts:
        return ""
    shards = max(job.shards for job in jobs)
    part = f" / {shards} shards" if shards > 1 else ""
    more = f" (and {len(texts) - 1} other)" if len(texts) > 1 else ""
    return f"{texts[0]}{part}{more}"


def _sum_sizes(jobs: Sequence[Planned]) -> float | None:
    sizes = [job.size for job in jobs if job.size is not None]
    return sum(sizes) if sizes else None


def _largest(jobs: Sequence[Planned]) -> str:
    known = [job.memory_mb for job in jobs if job.memory_mb is not None]
    return f"{max(known) / 1000:.1f} GB" if known else UNKNOWN


def _has_gpus(plan: Plan) -> bool:
    return any(job.gpu_mb is not None for job in plan.jobs)


def _largest_on_gpu(jobs: Sequence[Planned]) -> str:
    known = [job.gpu_mb for job in jobs if job.gpu_mb is not None]
    return f"{max(known) / 1000:.1f} GB" if known else UNKNOWN


def _size(size: float | None) -> str:
    if size is None:
        return UNKNOWN
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _totals(plan: Plan, cores: int, gpus: int) -> Iterator[str]:
    if plan.bench is None:
        yield (
            "Times and memory are not known: measure with `make bench` (a few minutes), then "
            "`wsss plan --bench bench.json`."
        )
        return
    file = plan.bench.file
    where = f"{cores} cores" + (f", {gpus} GPU" + "s" * (gpus > 1) if gpus else "")
    yield (
        f"on {where}: {_time(plan.makespan(cores, gpus))}; longest chain of jobs: "
        f"{_time(plan.critical_path)}"
    )
    yield f"measured on {file.machine} ({file.device}), images of {_shape(file.shape)}"


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _notes(plan: Plan) -> Iterator[str]:
    yield "Memory is that of one job, disk that of all; predict/scores.zip is counted at its most."
    if plan.bench is None:
        return
    if _has_gpus(plan):
        yield "GPU: what tensors take, a process; CUDA's own some hundred MB come on top."
    if plan.unmeasured:
        yield (
            f"Not measured for this configuration, so not counted: {', '.join(plan.unmeasured)}. "
            "Run `wsss bench` with the same --params."
        )
    if plan.bench.file.classes != plan.facts.classes:
        yield (
            f"The bench was made with {plan.bench.file.classes} classes, not "
            f"{plan.facts.classes}: CRF, prediction and evaluation may differ."
        )
