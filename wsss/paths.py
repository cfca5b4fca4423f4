"""Where every artifact lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Artifacts of one data set, variant and seed under ``results``.

    ``owners`` names the variant that holds a folder, or an evaluation (``metrics/WHAT``), where it
    is not this one.
    """

    results: Path
    dataset: str
    variant: str = ""
    seed: int = 0
    owners: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Folder of the data set."""
        return self.results / self.dataset

    @property
    def data(self) -> Path:
        """Folder of the manifest."""
        return self.root / "data"

    @property
    def run(self) -> Path:
        """Folder of this variant and seed."""
        return self._run(self.variant)

    def _run(self, variant: str) -> Path:
        return self.root / variant / f"seed{self.seed}"

    def _held(self, key: str) -> Path:
        return self._run(self.owners.get(key, self.variant))

    def weights(self, stage: str) -> Path:
        """Trained weights of a stage."""
        return self._held(stage) / stage / "weights.safetensors"

    def store(self, stage: str, name: str) -> Path:
        """Array or mask store of a stage."""
        return self._held(stage) / stage / f"{name}.zip"

    def shard(self, stage: str, name: str, shard: int, shards: int) -> Path:
        """One part of a store."""
        return self.run / stage / "shards" / f"{name}.{shard}of{shards}.zip"

    def metrics(self, name: str) -> Path:
        """Metrics of one evaluation, without suffix."""
        return self._held(f"metrics/{name}") / "metrics" / name

    def report(self, name: str) -> Path:
        """What one evaluation found, as flat json."""
        metrics = self.metrics(name)
        return metrics.with_name(f"{metrics.name}.json")

    def log(self, name: str) -> Path:
        """Log file of one job."""
        return (self.run if self.variant else self.root) / "logs" / f"{name}.log"

    def state(self, stage: str, key: str) -> Path:
        """Resumable state, at a place that no workflow rule declares as its output."""
        return self.run / ".state" / f"{stage}-{key}"
