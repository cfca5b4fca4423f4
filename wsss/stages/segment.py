"""Stage: train the segmentation network on pseudo masks or, supervised, on ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from wsss.artifacts import MaskStore
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import Batch, CropDataset, ReadMasks, shuffled_batches
from wsss.data.transforms import IGNORE
from wsss.engine.task import Losses, Progress, Task
from wsss.errors import UserError
from wsss.models.segmenters import Segmenter
from wsss.stages.importing import import_weights
from wsss.stages.networks import build_segmenter
from wsss.stages.training import padding, train


class SegmentationTask(Task):
    """Cross-entropy of a segmentation network against masks, ignoring 255."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network
        self.backbone = network.backbone

    def weight(self, batch: Batch) -> float:
        """Pixels that count: the mean is over those of the whole batch."""
        return float((batch["masks"] != IGNORE).sum())

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """Mean cross-entropy over labelled pixels; 0 where there are none."""
        masks: Tensor = batch["masks"][:, 0].long()
        logits = self.network(batch["image"]).float()
        logits = F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="sum")
        loss = total / (masks != IGNORE).sum().clamp(min=1)
        return Losses(loss, {"ce": loss})


def _supervision(context: Context) -> tuple[list[Item], ReadMasks, list[Path]]:
    """Return training images, how to read their masks, and the artifacts that hold them."""
    manifest = context.manifest
    items = manifest.role("train")
    if context.config.road == "supervised":
        # The one place where ground truth trains a network: the upper bound.
        bare = [item.id for item in items if item.mask is None]
        if bare:
            raise UserError(
                f"road 'supervised' needs a mask for every training image; {len(bare)} of "
                f"{len(items)} have none, such as {bare[0]!r}"
            )
        return items, lambda item: [manifest.read_mask(item)], []
    path = context.paths.store("pseudo", "masks")
    store = MaskStore(path)

    def read_pseudo(item: Item) -> Sequence[np.ndarray]:
        return [store.get(item.id)]

    return items, read_pseudo, [path]


def run(context: Context) -> None:
    """Train the segmentation network, or import a checkpoint in its place."""
    manifest, training = context.manifest, context.config.segment
    if training.checkpoint is not None:
        task = SegmentationTask(build_segmenter(context.config, manifest.num_classes + 1, False))
        import_weights(context, training.checkpoint, task, task.network)
        return
    items, read_masks, inputs = _supervision(context)
    network = build_segmenter(context.config, manifest.num_classes + 1, True, context.seed)
    task = SegmentationTask(network)
    fill = padding(network.backbone)
    dataset = CropDataset(manifest, items, training, context.seed, fill, read_masks)
    orders = shuffled_batches(len(items), training.batch, context.seed)
    train(context, task, dataset, orders, training, inputs)
