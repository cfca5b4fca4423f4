"""What a stage is handed: its slice of the configuration, its paths, the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wsss.config import Config, Params, stage_params, view
from wsss.config.slices import layout_of
from wsss.data.manifest import Manifest
from wsss.paths import Paths
from wsss.provenance import code_hash
from wsss.runrecord import record


@dataclass(frozen=True)
class Context:
    """One job: a stage of one variant and seed.

    Attributes:
        config: only the keys that the stage declares, see :mod:`wsss.config.slices`.
        params: the same keys that its artifacts depend on, as plain data.
        code: hash of the stage's source closure.
    """

    stage: str
    variant: str
    seed: int
    config: Config
    params: dict[str, Any]
    code: str
    paths: Paths

    @cached_property
    def manifest(self) -> Manifest:
        """The data set."""
        root = self.config.data.root
        return Manifest.load(self.paths.data, Path(root) if root else None)

    @cached_property
    def key(self) -> str:
        """Hash of everything the stage's result depends on, upstream artifacts apart."""
        parts = [self.params, self.code, self.seed, self.manifest.data_hash]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @contextmanager
    def recording(self, artifact: Path, **facts: Any) -> Iterator[dict[str, Any]]:
        """Write the cost of the job beside ``artifact`` when it succeeds."""
        with record(artifact, self.stage, variant=self.variant, seed=self.seed, **facts) as known:
            yield known

    def meta(self) -> dict[str, Any]:
        """What stands in the metadata of weights."""
        return {
            "stage": self.stage,
            "params": self.params,
            "code": self.code,
            "seed": self.seed,
            "data_hash": self.manifest.data_hash,
            "classes": list(self.manifest.classes),
        }


def make_context(params: Params, stage: str, variant: str, seed: int) -> Context:
    """Resolve one job; ``variant`` is empty for stages that all variants share."""
    config = params.resolve(variant) if variant else params.base
    paths = Paths(
        Path(config.run.results), config.run.dataset, variant, seed, params.owners(variant)
    )
    return Context(
        stage,
        variant,
        seed,
        view(config, stage),
        stage_params(config, stage),
        code_hash(stage, config.method.name, layout_of(config, stage)),
        paths,
    )
