"""The stages of the pipeline: which of them a variant goes through, and what each leaves."""

from __future__ import annotations

from wsss.config import Config
from wsss.stages.evaluations import stage_of, wanted

# Stages whose network trains.
TRAINED = ("classify", "affinity", "irnet", "segment")
# Folder below the run, and what the stage has made there when it is done; the first one's name is
# that of the record of its job, too.
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "classify": ("classify", ("weights.safetensors", "curve.csv")),
    "cam": ("cam", ("maps.zip",)),
    "seeds_alpha": ("seeds", ("low.zip", "high.zip")),
    "seeds_confident": ("seeds", ("confident.zip",)),
    "seeds_label": ("seeds", ("crf.zip",)),
    "affinity": ("affinity", ("weights.safetensors", "curve.csv")),
    "irnet": ("irnet", ("weights.safetensors", "curve.csv")),
    "edges": ("irnet", ("edges.zip",)),
    "walk": ("walk", ("scores.zip",)),
    "pseudo": ("pseudo", ("masks.zip",)),
    "soft": ("pseudo", ("scores.zip",)),
    "segment": ("segment", ("weights.safetensors", "curve.csv")),
    "predict": ("predict", ("scores.zip", "single.zip")),
    "crf": ("predict", ("masks.zip",)),
}
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
