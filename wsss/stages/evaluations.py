"""What is scored against ground truth, on which split, and by which rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from wsss.config import Config


class Evaluation(NamedTuple):
    """One evaluation: the artifact (stage folder and store name), the role, the kind.

    ``cams`` are cut at a threshold, ``scores`` have a background of their own; a ``walk`` is one or
    the other, as ``walk.background`` says. ``tags`` says whether image-level tags helped to make
    the artifact.
    """

    stage: str
    store: str
    role: Literal["seed", "tune", "val"]
    kind: Literal["cams", "walk", "scores", "masks", "boxes"]
    tags: bool


EVALUATIONS = {
    "cam": Evaluation("cam", "maps", "seed", "cams", True),
    "cam_tune": Evaluation("cam", "maps", "tune", "cams", True),
    "boxes": Evaluation("cam", "maps", "seed", "boxes", True),
    "crf": Evaluation("seeds", "crf", "seed", "masks", True),
    "walk": Evaluation("walk", "scores", "seed", "walk", True),
    "walk_tune": Evaluation("walk", "scores", "tune", "walk", True),
    "pseudo": Evaluation("pseudo", "masks", "seed", "masks", True),
    "single": Evaluation("predict", "single", "val", "masks", False),
    "multi": Evaluation("predict", "scores", "val", "scores", False),
    "final": Evaluation("predict", "masks", "val", "masks", False),
}


def stage_of(what: str) -> str:
    """Return the stage name (its parameters and code) of an evaluation."""
    kinds = {"cams": "evaluate_cam", "walk": "evaluate_walk", "boxes": "evaluate_boxes"}
    return kinds.get(EVALUATIONS[what].kind, "evaluate")


def tuned_by(what: str, config: Config) -> str | None:
    """Return the evaluation that tunes the threshold of ``what``, if one does."""
    kind = EVALUATIONS[what].kind
    if what.endswith("_tune"):
        return None
    if kind == "cams" and config.cam.threshold == "tune":
        return "cam_tune"
    if kind == "walk" and walk_tuned(config):
        return "walk_tune"
    return None


def walk_tuned(config: Config) -> bool:
    """Whether the background of walked scores is cut at a threshold chosen on the tune list."""
    walk = config.walk
    return walk.background == "threshold" and walk.background_threshold == "tune"


def wanted(config: Config) -> list[str]:
    """Return the evaluations a variant ends with: those whose artifact and masks exist."""
    if config.segment.checkpoint is not None and config.road != "single-stage":
        # Nothing before an imported segmentation network is made.
        return ["single", "multi", "final"] if config.data.splits.val is not None else []
    boxes = ["boxes"] if config.evaluate.boxes and config.data.splits.tune is not None else []
    refined = [] if config.refine.method == "none" else ["walk"]
    if refined and config.walk.background == "threshold":
        refined.insert(0, "walk_tune")
    made = {
        "two-stage": [
            "cam",
            "cam_tune",
            *boxes,
            "crf",
            *refined,
            "pseudo",
            "single",
            "multi",
            "final",
        ],
        "single-stage": ["cam", "cam_tune", *boxes, "crf", "single", "multi", "final"],
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
