"""Which files each stage leaves, and which images it works on."""

from __future__ import annotations

from wsss.pipeline import TRAINED
from wsss.stages.evaluations import EVALUATIONS

# Folder below the run, and what the stage has made there when it is done.
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
_REPORTED = ("predict", "crf")


def roles_of(stage: str) -> tuple[str, ...]:
    """Return the roles whose lists a stage, or ``evaluate_WHAT``, works on."""
    what = stage.removeprefix("evaluate_")
    if what != stage:
        role = EVALUATIONS[what].role
        return ("seed", "tune") if what == "boxes" else (role,)
    if stage in TRAINED:
        return ("train",)
    return ("val",) if stage in _REPORTED else ("train", "seed", "tune")
