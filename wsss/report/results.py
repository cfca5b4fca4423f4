"""What a page is made from: the results of a data set, complete or not."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wsss.config import Config, Params
from wsss.config.schema import Report
from wsss.data.manifest import Manifest
from wsss.paths import Paths
from wsss.report.costs import records
from wsss.report.counts import Counts, read_counts
from wsss.report.palette import Look, looks
from wsss.report.scores import Row, read_rows
from wsss.report.statistics import same_images
from wsss.stages.evaluations import wanted


@dataclass(frozen=True)
class Results:
    """A data set, its variants and seeds; ``where`` names its folder.

    What a run has not made yet is None or left out, never an error. Damaged files, and numbers
    that cannot stand side by side, are :class:`wsss.errors.UserError`.
    """

    params: Params
    manifest: Manifest
    where: Paths
    settings: Report

    @property
    def variants(self) -> list[str]:
        """Rows of every table, in order."""
        return self.params.base.run.variants

    @property
    def seeds(self) -> list[int]:
        """Runs of each variant."""
        return self.params.base.run.seeds

    @property
    def classes(self) -> list[str]:
        """Names of mask ids 0..C."""
        return ["background", *self.manifest.classes]

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each variant is drawn."""
        return looks(self.variants)

    @cached_property
    def configs(self) -> dict[str, Config]:
        """Each variant's configuration."""
        return {variant: self.params.resolve(variant) for variant in self.variants}

    @cached_property
    def rows(self) -> list[Row]:
        """The scores of every variant."""
        p = self.params
        return read_rows(self.where, self.variants, self.seeds, p.twin, p.owners)

    @cached_property
    def records(self) -> list[Mapping[str, Any]]:
        """What the jobs cost and on what they ran."""
        return records(self.where, self.variants, self.seeds, self.params)

    @property
    def scored(self) -> bool:
        """Whether any variant is held against ground truth."""
        return any(wanted(config) for config in self.configs.values())

    def run(self, variant: str, seed: int | None = None) -> Paths:
        """Where a variant's artifacts are, shared ones included; of the first seed by default."""
        seed = self.seeds[0] if seed is None else seed
        where, owners = self.where, self.params.owners(variant)
        return Paths(where.results, where.dataset, variant, seed, owners)

    def owner(self, variant: str, key: str) -> str:
        """The variant that holds a folder or evaluation of ``variant``."""
        return self.params.owners(variant).get(key, variant)

    def holders(self, key: str) -> dict[str, list[str]]:
        """The variants that hold a folder themselves, each with all that use it."""
        found: dict[str, list[str]] = {}
        for variant in self.variants:
            found.setdefault(self.owner(variant, key), []).append(variant)
        return {holder: users for holder, users in found.items() if holder in self.variants}

    def runs(self) -> Iterator[tuple[str, int]]:
        """Every variant and seed."""
        return ((variant, seed) for variant in self.variants for seed in self.seeds)

    def expected(self, variant: str) -> list[str]:
        """The evaluations that a variant ends with."""
        return wanted(self.configs[variant])

    def started(self, variant: str) -> bool:
        """Whether anything of a variant is there."""
        return any(self.run(variant, seed).run.is_dir() for seed in self.seeds)

    def metrics(self, variant: str, step: str) -> list[Mapping[str, Any]]:
        """The metrics of one step, one a seed that has them."""
        return next(row for row in self.rows if row.variant == variant).steps.get(step, [])

    def seed_metrics(self, variant: str, seed: int, step: str) -> Mapping[str, Any] | None:
        """The metrics of one step of one run."""
        base = self.run(variant, seed).metrics(step)
        return next(
            (
                m
                for m in self.metrics(variant, step)
                if m["path"] == base.with_name(f"{base.name}.json")
            ),
            None,
        )

    def counts(self, variant: str, step: str) -> list[Counts]:
        """Per-image counts of one step, one a seed that has them."""
        found = []
        for metrics in self.metrics(variant, step):
            path = Path(metrics["path"]).with_suffix(".images.csv")
            if path.is_file():
                arguments = (len(self.classes), metrics["images"], metrics["miou"])
                found.append(read_counts(path, *arguments))
        return found

    def counted(self, step: str) -> dict[str, list[Counts]]:
        """Per-image counts of every variant that makes the step's artifact itself.

        Variants whose images or truth differ from the first one's are left out.
        """
        found: dict[str, list[Counts]] = {}
        for variant in self.variants:
            if self.owner(variant, f"metrics/{step}") != variant:
                continue
            counts = self.counts(variant, step)
            reference = next(iter(found.values()), counts)
            if counts and same_images([reference[0], *counts]):
                found[variant] = counts
        return found


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of the workflow; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
