"""The stages of the pipeline: which of them a variant goes through, and what kinds there are."""

from __future__ import annotations

from wsss.config import Config
from wsss.stages.evaluations import stage_of, wanted

# Stages whose network trains.
TRAINED = ("classify", "affinity", "irnet", "segment")
_REFINED = {
    "none": ("seeds_label",),
    "affinitynet": ("seeds_alpha", "affinity", "walk"),
    "irnet": ("seeds_confident", "irnet", "edges", "walk"),
}


def stages_run(config: Config) -> list[str]:
    """The stages that a variant's result goes through, its evaluations included."""
    evaluations = wanted(config)
    stages = ["predict", "crf", *dict.fromkeys(map(stage_of, evaluations))]
    if config.road == "single-stage":
        stages = ["classify", "cam", *stages]
    else:
        stages = ["segment", *stages]
        if config.road == "two-stage" and config.segment.checkpoint is None:
            soft = config.segment.labels != "hard" or config.segment.ignore_below > 0
            refined = _REFINED[config.refine.method]
            stages = ["classify", "cam", *refined, "pseudo", *(["soft"] if soft else []), *stages]
    if "crf" in evaluations and "seeds_label" not in stages:
        stages.append("seeds_label")
    return stages
