"""From images to what prediction stores of each: probabilities and a single-scale mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsss.config.schema import Compute, Predict
from wsss.engine.device import autocast
from wsss.inference.images import batches_by_size
from wsss.inference.scales import grid_of
from wsss.inference.segmentation import multi_scale_probabilities
from wsss.refine.resize import resize_bilinear

# A class that scores below this everywhere cannot win and is not stored.
PRESENT = 1e-3


class Prediction(NamedTuple):
    """One image.

    ``scores`` (K, h, w) float32: mean probabilities over all passes of the K ``classes``
    (ids 0..C) that reach :data:`PRESENT` anywhere; ``size`` the image's (H, W); ``single`` the
    (H, W) uint8 mask of scale 1 alone.
    """

    scores: np.ndarray
    classes: list[int]
    size: tuple[int, int]
    single: np.ndarray


@torch.inference_mode()
def predict_window(
    network: Callable[[Tensor], Tensor],
    images: Sequence[np.ndarray],
    config: Predict,
    compute: Compute,
    device: torch.device,
    multiple: int,
) -> list[Prediction]:
    """Predict the images of one window, in batches of equal size.

    Args:
        network: (B, 3, H, W) in [0, 1] on ``device`` -> (B, C + 1, h, w) logits.
        images: (H, W, 3) uint8 each; neighbours of one size share a batch, so the same window
            gives the same bytes.
        config: scales, flip, batch and the stride of the result.
        compute: precision.
        device: where ``network`` is.
        multiple: output stride that scaled sizes are rounded to.

    Returns:
        One prediction an image, in order. Raises UserError if 1 is not among the scales.
    """
    results: dict[int, Prediction] = {}
    for indices, batch in batches_by_size(images, config.batch):
        size = (batch.shape[2], batch.shape[3])
        grid = grid_of(size, config.stride)
        with autocast(compute, device):
            found = multi_scale_probabilities(
                network, batch.to(device), config.scales, config.flip, grid, multiple
            )
        means, alone = found.mean.cpu().numpy(), found.single.cpu().numpy()
        for index, mean, single in zip(indices, means, alone, strict=True):
            kept = [int(k) for k in np.flatnonzero(mean.max((1, 2)) > PRESENT)]
            label = resize_bilinear(single, size).argmax(0).astype(np.uint8)
            results[index] = Prediction(mean[kept], kept, size, label)
    return [results[index] for index in range(len(images))]
