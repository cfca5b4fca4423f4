"""Stage: what is scored against ground truth, on which split, and by which rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from wsss.context import Context
from wsss.stages import evaluate


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
    "cam": Evaluation("cam", "train", "seed", "cams", True),
    "cam_tune": Evaluation("cam", "train", "tune", "cams", True),
    "crf": Evaluation("seeds", "crf", "seed", "masks", True),
    "walk": Evaluation("walk", "train", "seed", "scores", True),
    "pseudo": Evaluation("pseudo", "train", "seed", "masks", True),
    "single": Evaluation("predict", "val.single", "val", "masks", False),
    "multi": Evaluation("predict", "val.scores", "val", "scores", False),
    "final": Evaluation("predict", "val", "val", "masks", False),
}


def stage_of(what: str) -> str:
    """Return the stage name (its parameters and code) of an evaluation."""
    return "evaluate_cam" if EVALUATIONS[what].kind == "cams" else "evaluate"


def run(context: Context, what: str) -> None:
    """Score one artifact; writes the metrics files."""
    evaluation, config = EVALUATIONS[what], context.config
    manifest, paths = context.manifest, context.paths
    store = paths.store(evaluation.stage, evaluation.store)
    out = paths.metrics(what)
    about = evaluate.About(
        dataset=paths.dataset, variant=context.variant, seed=context.seed, what=what
    )
    processes = config.resources.processes
    tolerance = config.evaluate.boundary_tolerance
    with context.recording(out):
        if what == "cam_tune":
            evaluate.tune_cams(
                manifest, store, out, about, bins=config.evaluate.bins, processes=processes
            )
        elif evaluation.kind == "cams":
            evaluate.evaluate_cams(
                manifest,
                store,
                evaluation.role,
                out,
                about,
                threshold=config.cam.threshold,
                tuned=paths.metrics("cam_tune").with_suffix(".json"),
                bins=config.evaluate.bins,
                boundary_tolerance=tolerance,
                processes=processes,
            )
        else:
            function = (
                evaluate.evaluate_masks if evaluation.kind == "masks" else evaluate.evaluate_scores
            )
            function(
                manifest,
                store,
                evaluation.role,
                out,
                about,
                tags_used=evaluation.tags,
                boundary_tolerance=tolerance,
                processes=processes,
            )
