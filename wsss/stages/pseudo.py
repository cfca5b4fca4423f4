"""Stage: pseudo masks, what the segmentation network is trained on."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np

from wsss.artifacts import ArrayStore, atomic_path
from wsss.context import Context
from wsss.data.images import IGNORE
from wsss.refine.crf import CrfParams
from wsss.stages.background import add_background, background_threshold
from wsss.stages.crf import scores_of
from wsss.stages.refining import Job, crf_params, jobs, write_maps


def pseudo_mask(
    job: Job, params: CrfParams | None, ignore_below: float, threshold: float | None
) -> list[np.ndarray]:
    """Return the (H, W) mask of class scores, after a CRF if ``params`` are given.

    Args:
        ignore_below: a pixel whose best score is a smaller share of all its scores becomes 255.
        threshold: score of the background where the store holds none.
    """
    job = add_background(job, threshold)
    scores = scores_of(job, params)
    mask = np.array(job.entry.classes, np.uint8)[scores.argmax(0)]
    if ignore_below:
        # Multiplied and not divided: scores can all be 0, and such a pixel is ignored, too.
        best, total = scores.max(0), scores.sum(0)
        mask[(best < ignore_below * total) | (total <= 0)] = IGNORE
    return [mask]


def run(context: Context, out: Path) -> None:
    """Write pseudo masks from walked scores, or from the CRF seeds where nothing refines them."""
    config, manifest = context.config, context.manifest
    with context.recording(out):
        if config.refine.method == "none":
            with atomic_path(out) as temporary:
                shutil.copyfile(context.paths.store("seeds", "crf"), temporary)
            return
        items = manifest.union("train", "seed")
        store = ArrayStore(context.paths.store("walk", "scores"))
        params = crf_params(config.pseudo.crf_params) if config.pseudo.crf else None
        work = jobs(manifest, items, store)
        function = partial(
            pseudo_mask,
            params=params,
            ignore_below=config.pseudo.ignore_below,
            threshold=background_threshold(context),
        )
        write_maps(function, work, len(items), [out], config.resources.processes, "pseudo")
