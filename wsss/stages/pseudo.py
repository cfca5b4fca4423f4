"""Stage: pseudo masks, what the segmentation network is trained on."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np

from wsss.atomic import atomic_path
from wsss.context import Context
from wsss.refine.crf import CrfParams
from wsss.refine.crf_config import crf_params
from wsss.stages.background import add_background, background_threshold
from wsss.stages.crf import refine
from wsss.stages.refining import Job, write_maps


def pseudo_mask(job: Job, params: CrfParams | None, threshold: float | None) -> list[np.ndarray]:
    """Return the (H, W) mask of class scores, after a CRF if ``params`` are given.

    ``threshold`` is the score of the background where the store holds none.
    """
    return refine(add_background(job, threshold), params)


def run(context: Context, out: Path) -> None:
    """Write pseudo masks from walked scores, or from the CRF seeds where nothing refines them."""
    config, manifest = context.config, context.manifest
    if config.refine.method == "none":
        with context.recording(out), atomic_path(out) as temporary:
            shutil.copyfile(context.paths.store("seeds", "crf"), temporary)
        return
    items = manifest.seeded()
    params = crf_params(config.pseudo.crf_params) if config.pseudo.crf else None
    threshold, tuned = background_threshold(context)
    function = partial(pseudo_mask, params=params, threshold=threshold)
    write_maps(context, function, items, context.paths.store("walk", "scores"), [out], tuned)
