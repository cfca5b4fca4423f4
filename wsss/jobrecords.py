"""The records of the jobs that made a result: ``*.run.json`` beside its artifacts.

None is of a stage that is not part of it, see :mod:`wsss.stages.ownership`, or of shards of another
number, which a folder also keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wsss.artifacts import load_json
from wsss.config import Params
from wsss.config.schema import Shards
from wsss.paths import Paths
from wsss.pipeline import FILES
from wsss.stages.ownership import own_evaluations, own_stages

_SHARDED = {
    "cam": "cam",
    "seeds_alpha": "seeds",
    "seeds_confident": "seeds",
    "seeds_label": "seeds",
    "edges": "walk",
    "walk": "walk",
    "predict": "predict",
    "crf": "crf",
}
_PART = re.compile(r"\.(\d+)of(\d+)\.run\.json")


class JobRecord(NamedTuple):
    """What a job wrote of itself, and where."""

    path: Path
    facts: dict[str, Any]


def records(paths: Paths, params: Params) -> Iterator[JobRecord]:
    """Yield the records of all jobs of one variant and seed that the results of the run need."""
    run = params.base.run.variants
    for stage in own_stages(params, paths.variant, run):
        yield from stage_records(paths, stage, params.base.resources.shards)
    for what in own_evaluations(params, paths.variant, run):
        yield from evaluation_records(paths, what)


def stage_records(paths: Paths, stage: str, shards: Shards) -> list[JobRecord]:
    """Return the records of a stage: one, or one a shard."""
    folder, names = FILES[stage]
    count = getattr(shards, _SHARDED[stage]) if stage in _SHARDED else 1
    return [_read(path) for path in _generation(paths.run / folder, Path(names[0]).stem, count)]


def evaluation_records(paths: Paths, what: str) -> list[JobRecord]:
    """Return the record of an evaluation, if it was kept."""
    path = paths.run / "metrics" / f"{what}.run.json"
    return [_read(path)] if path.is_file() else []


def _read(path: Path) -> JobRecord:
    return JobRecord(path, load_json(path))


def _generation(folder: Path, stem: str, count: int) -> list[Path]:
    """The records of ``count`` shards or, as their number changes no result, of the number that
    ran last."""
    found: dict[int, dict[int, Path]] = {}
    whole = folder / f"{stem}.run.json"
    if whole.is_file():
        found[1] = {0: whole}
    for path in (folder / "shards").glob(f"{stem}.*of*.run.json"):
        if part := _PART.fullmatch(path.name.removeprefix(stem)):
            found.setdefault(int(part[2]), {})[int(part[1])] = path
    if not found:
        return []
    chosen = found.get(count) or max(found.values(), key=_last)
    return [chosen[number] for number in sorted(chosen)]


def _last(parts: dict[int, Path]) -> int:
    return max(path.stat().st_mtime_ns for path in parts.values())
