"""Stage: CRF seeds from CAMs, for AffinityNet (alpha), IRNet (confident) or as masks (label)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss.context import Context
from wsss.labels import IGNORE
from wsss.refine.crf import (
    CrfParams,
    alpha_scores,
    crf_labels,
    crf_probabilities,
    threshold_labels,
)
from wsss.refine.crf_config import crf_params
from wsss.refine.resize import resize_bilinear
from wsss.stages.refining import Job, take_shard, write_maps
from wsss.stages.threshold import operating_point


def class_ids(channels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Turn channel numbers (0 background, 1.. stored classes 0..C-1) into mask ids 0..C."""
    table = np.array([0, *(c + 1 for c in classes)], np.uint8)
    ids: np.ndarray = table[channels]
    return ids


def alpha_seeds(job: Job, alphas: Sequence[float], params: CrfParams) -> list[np.ndarray]:
    """Return one (H, W) mask an alpha: the CRF's best label, background (1 - max)^alpha.

    Source: Ahn & Kwak, CVPR 2018, section 3.2 (seeds of confident objects and background).
    """
    size, classes = job.entry.size, job.entry.classes
    if not classes:
        return [np.zeros(size, np.uint8) for _ in alphas]
    cams = resize_bilinear(job.entry.array, size)
    refined = (crf_probabilities(job.image, alpha_scores(cams, a), params) for a in alphas)
    return [class_ids(probabilities.argmax(0), classes) for probabilities in refined]


def label_seeds(
    job: Job, threshold: float, confidence: float, params: CrfParams
) -> list[np.ndarray]:
    """Return the (H, W) mask of a CRF on the hard labels of a thresholded CAM.

    Source: Ahn et al., CVPR 2019, section 3 (label CRF of the seeds).
    """
    size, classes = job.entry.size, job.entry.classes
    if not classes:
        return [np.zeros(size, np.uint8)]
    labels = threshold_labels(resize_bilinear(job.entry.array, size), threshold)
    refined = crf_labels(job.image, labels, len(classes) + 1, confidence, params)
    return [class_ids(refined.argmax(0), classes)]


def confident_seeds(
    job: Job, foreground: float, background: float, confidence: float, params: CrfParams
) -> list[np.ndarray]:
    """Return the (H, W) mask of what two label CRFs agree on; 255 where they do not.

    Source: Ahn et al., CVPR 2019, section 3 and the published code: foreground from the CAM cut
    at ``foreground``, background where the CAM cut at ``background`` has none.
    """
    (strict,) = label_seeds(job, foreground, confidence, params)
    (generous,) = label_seeds(job, background, confidence, params)
    return [np.where(strict > 0, strict, np.where(generous == 0, 0, IGNORE)).astype(np.uint8)]


def run_confident(context: Context, out: Path, shard: tuple[int, int] = (0, 1)) -> None:
    """Write the confident seeds of the training images; classes come from the tags."""
    config = context.config
    items = take_shard(context.manifest.seeded(), shard)
    function = partial(
        confident_seeds,
        foreground=config.seeds.confident_fg,
        background=config.seeds.confident_bg,
        confidence=config.seeds.label_confidence,
        params=crf_params(config.seeds.label_crf),
    )
    write_maps(context, function, items, context.paths.store("cam", "maps"), [out])


def run_alpha(context: Context, low: Path, high: Path, shard: tuple[int, int] = (0, 1)) -> None:
    """Write both alpha seeds of the training images; classes come from the tags."""
    config = context.config
    items = take_shard(context.manifest.seeded(), shard)
    alphas = (config.seeds.alpha_low, config.seeds.alpha_high)
    function = partial(alpha_seeds, alphas=alphas, params=crf_params(config.seeds.alpha_crf))
    write_maps(context, function, items, context.paths.store("cam", "maps"), [low, high])


def run_label(context: Context, out: Path, shard: tuple[int, int] = (0, 1)) -> None:
    """Write the label-CRF masks of the training images; classes come from the tags."""
    config, manifest = context.config, context.manifest
    items = take_shard(manifest.seeded(), shard)
    tuned = context.paths.report("cam_tune")
    threshold, _ = operating_point(config.cam.threshold, tuned, manifest.data_hash)
    function = partial(
        label_seeds,
        threshold=threshold,
        confidence=config.seeds.label_confidence,
        params=crf_params(config.seeds.label_crf),
    )
    inputs = [tuned] if config.cam.threshold == "tune" else []
    write_maps(context, function, items, context.paths.store("cam", "maps"), [out], inputs)
