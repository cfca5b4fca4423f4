"""Stage: dense CRF on predictions, the final masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from wsss.context import Context
from wsss.refine.crf import ScoreCrf, refine_scores
from wsss.refine.crf_config import optional_crf
from wsss.refine.resize import resize_bilinear
from wsss.stages.refining import Job, take_shard, write_maps


def scores_of(job: Job, params: ScoreCrf | None) -> np.ndarray:
    """Return (K, H, W) class scores at image size, after a CRF if ``params`` are given."""
    scores = resize_bilinear(job.entry.array, job.entry.size)
    return scores if params is None else refine_scores(job.image, scores, params)


def refine(job: Job, params: ScoreCrf | None) -> list[np.ndarray]:
    """Return the (H, W) mask of class scores, after a CRF if ``params`` are given.

    The stored classes (ids 0..C) are those that the network itself scores; no tag is read.
    """
    return [np.array(job.entry.classes, np.uint8)[scores_of(job, params).argmax(0)]]


def run(context: Context, out: Path, shard: tuple[int, int] = (0, 1)) -> None:
    """Write the final masks of the predicted images."""
    config, manifest = context.config, context.manifest
    items = take_shard(manifest.role("val" if config.data.splits.val else "train"), shard)
    function = partial(refine, params=optional_crf(config.crf, manifest.num_classes + 1))
    write_maps(context, function, items, context.paths.store("predict", "scores"), [out])
