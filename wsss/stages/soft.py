"""Stage: soft pseudo labels, the class scores that a segmentation network can learn from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from wsss.artifacts import ArrayStore, ArrayStoreWriter
from wsss.context import Context
from wsss.inference.progress import resumable
from wsss.parallel import ordered_map
from wsss.refine.crf import CrfParams, crf_labels, threshold_labels
from wsss.refine.crf_config import crf_params
from wsss.refine.resize import resize_bilinear
from wsss.stages.background import add_background, background_threshold
from wsss.stages.crf import scores_of
from wsss.stages.refining import Job, jobs
from wsss.stages.threshold import operating_point


class Soft(NamedTuple):
    """(K, h, w) float32 scores of the classes with ids ``classes`` in masks."""

    array: np.ndarray
    classes: list[int]
    size: tuple[int, int]


class Source(NamedTuple):
    """Stored maps, what makes soft labels of them, and further artifacts it depends on."""

    store: ArrayStore
    function: Callable[[Job], Soft]
    tuned: list[Path]


def soft_scores(
    job: Job, params: CrfParams | None, stride: int, threshold: float | None = None
) -> Soft:
    """Return stored class scores, after a CRF if ``params`` are given, at the label stride.

    They are not normalised: MuSCLe compares the scores themselves, the constant of the background
    among them (official code). Who needs probabilities divides them
    (:func:`wsss.data.transforms.shares`).

    Args:
        threshold: the score of the background where the store holds none.
    """
    job = add_background(job, threshold)
    entry = job.entry
    scores = entry.array if params is None else scores_of(job, params)
    grid = _grid(entry.size, stride)
    return Soft(resize_bilinear(scores, grid), entry.classes, entry.size)


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
    return Soft(resize_bilinear(refined, grid), classes, size)


def _grid(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def run(context: Context, out: Path) -> None:
    """Write scores of background and present classes, as float16 at the label stride."""
    items = context.manifest.union("train", "seed")
    refined = context.config.refine.method != "none"
    store, function, tuned = (_from_walk if refined else _from_seeds)(context)
    with resumable(context, {out: ArrayStoreWriter}, items, [store.path, *tuned]) as progress:
        work = jobs(context.manifest, progress.todo, store)
        # Closed at once on an error, so that no worker goes on for nothing.
        with closing(ordered_map(function, work, context.config.resources.processes)) as results:
            bar = tqdm(results, total=len(progress.todo), desc="soft", disable=None)
            for identifier, soft in bar:
                progress.add(identifier, (soft.array, soft.classes, soft.size))


def _from_seeds(context: Context) -> Source:
    """Label CRF of the thresholded CAMs."""
    config = context.config
    report = context.paths.metrics("cam_tune").with_suffix(".json")
    data_hash = context.manifest.data_hash
    threshold, origin = operating_point(config.cam.threshold, report, data_hash)
    function = partial(
        soft_seeds,
        threshold=threshold,
        confidence=config.seeds.label_confidence,
        params=crf_params(config.seeds.label_crf),
        stride=config.segment.label_stride,
    )
    tuned = [report] if origin == "tune" else []
    return Source(ArrayStore(context.paths.store("cam", "maps")), function, tuned)


def _from_walk(context: Context) -> Source:
    """Walked scores."""
    config = context.config
    params = crf_params(config.pseudo.crf_params) if config.pseudo.crf else None
    threshold, tuned = background_threshold(context)
    stride = config.segment.label_stride
    function = partial(soft_scores, params=params, stride=stride, threshold=threshold)
    return Source(ArrayStore(context.paths.store("walk", "scores")), function, tuned)
