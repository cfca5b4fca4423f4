"""The scores of variants and seeds, read from their metrics files."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss.artifacts import load_json
from wsss.errors import UserError
from wsss.paths import Paths

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

Metrics = Mapping[str, Any]
# Which other variant holds what a variant shares, see :mod:`wsss.config.sharing`.
Owners = Callable[[str], Mapping[str, str]]
# A variant's supervised twin, trained with masks; None where there is none.
Twin = Callable[[str], str | None]


@dataclass
class Row:
    """One variant: the metrics of each step, one a seed; the score of its supervised twin."""

    variant: str
    steps: dict[str, list[Metrics]] = field(default_factory=dict)
    upper: float | None = None

    def values(self, step: str, key: str = "miou") -> list[float]:
        """A number of every seed that has it."""
        return [m[key] for m in self.steps.get(step, []) if m.get(key) is not None]

    def mean(self, step: str, key: str = "miou") -> float | None:
        """Its mean over seeds."""
        values = self.values(step, key)
        return statistics.fmean(values) if values else None

    @property
    def share(self) -> float | None:
        """The final score as a share of the supervised twin's."""
        final = self.mean("final")
        return final / self.upper if self.upper and final is not None else None


def read_rows(
    where: Paths, variants: Sequence[str], seeds: Sequence[int], twin: Twin, owners: Owners
) -> list[Row]:
    """Read the metrics of every variant and seed; what has not run yet is left out.

    ``where`` names the data set. Raises UserError: a file is no report of an evaluation, or two
    are not comparable (other data, another list of images).
    """
    rows = [Row(variant) for variant in variants]
    for row in rows:
        for seed in seeds:
            for step, metrics in read_run(where, row.variant, seed, owners).items():
                row.steps.setdefault(step, []).append(metrics)
    _refuse_unlike(rows)
    finals = {row.variant: row.mean("final") for row in rows}
    for row in rows:
        row.upper = finals.get(twin(row.variant) or "")
    return rows


def read_run(where: Paths, variant: str, seed: int, owners: Owners) -> dict[str, Metrics]:
    """Read the metrics of one variant and seed, by step; ``path`` names the file."""
    paths = Paths(where.results, where.dataset, variant, seed, owners(variant))
    files = {step: Path(f"{paths.metrics(step)}.json") for step in STEPS}
    return {step: _metrics(path) for step, path in files.items() if path.is_file()}


def all_metrics(rows: Iterable[Row]) -> list[Metrics]:
    """Everything that was read."""
    return [m for row in rows for metrics in row.steps.values() for m in metrics]


def _metrics(path: Path) -> Metrics:
    metrics = load_json(path)
    lacking = [k for k in _NEEDED if k not in metrics] if isinstance(metrics, dict) else _NEEDED
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}: delete it and evaluate again")
    return {**metrics, "path": path}


def _refuse_unlike(rows: Iterable[Row]) -> None:
    """Numbers stand side by side only if they were measured on the same images."""
    first: dict[str, Metrics] = {}
    for metrics in all_metrics(rows):
        for scope, keys in (("", ("data_hash",)), (metrics["role"], ("split", "images"))):
            other = first.setdefault(scope, metrics)
            for key in keys:
                if metrics[key] != other[key]:
                    raise UserError(
                        f"{metrics['path']} and {other['path']} cannot be compared: {key} is "
                        f"{metrics[key]!r} in one and {other[key]!r} in the other; evaluate again"
                    )
