"""Affinity of patch tokens: alike within a class of the activation map, unlike across classes.

Source: patch token contrast of Ru et al., "Token Contrast for Weakly-Supervised Semantic
Segmentation" (ToCo), CVPR 2023, section 3.3, which MCC takes over; form as in the official code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.labels import IGNORE
from wsss.precision import full_precision


def cell_labels(cam: Tensor, low: float, high: float, valid: Tensor) -> Tensor:
    """Label cells by their strongest class.

    Args:
        cam: (B, C, h, w) in [0, 1], absent classes 0.
        low: background up to this.
        high: a class above this; 255 in between.
        valid: (B, h, w) bool; 255 elsewhere.

    Returns:
        (B, h, w) int64, 0 the background.
    """
    score, index = cam.max(1)
    labels = torch.where(score > high, index + 1, IGNORE)
    labels = torch.where(score <= low, 0, labels)
    return torch.where(valid, labels, IGNORE)


def token_affinity_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Half of 1 - (mean similarity of pairs of one label) and half the mean of all others.

    Similarity is the absolute cosine. Counts are raised by 1. A cell makes no pair with itself or
    with one of label 255; background cells are a class. One image at a time, then the mean.
    Without pairs it is the constant 1/2.

    Args:
        features: (B, D, h, w).
        labels: (B, h, w) int64.

    Returns:
        Scalar float32.
    """
    with full_precision(features):
        unit = F.normalize(features.float().flatten(2), dim=1, eps=1e-8)
        similarity = (unit.transpose(1, 2) @ unit).abs()  # (B, hw, hw)
        ids = labels.flatten(1)
        known = ids != IGNORE
        pairs = known[:, :, None] & known[:, None, :]
        pairs = pairs & ~torch.eye(ids.shape[1], dtype=torch.bool, device=ids.device)
        same = ids[:, :, None] == ids[:, None, :]
        like = _mean(similarity, pairs & same)
        unlike = _mean(similarity, pairs & ~same)
        return (0.5 * (1 - like) + 0.5 * unlike).mean()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    total = torch.where(mask, values, 0.0).sum((1, 2))
    return total / (mask.sum((1, 2)) + 1)
