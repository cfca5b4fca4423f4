"""Stage: train the segmentation network on pseudo masks or, supervised, on ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.artifacts import ArrayStore, MaskStore
from wsss.config.schema import Boundary
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import Batch, CropDataset, ReadMasks, SoftLabels, shuffled_batches
from wsss.data.transforms import IGNORE, shares
from wsss.engine.task import Losses, NetworkTask, Progress
from wsss.errors import UserError
from wsss.losses.boundary_contrast import BoundaryContrast, boundary_contrast
from wsss.losses.segmentation import hard_sizes, hard_sums, mean_of_groups, soft_sizes, soft_sums
from wsss.models.dense import Dense
from wsss.models.pyramid import pyramid_logits
from wsss.models.segmenters import Segmenter
from wsss.refine.resize import resize_bilinear
from wsss.stages.classify import labelled
from wsss.stages.importing import import_weights
from wsss.stages.networks import build_segmenter
from wsss.stages.training import padding, train

# How many images a batch has, among the sizes of a loss.
IMAGES = "images"


class SegmentationTask(NetworkTask[Segmenter]):
    """Cross-entropy of a segmentation network against pseudo masks or their probabilities.

    Args:
        network: maps (B, 3, H, W) to logits (B, K, h, w).
        balanced: background and foreground weigh half each, however large they are.
        soft: the labels are probabilities at a coarser grid, not masks.
        msc: scales of an image pyramid beside 1, see :func:`pyramid_logits`; each scale and their
            maximum have the loss.
        boundary: contrast of features across object boundaries, at scale 1, beside the
            cross-entropy. It compares by scores or probabilities where the batch has them, by masks
            otherwise.
    """

    def __init__(
        self,
        network: Segmenter,
        balanced: bool = False,
        soft: bool = False,
        msc: Sequence[float] | None = None,
        boundary: Boundary | None = None,
    ) -> None:
        super().__init__(network)
        self.balanced, self.soft, self.msc, self.boundary = balanced, soft, msc, boundary

    def logits(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) RGB in [0, 1] to the logits (B, K, h, w) of a prediction."""
        return self._outputs(images)[0][-1]

    def _outputs(self, images: Tensor) -> tuple[list[Tensor], Dense]:
        """Logits of all scales, and what the network gives at scale 1."""
        seen: list[Dense] = []

        def network(scaled: Tensor) -> Tensor:
            seen.append(self.network.dense(scaled))
            return seen[-1].logits

        logits = pyramid_logits(network, images, self.msc) if self.msc else [network(images)]
        return logits, seen[0]

    def sizes(self, batch: Batch) -> dict[str, float]:
        """Pixels, or sums of probabilities, and images that the means are over."""
        if self.soft:
            sizes = soft_sizes(batch["targets"], self.balanced)
        else:
            sizes = hard_sizes(batch["masks"][:, 0], self.balanced)
        return sizes | {IMAGES: float(len(batch["image"]))} if self.boundary else sizes

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        """Mean cross-entropy over labelled pixels, 0 where there are none, summed over scales, and
        the weighted contrast across boundaries."""
        sizes = batch.get("sizes") or self.sizes(batch)
        outputs, dense = self._outputs(batch["image"])
        plain = torch.stack([self._loss(logits.float(), batch, sizes) for logits in outputs]).sum()
        if self.boundary is None:
            return Losses(plain, {"ce": plain})
        beacon = self._contrast(dense, batch, self.boundary) / sizes[IMAGES]
        return Losses(plain + self.boundary.weight * beacon, {"ce": plain, "beacon": beacon})

    def _loss(self, logits: Tensor, batch: Batch, sizes: dict[str, float]) -> Tensor:
        labels: Tensor = batch["targets"].float() if self.soft else batch["masks"][:, 0].long()
        grid = labels.shape[-2:]
        logits = F.interpolate(logits, grid, mode="bilinear", align_corners=False)
        sums = (soft_sums if self.soft else hard_sums)(logits, labels, self.balanced)
        return mean_of_groups(sums, sizes)

    def _contrast(self, dense: Dense, batch: Batch, config: Boundary) -> Tensor:
        """BEACON, summed over the images."""
        logits, size = dense.logits.detach().float(), batch["image"].shape[2:]
        if logits.shape[2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=dense.aligned)
        if "targets" in batch:
            targets = batch["targets"].float()
        else:
            ids = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
            targets = (batch["masks"][:, :1] == ids).float()
        how = BoundaryContrast(**config.model_dump(exclude={"weight"}))
        # No bf16: it compares small differences.
        with torch.autocast(logits.device.type, enabled=False):
            return boundary_contrast(
                logits,
                dense.features.float(),
                targets,
                batch["label"],
                batch["key"],
                how,
                dense.aligned,
            )


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
    items, read_masks, soft, inputs = _supervision(context)
    network = build_segmenter(context.config, manifest.num_classes + 1, True, context.seed)
    balanced, by_scores = training.loss == "balanced", read_masks is None
    task = SegmentationTask(network, balanced, by_scores, training.msc, training.boundary)
    fill = padding(network.backbone)
    dataset = CropDataset(manifest, items, training, context.seed, fill, read_masks, soft)
    orders = shuffled_batches(len(items), training.batch, context.seed)
    train(context, task, dataset, orders, training, inputs)
