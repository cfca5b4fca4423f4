"""Stage: soft pseudo labels, the class probabilities that a segmentation network can learn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from wsss.artifacts import ArrayStore, ArrayStoreWriter
from wsss.context import Context
from wsss.parallel import ordered_map
from wsss.refine.crf import CrfParams, crf_labels, threshold_labels
from wsss.refine.resize import resize_bilinear
from wsss.stages.background import add_background, background_threshold
from wsss.stages.crf import scores_of
from wsss.stages.refining import Job, crf_params, jobs
from wsss.stages.threshold import operating_point


class Soft(NamedTuple):
    """(K, h, w) float32 probabilities of the classes with ids ``classes`` in masks."""

    array: np.ndarray
    classes: list[int]
    size: tuple[int, int]


def normalised(scores: np.ndarray) -> np.ndarray:
    """Divide (K, h, w) non-negative scores by their sum over K; where that is 0 they stay 0."""
    total = scores.sum(0, keepdims=True)
    shares: np.ndarray = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
    return shares


def soft_scores(
    job: Job, params: CrfParams | None, stride: int, threshold: float | None = None
) -> Soft:
    """Return stored class scores, after a CRF if ``params`` are given, as probabilities.

    ``threshold`` is the score of the background where the store holds none.
    """
    job = add_background(job, threshold)
    entry = job.entry
    scores = entry.array if params is None else scores_of(job, params)
    grid = _grid(entry.size, stride)
    return Soft(normalised(resize_bilinear(scores, grid)), entry.classes, entry.size)


def soft_seeds(
    job: Job, threshold: float, confidence: float, params: CrfParams, stride: int
) -> Soft:
    """Return the probabilities of the label CRF that makes the CAM's hard seeds."""
    size, classes = job.entry.size, [0, *(c + 1 for c in job.entry.classes)]
    grid = _grid(size, stride)
    if len(classes) == 1:
        return Soft(np.ones((1, *grid), np.float32), classes, size)
    labels = threshold_labels(resize_bilinear(job.entry.array, size), threshold)
    refined = crf_labels(job.image, labels, len(classes), confidence, params)
    return Soft(normalised(resize_bilinear(refined, grid)), classes, size)


def _grid(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def run(context: Context, out: Path) -> None:
    """Write probabilities of background and present classes, as float16 at the label stride."""
    config, manifest = context.config, context.manifest
    stride = config.segment.label_stride
    items = manifest.union("train", "seed")
    if config.refine.method == "none":
        store = ArrayStore(context.paths.store("cam", "maps"))
        tuned = context.paths.metrics("cam_tune").with_suffix(".json")
        threshold, _ = operating_point(config.cam.threshold, tuned, manifest.data_hash)
        function = partial(
            soft_seeds,
            threshold=threshold,
            confidence=config.seeds.label_confidence,
            params=crf_params(config.seeds.label_crf),
            stride=stride,
        )
    else:
        store = ArrayStore(context.paths.store("walk", "scores"))
        params = crf_params(config.pseudo.crf_params) if config.pseudo.crf else None
        function = partial(
            soft_scores, params=params, stride=stride, threshold=background_threshold(context)
        )
    with context.recording(out), ArrayStoreWriter(out) as writer:
        work = jobs(manifest, items, store)
        results: Iterator[tuple[str, Soft]] = ordered_map(
            function, work, config.resources.processes
        )
        for identifier, soft in tqdm(results, total=len(items), desc="soft", disable=None):
            writer.add(identifier, soft.array, soft.classes, soft.size)
