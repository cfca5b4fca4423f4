"""DVC's stages, made from Snakemake's jobs.

Jobs of one rule that differ in nothing but variant, seed and shard are one stage with a matrix.
Where the variants of a rule read other files or keys, each kind is a stage of its own: the first
has the rule's name, the others that of their first variant behind it.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import PurePosixPath
from typing import Any

from wsss.config import STAGES, Params
from wsss.config.slices import layout_of
from wsss.errors import UserError
from wsss.pipeline import stages_run
from wsss.provenance import files_of, stage_modules
from wsss.stages.evaluations import stage_of
from wsss.versioning.graph import BASE, Job
from wsss.versioning.places import Place, Places

GRAPH = "graph"
# Wildcards that a matrix runs over, in the order of a stage's name.
_MATRIX = ("variant", "seed", "shard")
# What the graph itself depends on: edits that add, remove or rewire jobs. Values of variants are
# among them, but those change nothing here unless they change the graph.
SHAPE = (
    "run",
    "variants",
    "resources.shards",
    "data.source",
    "data.splits",
    "road",
    "method.name",
    "classify.checkpoint",
    "cam.threshold",
    "refine.method",
    "walk.background",
    "walk.background_threshold",
    "segment.checkpoint",
    "segment.labels",
    "segment.ignore_below",
    "evaluate.boxes",
)
# The stage that shows what all others read, see :func:`wsss.report.configuration.described`.
DESCRIBES = "report"
RULES = ("Snakefile", "workflow/rules")


@dataclass(frozen=True)
class Shape:
    """What a stage is, with ``${item.variant}`` and the like for what its matrix runs over."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[Place, ...]
    code: tuple[str, ...]


@dataclass
class Stage:
    """One stage of dvc.yaml."""

    name: str
    cmd: str
    deps: list[str]
    outs: list[str]
    params: dict[str, list[str]] = field(default_factory=dict)
    matrix: dict[str, list[str | int]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


def graph_file(params: Params) -> str:
    """The file that the stage `graph` writes, before which nothing runs."""
    run = params.base.run
    return (PurePosixPath(run.results) / run.dataset / "graph.txt").as_posix()


def make_stages(
    jobs: Sequence[Job], params: Params, raws: Mapping[str, Mapping[str, Any]]
) -> list[Stage]:
    """Return all stages in an order in which they can run.

    Args:
        jobs: every job of the workflow.
        params: the configuration they were planned with.
        raws: what each of its files holds.
    """
    places = Places(raws, params)
    first = _graph_stage(params, places, list(raws))
    groups: dict[str, dict[Shape, list[Job]]] = {}
    for job in _sorted(jobs, params):
        shape = _shape(job, params, places)
        groups.setdefault(_label(job), {}).setdefault(shape, []).append(job)
    order = {id(job): rank for rank, job in enumerate(_topological(jobs))}
    made = {output for job in jobs for output in job.outputs}
    stages: list[tuple[int, Stage]] = []
    for label, shapes in groups.items():
        for number, (shape, members) in enumerate(shapes.items()):
            name = label if number == 0 else f"{label}-{members[0].wildcards['variant']}"
            stage = _stage(name, shape, members)
            if not any(file in made for job in members for file in job.inputs):
                stage.deps.insert(0, first.outs[0])
            stages.append((min(order[id(job)] for job in members), stage))
    return [first, *(stage for _, stage in sorted(stages, key=lambda pair: pair[0]))]


def _graph_stage(params: Params, places: Places, files: Sequence[str]) -> Stage:
    # An overlay file may state a key anew, which no key of it says: the whole file is watched.
    return Stage(
        GRAPH,
        "wsss dvc check",
        deps=[*RULES, *files[1:]],
        outs=[graph_file(params)],
        params={BASE: [key for key in SHAPE if _stated(key, places)]},
        meta={"params": list(files)},
    )


def _stated(key: str, places: Places) -> bool:
    return key == "variants" or any(place.file == BASE for place in places.of(key))


def _sorted(jobs: Iterable[Job], params: Params) -> list[Job]:
    run = params.base.run

    def place(job: Job) -> tuple[int, int, int]:
        variant, seed = job.wildcards.get("variant"), int(job.wildcards.get("seed", 0))
        rank = run.variants.index(variant) if variant in run.variants else len(run.variants)
        order = run.seeds.index(seed) if seed in run.seeds else seed
        return rank, order, int(job.wildcards.get("shard", 0))

    return sorted(jobs, key=place)


def _label(job: Job) -> str:
    """The name of a job's stage: its rule, and what it scores or joins."""
    what = job.wildcards.get("what")
    return f"evaluate_{what}" if what else "_".join([job.rule, *_others(job)])


def _others(job: Job) -> list[str]:
    return [v for k, v in job.wildcards.items() if k not in (*_MATRIX, "dataset")]


def config_stage(job: Job) -> str | None:
    """The stage of :mod:`wsss.config.slices` that a job runs; None for joins of shards."""
    what = job.wildcards.get("what")
    stage = stage_of(what) if what else job.rule
    return stage if stage in STAGES else None


def _shape(job: Job, params: Params, places: Places) -> Shape:
    stage, variant = config_stage(job), job.wildcards.get("variant", "")
    keys: set[Place] = set()
    code: list[str] = []
    if stage is not None:
        config = params.resolve(variant) if variant else params.base
        keys = _places(stage, variant, places)
        if stage == DESCRIBES:
            for name in params.base.run.variants:
                for other in stages_run(params.resolve(name)):
                    keys |= _places(other, name, places)
        code = files_of(stage_modules(stage, config.method.name, layout_of(config, stage)))
    return Shape(
        job.rule,
        tuple(template(file, job.wildcards) for file in job.inputs),
        tuple(template(file, job.wildcards) for file in job.outputs),
        tuple(_own(place, variant) for place in sorted(keys)),
        tuple(code),
    )


def _places(stage: str, variant: str, places: Places) -> set[Place]:
    return {place for key in STAGES[stage] for place in places.of(key, variant)}


def _own(place: Place, variant: str) -> Place:
    """Write the job's variant as that of the matrix."""
    if variant and place.path[:2] == ("variants", variant):
        return Place(place.file, ("variants", "${item.variant}", *place.path[2:]))
    return place


def template(file: str, wildcards: Mapping[str, str]) -> str:
    """Write a job's variant, seed and shard in the name of a file as those of the matrix."""
    if seed := wildcards.get("seed"):
        file = file.replace(f"/seed{seed}/", "/seed${item.seed}/")
        file = file.replace(f"/{wildcards['variant']}/seed$", "/${item.variant}/seed$")
    if shard := wildcards.get("shard"):
        file = re.sub(rf"\.{shard}of(\d+)\.", r".${item.shard}of\1.", file)
    return file


def _stage(name: str, shape: Shape, members: Sequence[Job]) -> Stage:
    params: dict[str, list[str]] = {}
    for place in shape.params:
        params.setdefault(place.file, []).append(place.key)
    return Stage(
        name,
        f"wsss dvc run {shape.rule} {shape.outputs[0]}",
        deps=[*shape.inputs, *shape.code],
        outs=list(shape.outputs),
        params=params,
        matrix=_matrix(name, members),
    )


def _matrix(name: str, members: Sequence[Job]) -> dict[str, list[str | int]]:
    axes = [axis for axis in _MATRIX if axis in members[0].wildcards]
    values = {axis: list(dict.fromkeys(job.wildcards[axis] for job in members)) for axis in axes}
    cells = [tuple(job.wildcards[axis] for axis in axes) for job in members]
    if axes and sorted(cells) != sorted(product(*values.values())):
        raise UserError(f"stage {name} does not run for every combination of {', '.join(axes)}")
    return {
        axis: [value if axis == "variant" else int(value) for value in values[axis]]
        for axis in axes
    }


def _topological(jobs: Sequence[Job]) -> list[Job]:
    """Order jobs so that each follows what it reads, and else by stage and name."""
    maker = {output: job for job in jobs for output in job.outputs}
    waits = {id(job): {id(maker[f]) for f in job.inputs if f in maker} for job in jobs}
    readers: dict[int, list[Job]] = {}
    for job in jobs:
        for upstream in waits[id(job)]:
            readers.setdefault(upstream, []).append(job)
    rank = {stage: number for number, stage in enumerate(STAGES)}

    def key(job: Job) -> tuple[int, str, str]:
        return rank.get(config_stage(job) or "", len(rank)), _label(job), job.outputs[0]

    ready = [(key(job), number) for number, job in enumerate(jobs) if not waits[id(job)]]
    heapq.heapify(ready)
    numbers = {id(job): number for number, job in enumerate(jobs)}
    ordered = []
    while ready:
        job = jobs[heapq.heappop(ready)[1]]
        ordered.append(job)
        for reader in readers.get(id(job), []):
            waits[id(reader)].discard(id(job))
            if not waits[id(reader)]:
                heapq.heappush(ready, (key(reader), numbers[id(reader)]))
    return ordered
