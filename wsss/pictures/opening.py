"""The artifacts of one run, opened to be drawn."""

from __future__ import annotations

from pathlib import Path

from wsss.config import Params
from wsss.data.manifest import Manifest
from wsss.errors import UserError
from wsss.paths import Paths
from wsss.pictures.story import Story
from wsss.stages.threshold import operating_point


def open_story(params: Params, variant: str, seed: int) -> Story:
    """Open what a variant and seed has made so far.

    Raises UserError: nothing yet, or no such variant.
    """
    run, config = params.base.run, params.resolve(variant)
    paths = Paths(Path(run.results), run.dataset, variant, seed, params.owners(variant))
    if not paths.run.is_dir():
        raise UserError(f"{paths.run} does not exist: run a stage of this variant and seed first")
    root = config.data.root
    manifest = Manifest.load(paths.data, Path(root) if root else None)
    return Story(
        manifest,
        paths,
        _threshold("cam", config.cam.threshold, paths, manifest),
        config.walk.background == "threshold",
        _threshold("walk", config.walk.background_threshold, paths, manifest),
    )


def _threshold(
    what: str, configured: float | str, paths: Paths, manifest: Manifest
) -> float | None:
    """The threshold of the CAMs or of the walk; None if it is yet to be tuned."""
    if configured != "tune":
        return float(configured)
    tuned = paths.report(f"{what}_tune")
    return operating_point("tune", tuned, manifest.data_hash)[0] if tuned.is_file() else None
