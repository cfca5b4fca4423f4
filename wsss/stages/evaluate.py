"""Stage: score one artifact against ground truth."""

from __future__ import annotations

from wsss.artifacts import weights_meta
from wsss.atomic import together
from wsss.context import Context
from wsss.stages import scored_stores
from wsss.stages.evaluations import EVALUATIONS, Evaluation, imported_stages


def _imported(context: Context, evaluation: Evaluation) -> str:
    """Return the layouts and hashes of the imported networks behind an artifact."""
    parts = []
    for stage in imported_stages(context.config, evaluation):
        facts = weights_meta(context.paths.weights(stage))["imported"]
        parts.append(f"{stage}: {facts['layout']} (sha256 {facts['sha256']})")
    return "; ".join(parts)


def run(context: Context, what: str) -> None:
    """Score one artifact; writes the metrics files."""
    evaluation, config = EVALUATIONS[what], context.config
    manifest, paths = context.manifest, context.paths
    store = paths.store(evaluation.stage, evaluation.store)
    out = paths.metrics(what)
    about = scored_stores.About(
        dataset=paths.dataset,
        variant=context.variant,
        seed=context.seed,
        what=what,
        imported=_imported(context, evaluation),
    )
    processes = config.resources.processes
    with context.recording(out), together():
        kind = evaluation.kind
        if kind == "walk":
            kind = "cams" if config.walk.background == "threshold" else "scores"
        if what.endswith("_tune"):
            scored_stores.tune_cams(
                manifest, store, out, about, bins=config.evaluate.bins, processes=processes
            )
        elif kind == "cams":
            walk = evaluation.kind == "walk"
            threshold = config.walk.background_threshold if walk else config.cam.threshold
            scored_stores.evaluate_cams(
                manifest,
                store,
                evaluation.role,
                out,
                about,
                threshold=threshold,
                tuned=paths.report(f"{what}_tune"),
                bins=config.evaluate.bins,
                boundary_tolerance=config.evaluate.boundary_tolerance,
                processes=processes,
            )
        else:
            function = (
                scored_stores.evaluate_masks if kind == "masks" else scored_stores.evaluate_scores
            )
            function(
                manifest,
                store,
                evaluation.role,
                out,
                about,
                tags_used=evaluation.tags,
                boundary_tolerance=config.evaluate.boundary_tolerance,
                processes=processes,
            )
