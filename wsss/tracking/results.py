"""One variant and seed in the results folder, as far as it has got."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from wsss.artifacts import load_json, weights_meta
from wsss.config import Config, Params, stage_params
from wsss.errors import UserError
from wsss.jobrecords import JobRecord, evaluation_records, stage_records
from wsss.paths import Paths
from wsss.pipeline import FILES, TRAINED
from wsss.stages.ownership import own_evaluations, own_stages, passed_evaluations, passed_stages
from wsss.tracking.records import Input, Times

# What the flat report of an evaluation holds beside scores.
NO_SCORES = ("seed", "images", "pairs", "pairs_without_box", "box_min_area", "boundary_tolerance")


@dataclass(frozen=True)
class Results:
    """Reads what one variant and seed has made; what it shares is read where it is."""

    params: Params
    variant: str
    seed: int

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        return self.params.resolve(self.variant)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Which other variant holds a folder or an evaluation (``metrics/WHAT``)."""
        return self.params.owners(self.variant)

    @cached_property
    def paths(self) -> Paths:
        """Where everything is."""
        run = self.config.run
        return Paths(Path(run.results), run.dataset, self.variant, self.seed, self.owners)

    @property
    def key(self) -> str:
        """The run's name in the store."""
        return run_key(self.paths.dataset, self.variant, self.seed)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What dataset.json says of the data."""
        about: dict[str, Any] = load_json(self.paths.data / "dataset.json")
        return about

    @cached_property
    def published(self) -> list[str]:
        """Every defined variant that has a folder, of the run or not."""
        return [name for name in self.params.variants if (self.paths.root / name).is_dir()]

    @cached_property
    def stages(self) -> list[str]:
        """Stages that this variant ran itself and that are finished."""
        own = own_stages(self.params, self.variant, self.published)
        return [stage for stage in own if all(path.is_file() for path in self.outputs(stage))]

    @cached_property
    def shared(self) -> dict[str, str]:
        """Key of the stage's run in the variant that ran it, by stage."""
        dataset, found = self.paths.dataset, {}
        for stage in passed_stages(self.config):
            owner = self.owners.get(FILES[stage][0])
            if owner is not None and self.outputs(stage, shared=True)[0].is_file():
                found[stage] = f"{run_key(dataset, owner, self.seed)}/{stage}"
        for what in passed_evaluations(self.config):
            owner = self.owners.get(f"metrics/{what}")
            if owner is not None and self._report_path(what).is_file():
                found[f"evaluate_{what}"] = f"{run_key(dataset, owner, self.seed)}/evaluate_{what}"
        return found

    def folder(self, stage: str) -> Path:
        """This variant's own folder of a stage."""
        return self.paths.run / FILES[stage][0]

    def _held(self, stage: str) -> Path:
        return self.paths.weights(FILES[stage][0]).parent

    def outputs(self, stage: str, shared: bool = False) -> list[Path]:
        """The stage's artifacts; where another variant ran it, its ones if ``shared``."""
        folder = self._held(stage) if shared else self.folder(stage)
        return [folder / name for name in FILES[stage][1]]

    # Evaluations

    def _report_path(self, what: str) -> Path:
        return self.paths.metrics(what).with_name(f"{what}.json")

    def report(self, what: str) -> dict[str, Any] | None:
        """What an evaluation found, shared or own; None if there is none of this data."""
        path = self._report_path(what)
        if not path.is_file():
            return None
        report: dict[str, Any] = load_json(path)
        return report if report.get("data_hash") == self.about["data_hash"] else None

    @cached_property
    def evaluations(self) -> list[str]:
        """Evaluations that this variant ran itself."""
        own = own_evaluations(self.params, self.variant, self.published)
        return [what for what in own if self.report(what) is not None]

    def table(self, what: str, name: str) -> list[dict[str, str]]:
        """The rows of ``WHAT.NAME.csv`` of an evaluation."""
        return read_rows(self.paths.metrics(what).with_name(f"{what}.{name}.csv"))

    # What jobs cost

    def costs(self, stage: str) -> list[JobRecord]:
        """The records of a stage's jobs (one, or one a shard), with their files."""
        if stage.startswith("evaluate_"):
            return evaluation_records(self.paths, stage.removeprefix("evaluate_"))
        return stage_records(self.paths, stage, self.params.base.resources.shards)

    def times(self, stage: str) -> Times:
        """When the stage's jobs ran, from the times of the files that they wrote last."""
        spans = [
            Times(ended - round(1000 * float(facts.get("seconds", 0))), ended)
            for path, facts in self.costs(stage)
            for ended in [_changed(path)]
        ]
        if not spans:  # records were not kept
            what = stage.removeprefix("evaluate_")
            evaluated = stage.startswith("evaluate_")
            paths = [self._report_path(what)] if evaluated else self.outputs(stage)
            spans = [Times(_changed(path), _changed(path)) for path in paths]
        return Times(min(span.began for span in spans), max(span.ended for span in spans))

    # Configuration

    def stage_params(self, stage: str) -> dict[str, Any]:
        """What a stage was run with: what its weights say; else what is configured."""
        return self._recorded(stage).get("params") or stage_params(self.config, stage)

    def _recorded(self, stage: str) -> dict[str, Any]:
        """What stands in the metadata of a stage's weights."""
        if stage not in TRAINED or not (path := self._held(stage) / "weights.safetensors").exists():
            return {}
        try:
            return weights_meta(path)
        except UserError:
            return {}

    def differing(self, stage: str) -> list[str]:
        """Keys that a trained stage ran with other values of than are configured now."""
        configured = json.loads(json.dumps(stage_params(self.config, stage)))
        return sorted(_differences(configured, self._recorded(stage).get("params") or {}))

    def code(self, stage: str) -> str | None:
        """Hash of the code that trained a stage's weights."""
        return self._recorded(stage).get("code")

    # Data

    def inputs(self, *roles: str) -> tuple[Input, ...]:
        """The lists that play ``roles``, each once."""
        about, found = self.about, {}
        for role in roles:
            split = about["roles"].get(role)
            if split is not None and split not in found:
                found[split] = Input(
                    name=f"{self.paths.dataset}.{split}",
                    digest=about["data_hash"],
                    context=role,
                    source=(self.paths.data / "manifest.csv").as_posix(),
                    profile={"kind": about["source"], **(about.get("counts", {}).get(split) or {})},
                )
        return tuple(found.values())


def run_key(dataset: str, variant: str, seed: int) -> str:
    """Return the key of a variant and seed; that of a stage has ``/STAGE`` behind it."""
    return f"{dataset}/{variant}/seed{seed}"


def all_results(params: Params) -> list[Results]:
    """Return every defined variant and seed that has a folder, in the order of ``run``."""
    run = params.base.run
    root = Paths(Path(run.results), run.dataset).root
    names = [*run.variants, *(name for name in params.variants if name not in run.variants)]
    found = []
    for name in names:
        seeds = (path.name.removeprefix("seed") for path in root.glob(f"{name}/seed*"))
        numbers = sorted(int(text) for text in seeds if text.isdecimal())
        runs = [Results(params, name, number) for number in numbers]
        found += [run for run in runs if run.stages or run.evaluations]
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; none if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def file_hash(path: Path) -> str:
    """Return the hash of a file's content; read once in a process unless it changes."""
    facts = path.stat()
    return _file_hash(path, facts.st_mtime_ns, facts.st_size)


@cache
def _file_hash(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000


def _differences(one: Mapping[str, Any], two: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys that both have, with other values; one that only one has came with other code."""
    for key in one.keys() & two.keys():
        if isinstance(one[key], Mapping) and isinstance(two[key], Mapping):
            yield from _differences(one[key], two[key], f"{prefix}{key}.")
        elif one[key] != two[key]:
            yield f"{prefix}{key}"
