"""The task of segmentation networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.config.schema import Boundary
from wsss.data.training import Batch
from wsss.engine.task import Losses, NetworkTask, Progress
from wsss.losses.boundary_contrast import BoundaryContrast, boundary_contrast
from wsss.losses.segmentation import hard_sizes, hard_sums, mean_of_groups, soft_sizes, soft_sums
from wsss.models.dense import Dense
from wsss.models.pyramid import pyramid_logits
from wsss.models.segmenters import Segmenter
from wsss.precision import full_precision

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
        most: tags that an image has at most; None: unknown. The contrast searches so many classes.
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
        most: int | None = None,
    ) -> None:
        super().__init__(network)
        self.balanced, self.soft, self.msc, self.boundary = balanced, soft, msc, boundary
        self.most = most

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
        with full_precision(logits):
            return boundary_contrast(
                logits,
                dense.features.float(),
                targets,
                batch["label"],
                batch["key"],
                how,
                dense.aligned,
                self.most,
            )
