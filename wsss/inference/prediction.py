"""From images to what prediction stores of each: class scores and a single-scale mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wsss.config.schema import Combine, Compute, Predict
from wsss.engine.device import autocast
from wsss.errors import UserError
from wsss.grids import grid_of
from wsss.inference.images import batches_by_size
from wsss.inference.segmentation import multi_scale_scores
from wsss.refine.resize import resize_bilinear

# A class that scores below this everywhere cannot win and is not stored.
PRESENT = 1e-3


class Predictor(NamedTuple):
    """A network that predicts masks.

    ``module`` is what to place on a device. ``logits`` turns (B, 3, H, W) images in [0, 1] into
    (B, C + 1, h, w) logits; None: it has class scores alone. ``scores``, if there, gives what is
    averaged instead of their softmax. Image sizes are rounded to ``multiple``, the output stride.
    """

    module: nn.Module
    logits: Callable[[Tensor], Tensor] | None
    multiple: int
    scores: Callable[[Tensor], Tensor] | None = None


class Prediction(NamedTuple):
    """One image.

    ``scores`` (K, h, w) float32: scores of all passes combined, of the K ``classes``
    (ids 0..C) that reach :data:`PRESENT` anywhere; ``size`` the image's (H, W); ``single`` the
    (H, W) uint8 mask of scale 1 alone.
    """

    scores: np.ndarray
    classes: list[int]
    size: tuple[int, int]
    single: np.ndarray


@torch.inference_mode()
def predict_window(
    predictor: Predictor,
    images: Sequence[np.ndarray],
    config: Predict,
    compute: Compute,
    device: torch.device,
) -> list[Prediction]:
    """Predict the images of one window, in batches of equal size.

    Args:
        predictor: its module is on ``device``.
        images: (H, W, 3) uint8 each; neighbours of one size share a batch, so the same window
            gives the same bytes.
        config: scales, flip, how they are combined, batch and the stride of the result.
        compute: precision.
        device: where the network is.

    Returns:
        One prediction an image, in order.

    Raises:
        UserError: 1 is not among the scales, or logits are to be combined that there are not.
    """
    maps, logits = _maps(predictor, config.combine)
    results: dict[int, Prediction] = {}
    for indices, batch in batches_by_size(images, config.batch):
        size = (batch.shape[2], batch.shape[3])
        grid = grid_of(size, config.stride)
        with autocast(compute, device):
            found = multi_scale_scores(
                *(maps, batch.to(device), config.scales, config.flip, grid),
                *(predictor.multiple, logits, config.combine),
            )
        all_, alone = found.combined.cpu().numpy(), found.single.cpu().numpy()
        for index, combined, single in zip(indices, all_, alone, strict=True):
            kept = [int(k) for k in np.flatnonzero(combined.max((1, 2)) > PRESENT)]
            label = resize_bilinear(single, size).argmax(0).astype(np.uint8)
            results[index] = Prediction(combined[kept], kept, size, label)
    return [results[index] for index in range(len(images))]


def _maps(predictor: Predictor, combine: Combine) -> tuple[Callable[[Tensor], Tensor], bool]:
    """What is combined, and whether it is logits: class scores are averaged where there are any."""
    if combine == "mean" and predictor.scores is not None:
        return predictor.scores, False
    if predictor.logits is None:
        raise UserError(
            "predict.combine is 'max_logits', but this network gives class scores that are no "
            "softmax of logits: set it to mean"
        )
    return predictor.logits, True
