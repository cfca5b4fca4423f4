"""The plan: every job of the workflow with what it does, and with its cost where that is known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wsss.config import Config, Params
from wsss.config.spread import spread
from wsss.pipeline import TRAINED
from wsss.planning.dataset import DataFacts, largest_batch
from wsss.planning.disk import size_of
from wsss.planning.rates import Bench, Entry
from wsss.planning.schedule import Load, critical_path, makespan
from wsss.planning.work import ON_GPU, Work, batch_of, group_of, is_pooled, work_of
from wsss.stages.evaluations import stage_of
from wsss.versioning.graph import Job

_SHARD = re.compile(r"\.(\d+)of(\d+)\.zip$")


@dataclass(frozen=True)
class Planned:
    """One job.

    Attributes:
        name: its first output.
        shards: how many jobs share its stage.
        work: what it does; nothing of jobs that only read and copy, which are not counted.
        seconds: None where any of its work was not measured.
        process_mb: of its largest process; ``memory_mb`` of all of them, on one node.
        gpu_mb: that tensors take on a GPU, at most; None where none was measured.
        size: bytes that it leaves on disk; None where a part of them is not known.
        after: names of the jobs that it waits for.
    """

    name: str
    rule: str
    stage: str
    variant: str
    seed: str
    shards: int
    cores: int
    gpus: int
    work: tuple[Work, ...]
    seconds: float | None
    process_mb: float | None
    memory_mb: float | None
    gpu_mb: float | None
    size: float | None
    after: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All jobs, in the order of the workflow, and the data set they work on."""

    facts: DataFacts
    jobs: tuple[Planned, ...]
    bench: Bench | None

    @property
    def counts(self) -> Counter[str]:
        """Jobs of each rule."""
        return Counter(job.rule for job in self.jobs)

    @cached_property
    def loads(self) -> dict[str, Load]:
        """The jobs as loads of a machine; those whose time is not known take none."""
        return {j.name: Load(j.seconds or 0.0, j.cores, j.gpus, j.after) for j in self.jobs}

    @property
    def unmeasured(self) -> list[str]:
        """Tasks that there is no measured time for."""
        open_ = (job for job in self.jobs if job.work and job.seconds is None)
        return list(dict.fromkeys(work.task for job in open_ for work in job.work))

    @property
    def seconds(self) -> float:
        """Of all jobs one after the other, as far as known."""
        return sum(load.seconds for load in self.loads.values())

    @property
    def critical_path(self) -> float:
        """Seconds that no number of machines can beat."""
        return critical_path(self.loads)

    def makespan(self, cores: int, gpus: int) -> float:
        """Seconds on one machine of ``cores`` and ``gpus``."""
        return makespan(self.loads, cores, gpus)


def make_plan(
    jobs: Sequence[Job], params: Params, facts: DataFacts, bench: Bench | None = None
) -> Plan:
    """Cost the jobs that Snakemake names."""
    makers = {output: job.outputs[0] for job in jobs for output in job.outputs}
    planned = [_planned(job, params, facts, bench, makers) for job in jobs]
    return Plan(facts, tuple(planned), bench)


def _planned(
    job: Job, params: Params, facts: DataFacts, bench: Bench | None, makers: Mapping[str, str]
) -> Planned:
    variant = job.wildcards.get("variant", "")
    config = params.resolve(variant) if variant else params.base
    what = _evaluated(job)
    stage = stage_of(what) if what else job.rule
    share = _share(job, stage, facts)
    work = tuple(w._replace(amount=w.amount * share) for w in work_of(stage, config, facts, what))
    cores = _cores(stage, work, config)
    entries = [bench.entry(w.task, config) if bench else None for w in work]
    process = _process_mb(stage, entries, config, facts)
    sizes = [_size(output, config, facts, entries, share) for output in job.outputs]
    return Planned(
        name=job.outputs[0],
        rule=job.rule,
        stage=stage,
        variant=variant,
        seed=job.wildcards.get("seed", ""),
        shards=_shard(job)[1],
        cores=cores,
        gpus=_gpus(stage, work, config, bench),
        work=work,
        seconds=_seconds(work, entries, bench, cores),
        process_mb=process,
        memory_mb=None if process is None else process * _in_memory(stage, cores, config),
        gpu_mb=_gpu_mb(entries, config, facts),
        size=None if None in sizes else sum(filter(None, sizes)),
        after=tuple(dict.fromkeys(makers[i] for i in job.inputs if i in makers)),
    )


def _evaluated(job: Job) -> str:
    """Which evaluation a job makes, if it does."""
    if not job.rule.startswith("evaluate"):
        return ""
    return job.wildcards.get("what", job.rule.removeprefix("evaluate_"))


def _shard(job: Job) -> tuple[int, int]:
    """Which shard a job works on, and of how many."""
    match = _SHARD.search(job.outputs[0])
    return (int(match[1]), int(match[2])) if match else (0, 1)


def _share(job: Job, stage: str, facts: DataFacts) -> float:
    """A shard's part of the images of its stage, as the stage itself cuts them."""
    shard, shards = _shard(job)
    if shards == 1:
        return 1.0
    from wsss.shards import WINDOW, shard_bounds

    group = facts.groups[group_of(stage)]
    window = WINDOW if stage in ON_GPU else 1
    start, stop = shard_bounds(group.images, shard, shards, window)
    return (stop - start) / max(1, group.images)


def _cores(stage: str, work: Sequence[Work], config: Config) -> int:
    if stage in ON_GPU:
        return config.compute.threads * _processes(stage, config)
    return config.resources.processes if any(is_pooled(w.task) for w in work) else 1


def _processes(stage: str, config: Config) -> int:
    """Processes that a network's batch is shared among on a node."""
    return spread(config, stage).processes if stage in TRAINED else 1


def _in_memory(stage: str, cores: int, config: Config) -> int:
    """Processes of a job on a node. A pool is its parent and its workers; torchrun's agent, small
    beside a training, is not counted."""
    if stage in ON_GPU:
        return _processes(stage, config)
    return 1 + cores if cores > 1 else 1


def _gpus(stage: str, work: Sequence[Work], config: Config, bench: Bench | None) -> int:
    """One a process, where GPUs are used; none to copy published weights."""
    used = stage in ON_GPU and work and _on_gpu(config, bench)
    return _processes(stage, config) if used else 0


def _on_gpu(config: Config, bench: Bench | None) -> bool:
    device = bench.file.device if bench else config.compute.device
    return device.startswith("cuda")


def _seconds(
    work: Sequence[Work], entries: Sequence[Entry | None], bench: Bench | None, cores: int
) -> float | None:
    if bench is None or not work:
        return None
    total = 0.0
    for one, entry in zip(work, entries, strict=True):
        if entry is None:
            return None
        # A pool shares images among processes of one thread each; they were measured with one.
        pooled = is_pooled(one.task)
        threads, workers = (1, cores) if pooled else (cores, 1)
        total += one.amount * bench.seconds(entry, threads) / workers
    first = entries[0]
    return total + (first.start_seconds if first else 0.0)


def _process_mb(
    stage: str, entries: Sequence[Entry | None], config: Config, facts: DataFacts
) -> float | None:
    """Of the largest image, where it was measured on others; a training's crops do not change."""
    if not entries or any(entry is None for entry in entries):
        return None
    found = []
    for entry in filter(None, entries):
        ratio = _larger(entry, config, facts)
        found.append(entry.base_mb + (entry.peak_mb - entry.base_mb) * ratio)
    return found[0] if stage in TRAINED else max(found)


def _gpu_mb(entries: Sequence[Entry | None], config: Config, facts: DataFacts) -> float | None:
    """Of the largest image, as if all of it grew with the image."""
    found = [
        entry.cuda_peak_mb * _larger(entry, config, facts)
        for entry in filter(None, entries)
        if entry.cuda_peak_mb is not None
    ]
    return max(found, default=None)


def _larger(entry: Entry, config: Config, facts: DataFacts) -> float:
    """How much larger the largest batch of the data set is than the one that was measured; a
    training's crops are of one size."""
    if entry.unit == "step":
        return 1.0
    stage = entry.task  # of several in a job, each has batches of its own
    batch = batch_of(stage, config)
    window = facts.largest_window(group_of(stage), batch) if batch > 1 else ()
    pixels = largest_batch(window, batch) or facts.groups["all"].largest * batch
    return pixels / entry.batch_pixels


def _size(
    output: str, config: Config, facts: DataFacts, entries: Sequence[Entry | None], share: float
) -> float | None:
    size = size_of(output, config, facts)
    if size is not None:
        return size * share
    return next((e.artifact_bytes for e in entries if e and e.artifact_bytes), None)


def plain(plan: Plan, cores: int, gpus: int) -> dict[str, Any]:
    """The whole plan as plain data; times in seconds, sizes in bytes, memory in MB."""
    known = plan.bench is not None
    return {
        "data": plan.facts.plain(),
        "machine": plan.bench.file.machine if plan.bench else None,
        "device": plan.bench.file.device if plan.bench else None,
        "jobs_per_rule": dict(plan.counts),
        "jobs": [_plain_job(job) for job in plan.jobs],
        "total": {
            "jobs": len(plan.jobs),
            "seconds": _rounded(plan.seconds) if known else None,
            "critical_path_seconds": _rounded(plan.critical_path) if known else None,
            "makespan_seconds": _rounded(plan.makespan(cores, gpus)) if known else None,
            "cores": cores,
            "gpus": gpus,
            "bytes": round(sum(job.size or 0 for job in plan.jobs)),
            "memory_mb": _rounded(max((j.memory_mb or 0 for j in plan.jobs), default=0) or None),
            "unmeasured": plan.unmeasured if known else None,
        },
    }


def _plain_job(job: Planned) -> dict[str, Any]:
    work = [{**w._asdict(), "amount": _rounded(w.amount, 3)} for w in job.work]
    return {
        "name": job.name,
        "rule": job.rule,
        "variant": job.variant,
        "seed": job.seed,
        "cores": job.cores,
        "gpus": job.gpus,
        "work": work,
        "seconds": _rounded(job.seconds),
        "process_mb": _rounded(job.process_mb),
        "memory_mb": _rounded(job.memory_mb),
        "gpu_mb": _rounded(job.gpu_mb),
        "bytes": None if job.size is None else round(job.size),
        "after": list(job.after),
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
