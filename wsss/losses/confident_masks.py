"""Masks made while training: what is surely a class, what is surely background.

Two thresholds as in Ru et al., "Learning Affinity from Attention" (AFA), CVPR 2022, section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.transforms import IGNORE
from wsss.distributed.collectives import total
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


def balanced_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Half the mean over background and half the mean over foreground, as
    :func:`wsss.losses.segmentation.mean_of_groups`, but counted on the device. Means are over
    the cells of the global batch.

    Args:
        logits: (B, K, h, w).
        masks: (B, h, w) int64; 255 is ignored.

    Returns:
        Scalar; a part without cells is 0.
    """
    values = F.cross_entropy(logits.float(), masks, ignore_index=IGNORE, reduction="none")
    parts = [masks == 0, (masks != 0) & (masks != IGNORE)]
    means = [total(torch.where(p, values, 0).sum()) / total(p.sum()).clamp(min=1) for p in parts]
    return torch.stack(means).mean()
