"""Stage: pseudo masks, what the segmentation network is trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from wsss.artifacts import ArrayStore, atomic_path
from wsss.context import Context
from wsss.refine.crf import CrfParams, crf_probabilities
from wsss.refine.resize import resize_bilinear
from wsss.stages.crf import refine
from wsss.stages.refining import Job, crf_params, jobs, write_maps
from wsss.stages.seeds import class_ids
from wsss.stages.threshold import operating_point


def cut(job: Job, threshold: float, params: CrfParams | None) -> list[np.ndarray]:
    """Return the (H, W) mask of class scores over a constant background score.

    Source: Ahn et al., CVPR 2019, section 5.
    """
    scores = resize_bilinear(job.entry.array, job.entry.size)
    plane = np.full((1, *job.entry.size), threshold, np.float32)
    scores = np.concatenate([plane, scores])
    if params is not None:
        scores = crf_probabilities(job.image, scores, params)
    return [class_ids(scores.argmax(0), job.entry.classes)]


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
        function: Callable[[Job], list[np.ndarray]]
        if config.walk.background == "alpha":
            function = partial(refine, params=params)
        else:
            tuned = context.paths.metrics("walk_tune").with_suffix(".json")
            configured = config.walk.background_threshold
            threshold, _ = operating_point(configured, tuned, manifest.data_hash)
            function = partial(cut, threshold=threshold, params=params)
        write_maps(function, work, len(items), [out], config.resources.processes, "pseudo")
