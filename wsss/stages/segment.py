"""Stage: train the segmentation network on pseudo masks or, supervised, on ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsss.artifacts import ArrayStore, MaskStore
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import CropDataset, ReadMasks, SoftLabels, shuffled_batches
from wsss.data.transforms import shares
from wsss.errors import UserError
from wsss.labels import IGNORE
from wsss.networks.segmenter import build_segmenter
from wsss.refine.resize import resize_bilinear
from wsss.stages.importing import import_weights
from wsss.stages.training import labelled, padding, train
from wsss.tasks.segmentation import SegmentationTask


class Supervision(NamedTuple):
    """Training images, what they are labelled with, and the artifacts that hold it."""

    items: list[Item]
    read_masks: ReadMasks | None
    soft: SoftLabels | None
    inputs: list[Path]


def _supervision(context: Context) -> Supervision:
    manifest, config = context.manifest, context.config
    items = labelled(manifest.role("train"))
    if config.road == "supervised":
        # The one place where ground truth trains a network: the upper bound.
        bare = [item.id for item in items if item.mask is None]
        if bare:
            raise UserError(
                f"road 'supervised' needs a mask for every training image; {len(bare)} of "
                f"{len(items)} have none, such as {bare[0]!r}"
            )
        return Supervision(items, lambda item: [manifest.read_mask(item)], None, [])
    hard, probable = (context.paths.store("pseudo", name) for name in ("masks", "scores"))
    labels, soft = config.segment.labels, None
    if labels != "hard":
        classes, stride = manifest.num_classes + 1, config.segment.label_stride
        # What is trained on must be probabilities; what is compared are scores (MuSCLe).
        soft = SoftLabels(ArrayStore(probable), classes, stride, raw=labels == "both")
    if labels == "soft":
        return Supervision(items, None, soft, [probable])
    masks, least = MaskStore(hard), config.segment.ignore_below
    if not least:
        inputs = [hard, probable] if soft else [hard]
        return Supervision(items, lambda item: [masks.get(item.id)], soft, inputs)
    scores = ArrayStore(probable)

    def read_sure(item: Item) -> Sequence[np.ndarray]:
        return [without_unsure(masks.get(item.id), scores.get(item.id).array, least)]

    return Supervision(items, read_sure, soft, [hard, probable])


def without_unsure(mask: np.ndarray, scores: np.ndarray, least: float) -> np.ndarray:
    """Return an (H, W) mask with 255 where the best of (K, h, w) scores, as probabilities and at
    the mask's size, is below ``least``."""
    best = resize_bilinear(shares(scores).max(0)[None], (mask.shape[0], mask.shape[1]))[0]
    return np.where(best < least, IGNORE, mask).astype(np.uint8)


def run(context: Context) -> None:
    """Train the segmentation network, or import a checkpoint in its place."""
    manifest, training = context.manifest, context.config.segment
    if training.checkpoint is not None:
        task = SegmentationTask(build_segmenter(context.config, manifest.num_classes + 1, False))
        import_weights(context, training.checkpoint, task, task.network)
        return
    task, dataset, orders, inputs = prepare(context)
    train(context, task, dataset, orders, training, inputs)


def prepare(
    context: Context,
) -> tuple[SegmentationTask, CropDataset, Callable[[int], list[list[int]]], list[Path]]:
    """Return the network with its objective, before training, its crops in their order, and the
    artifacts that hold their labels."""
    manifest, training = context.manifest, context.config.segment
    items, read_masks, soft, inputs = _supervision(context)
    network = build_segmenter(context.config, manifest.num_classes + 1, True, context.seed)
    balanced, by_scores = training.loss == "balanced", read_masks is None
    most = max(len(item.labels) for item in items)
    task = SegmentationTask(network, balanced, by_scores, training.msc, training.boundary, most)
    fill = padding(network.backbone)
    dataset = CropDataset(manifest, items, training, context.seed, fill, read_masks, soft)
    orders = shuffled_batches(len(items), training.batch, context.seed)
    return task, dataset, orders, inputs
