"""The run of one variant and seed: what it was, its headline scores, its network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from wsss.artifacts import load_json
from wsss.config import Config
from wsss.config.slices import SHARED
from wsss.paths import Paths
from wsss.pipeline import TRAINED
from wsss.stages.evaluations import wanted
from wsss.stages.ownership import passed_evaluations
from wsss.tracking.records import File, Metric, Network, Record, Times, digest, flatten, metric_name
from wsss.tracking.results import Results, file_hash
from wsss.tracking.stages import cost_metrics, revisions, scores

# What refinements are from; a method names its own paper.
REFINEMENTS = {
    "none": "",
    "affinitynet": "Ahn & Kwak, Learning Pixel-level Semantic Affinity with Image-level "
    "Supervision for Weakly Supervised Semantic Segmentation, CVPR 2018",
    "irnet": "Ahn, Cho & Kwak, Weakly Supervised Learning of Instance Segmentation with "
    "Inter-pixel Relations, CVPR 2019",
}
# Of these evaluations all scores are at hand beside each other, of the others the mIoU.
_WHOLE = ("final",)
_HEADLINES = ("miou", "oracle_miou", "threshold", "maxboxacc_v2")
# Keys that never change a result would make equal runs look different; those of the data do.
_LEFT_OUT = {*SHARED, "about", "report"} - {"data"}


def variant_record(
    results: Results, pictures: tuple[File, ...] = (), models: bool = True
) -> Record:
    """Return the run of a variant and seed."""
    config = results.config
    values = configuration(config)
    stages = [*results.stages, *(f"evaluate_{what}" for what in results.evaluations)]
    spans = [results.times(stage) for stage in stages]
    times = Times(min(span.began for span in spans), max(span.ended for span in spans))
    head = {"variant": results.variant, "seed": str(results.seed)}
    return Record(
        key=results.key,
        name=f"{results.variant}, seed {results.seed}",
        parent=None,
        complete=_complete(results),
        times=times,
        params={**head, **flatten(values)},
        tags=_tags(results, values, stages),
        metrics=tuple(_metrics(results, stages)),
        inputs=results.inputs("train", "seed", "tune", "val"),
        files=(_config_file(values), *pictures),
        network=_network(results) if models else None,
        links=results.shared,
        text=_description(config),
    )


def configuration(config: Config) -> dict[str, Any]:
    """Return every key that may change a result, as plain nested data."""
    values: dict[str, Any] = config.model_dump(exclude=_LEFT_OUT)
    # The folder's place on this machine is no property of the run.
    values["data"] = {key: value for key, value in values["data"].items() if key != "root"}
    return values


def _config_file(values: dict[str, Any]) -> File:
    data = yaml.safe_dump(values, sort_keys=False).encode()
    return File("config.yaml", digest(data), lambda: data)


def _complete(results: Results) -> bool:
    masks = results.paths.run / "predict" / "masks.zip"
    found = [results.report(what) for what in wanted(results.config)]
    return masks.is_file() and None not in found


# Scores


def _metrics(results: Results, stages: list[str]) -> Iterator[Metric]:
    final = None
    for what in passed_evaluations(results.config):
        report = results.report(what)
        if report is None:
            continue
        if what in _WHOLE:
            yield from scores(report, f"{what}_")
        else:
            heads = {name: report[name] for name in _HEADLINES if name in report}
            yield from scores(heads, f"{what}_")
        if what == "final":
            final = report["miou"]
            for row in results.table(what, "classes"):
                if row["iou"]:
                    yield Metric(metric_name(f"final_iou/{row['class']}"), float(row["iou"]))
    upper = _upper(results)
    if final is not None and upper:
        yield Metric("share_of_supervised", round(final / upper, 6))
    yield from cost_metrics([facts for stage in stages for _, facts in results.costs(stage)])


def _upper(results: Results) -> float | None:
    """The final score of the supervised twin with the same seed."""
    twin = results.params.twin(results.variant)
    if twin is None:
        return None
    owners = results.params.owners(twin)
    paths = Paths(results.paths.results, results.paths.dataset, twin, results.seed, owners)
    path = paths.metrics("final").with_name("final.json")
    report = load_json(path) if path.is_file() else {}
    same = report.get("data_hash") == results.about["data_hash"]
    return float(report["miou"]) if same else None


# Words


def _tags(results: Results, values: dict[str, Any], stages: list[str]) -> dict[str, str]:
    paper, status = _origin(results.config)
    jobs = [facts for stage in stages for _, facts in results.costs(stage)]
    changed = [
        f"{stage}: {', '.join(keys)}"
        for stage in results.stages
        if stage in TRAINED and (keys := results.differing(stage))
    ]
    tags = {
        "variant": results.variant,
        "seed": str(results.seed),
        "dataset": results.paths.dataset,
        "road": results.config.road,
        "paper": paper,
        "status": status,
        "git": revisions(jobs),
        "config_hash": digest(json.dumps(values, sort_keys=True).encode()),
        "data_hash": results.about["data_hash"],
        "supervised_twin": results.params.twin(results.variant) or "",
        "complete": "yes" if _complete(results) else "no",
        "other_params": "; ".join(changed),
        **{f"shared.{stage}": key for stage, key in results.shared.items()},
    }
    return {name: value for name, value in tags.items() if value}


def _origin(config: Config) -> tuple[str, str]:
    """Which papers a variant is from, and whether it follows them faithfully.

    A published recipe says so itself; one with deviations from its paper is a reconstruction.
    """
    if config.about is not None:
        return config.about.paper, "reconstruction" if config.about.deviations else "faithful"
    if config.road == "supervised":
        return "none: trained on masks, the bound that weak results are held against", "reference"
    from wsss.methods import load_method

    info = load_method(config.method.name).info
    papers = [info.paper_of(config.method.params)]
    if config.road == "two-stage":
        papers.append(REFINEMENTS[config.refine.method])
    return "; ".join(filter(None, papers)), info.status


def _description(config: Config) -> str:
    paper, status = _origin(config)
    lines = [f"{status}: {paper}"]
    if config.about is not None:
        lines += ["", config.about.title, *(f"- differs: {d}" for d in config.about.deviations)]
    return "\n".join(lines)


# The network


def _network(results: Results) -> Network | None:
    """The network that predicts, with its scales and its CRF."""
    config = results.config
    stage = "classify" if config.road == "single-stage" else "segment"
    weights: Path = results.paths.weights(stage)
    if not weights.is_file():
        return None
    settings = {"predict": config.predict.model_dump(), "crf": config.crf.model_dump()}
    return Network(weights, file_hash(weights), settings)
