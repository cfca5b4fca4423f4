"""The compensator: activation maps learn from cells of other images that look alike.

Source: Wang et al., "Boosting Weakly-Supervised Image Segmentation via Representation,
Transform, and Compensator" (RTC), IEEE TCSVT 2024; published code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.equivariance import hardest
from wsss.losses.normalisation import max_norm, strongest_class
from wsss.losses.prototypes import Selection
from wsss.precision import full_precision


def compensate(
    scores: Tensor, features: Tensor, chosen: Selection, present: Tensor | None = None
) -> Tensor:
    """Add to each score the scores of the chosen cells, by attention; no gradient.

    new_k(x) = r_k(x) + sum over t of softmax_t(f(x) T_kt) w_kt, features at length 1 and no
    temperature.

    Args:
        scores: (B, K, h, w).
        features: (B, D, h, w), the view that ``chosen`` has its features from.
        chosen: :func:`wsss.losses.prototypes.select_cells` for the K classes.
        present: (K,) bool, the classes of the batch; others keep their scores. None for all:
            absent classes are masked out of the loss anyway.

    Returns:
        (B, K, h, w) float32, not normalised.
    """
    cells = F.normalize(features.detach().float(), dim=1)
    keys = F.normalize(chosen.features, dim=2)
    with full_precision(cells):
        attention = torch.einsum("bdhw,knd->bknhw", cells, keys).softmax(2)
        gathered = torch.einsum("bknhw,kn->bkhw", attention, chosen.weights)
    base = scores.detach().float()
    if present is not None:
        gathered = torch.where(present[:, None, None], gathered, 0)
    return base + gathered


def compensation_loss(
    maps: Tensor, compensated: Tensor, label: Tensor, share: float = 0.8
) -> Tensor:
    """L1 distance of a view's own maps to the compensated ones; the maps alone get a gradient.

    Args:
        maps: (B, C, H, W) of the foreground, normalised, absent classes 0.
        compensated: (B, C, h, w) of the foreground, as :func:`compensate` returns them;
            normalised here at their grid, then brought to H x W, corners aligned.
        label: (B, C) of 0 and 1.
        share: of the C * H * W entries of an image, those that differ most.
    """
    target = max_norm(compensated.detach())
    target = F.interpolate(target, maps.shape[2:], mode="bilinear", align_corners=True)
    target = strongest_class(target * label[:, :, None, None])
    return hardest((target - strongest_class(maps)).abs(), share)
