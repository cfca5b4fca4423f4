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
    kind: Literal["cams", "scores", "masks", "boxes"]
    tags: bool


EVALUATIONS = {
    "cam": Evaluation("cam", "maps", "seed", "cams", True),
    "cam_tune": Evaluation("cam", "maps", "tune", "cams", True),
    "boxes": Evaluation("cam", "maps", "seed", "boxes", True),
    "crf": Evaluation("seeds", "crf", "seed", "masks", True),
    "walk": Evaluation("walk", "scores", "seed", "scores", True),
    "pseudo": Evaluation("pseudo", "masks", "seed", "masks", True),
    "single": Evaluation("predict", "single", "val", "masks", False),
    "multi": Evaluation("predict", "scores", "val", "scores", False),
    "final": Evaluation("predict", "masks", "val", "masks", False),
}


def stage_of(what: str) -> str:
    """Return the stage name (its parameters and code) of an evaluation."""
    kinds = {"cams": "evaluate_cam", "boxes": "evaluate_boxes"}
    return kinds.get(EVALUATIONS[what].kind, "evaluate")


def wanted(config: Config) -> list[str]:
    """Return the evaluations a variant ends with: those whose artifact and masks exist."""
    boxes = ["boxes"] if config.evaluate.boxes and config.data.splits.tune is not None else []
    refined = ["walk"] if config.refine.method == "affinitynet" else []
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
