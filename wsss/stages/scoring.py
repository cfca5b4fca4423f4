"""Stage: score one artifact against ground truth."""

from __future__ import annotations

from wsss.atomic import together
from wsss.context import Context
from wsss.stages import evaluate
from wsss.stages.evaluations import EVALUATIONS


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
    with context.recording(out), together():
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
