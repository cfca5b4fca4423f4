"""What is scored against ground truth, on which split, and by which rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from wsss.config import Config


class Evaluation(NamedTuple):
    """One evaluation: the artifact (stage folder and store name), the role, the kind.

    ``tags`` says whether image-level tags helped to make the artifact.
    """

    stage: str
    store: str
    role: Literal["seed", "tune", "val"]
    kind: Literal["cams", "scores", "masks"]
    tags: bool


EVALUATIONS = {
    "cam": Evaluation("cam", "maps", "seed", "cams", True),
    "cam_tune": Evaluation("cam", "maps", "tune", "cams", True),
    "crf": Evaluation("seeds", "crf", "seed", "masks", True),
    "walk": Evaluation("walk", "scores", "seed", "scores", True),
    "pseudo": Evaluation("pseudo", "masks", "seed", "masks", True),
    "single": Evaluation("predict", "single", "val", "masks", False),
    "multi": Evaluation("predict", "scores", "val", "scores", False),
    "final": Evaluation("predict", "masks", "val", "masks", False),
}


def stage_of(what: str) -> str:
    """Return the stage name (its parameters and code) of an evaluation."""
    return "evaluate_cam" if EVALUATIONS[what].kind == "cams" else "evaluate"


def wanted(config: Config) -> list[str]:
    """Return the evaluations a variant ends with: those whose artifact and masks exist."""
    if config.segment.checkpoint is not None and config.road != "single-stage":
        # Nothing before an imported segmentation network is made.
        return ["single", "multi", "final"] if config.data.splits.val is not None else []
    refined = ["walk"] if config.refine.method == "affinitynet" else []
    made = {
        "two-stage": ["cam", "cam_tune", "crf", *refined, "pseudo", "single", "multi", "final"],
        "single-stage": ["cam", "cam_tune", "crf", "single", "multi", "final"],
        "supervised": ["single", "multi", "final"],
    }[config.road]
    splits = config.data.splits
    return [what for what in made if getattr(splits, EVALUATIONS[what].role) is not None]


def imported_stages(config: Config, evaluation: Evaluation) -> list[str]:
    """Return the stages behind an artifact whose networks come from a checkpoint."""
    predicted = evaluation.stage == "predict" and config.road != "single-stage"
    if predicted and config.segment.checkpoint is not None:
        return ["segment"]
    classified = config.road != "supervised" and config.classify.checkpoint is not None
    return ["classify"] if classified else []
