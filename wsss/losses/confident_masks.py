"""Masks made while training: what is surely a class, what is surely background.

Two thresholds as in Ru et al., "Learning Affinity from Attention" (AFA), CVPR 2022, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsss.labels import IGNORE
from wsss.losses.normalisation import peak_norm


def present_peaks(maps: Tensor, label: Tensor) -> Tensor:
    """Divide non-negative (B, C, h, w) maps by their maxima; absent classes are 0."""
    return peak_norm(maps) * label[:, :, None, None]


def confident_masks(maps: Tensor, high: float, low: float, valid: Tensor) -> Tensor:
    """The best class above ``high``, background where all are below ``low``, 255 elsewhere.

    Args:
        maps: (B, C, h, w) in [0, 1], absent classes 0.
        valid: (B, h, w) bool; elsewhere 255.

    Returns:
        (B, h, w) int64; no gradient.
    """
    score, best = maps.detach().max(1)
    masks = torch.where(score > high, best + 1, torch.where(score < low, 0, IGNORE))
    return torch.where(valid, masks, IGNORE)
