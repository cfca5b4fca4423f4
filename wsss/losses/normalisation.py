"""Normalisations of class activation maps that losses and refinements share.

All take (B, C, h, w) maps and treat every image and class by itself. Constants as in the
published code of SEAM (Wang et al., "Self-supervised Equivariant Attention Mechanism for Weakly
Supervised Semantic Segmentation", CVPR 2020), which RTC and PPC go on with.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-5


def max_norm(maps: Tensor, epsilon: float = EPSILON) -> Tensor:
    """ReLU(p - min - epsilon) / (max - min + epsilon) of p = ReLU(maps).

    Gradients reach the extremes, too. A constant map becomes 0.

    Args:
        maps: (B, C, h, w).

    Returns:
        (B, C, h, w) in [0, 1).
    """
    positive = maps.relu()
    low, high = positive.amin((2, 3), keepdim=True), positive.amax((2, 3), keepdim=True)
    return (positive - low - epsilon).relu() / (high - low + epsilon)


def peak_norm(maps: Tensor, epsilon: float = EPSILON) -> Tensor:
    """ReLU(p - epsilon) / (max + epsilon) of p = ReLU(maps): the lowest value is not subtracted.

    Args:
        maps: (B, C, h, w).

    Returns:
        (B, C, h, w) in [0, 1).
    """
    positive = maps.relu()
    return (positive - epsilon).relu() / (positive.amax((2, 3), keepdim=True) + epsilon)


def divided_by_peak(maps: Tensor, epsilon: float = EPSILON) -> Tensor:
    """maps / (max + epsilon) of non-negative maps: nothing is subtracted.

    Source: Ahn & Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for
    Weakly Supervised Semantic Segmentation", CVPR 2018, section 3.1; epsilon from its code.

    Args:
        maps: (B, C, h, w).

    Returns:
        (B, C, h, w) in [0, 1).
    """
    return maps / (maps.amax((2, 3), keepdim=True) + epsilon)


def softmax_norm(maps: Tensor) -> Tensor:
    """Softmax over the classes, with a background of 1 minus its maximum in front.

    All C classes take part, absent ones, too. With C = 1 the result is constant. Source: official
    code of MuSCLe (Yuan et al., arXiv:2201.07021, 2022).

    Args:
        maps: (B, C, h, w).

    Returns:
        (B, C + 1, h, w) in [0, 1].
    """
    return with_background(maps.softmax(1))


def floor_norm(maps: Tensor, epsilon: float = EPSILON) -> Tensor:
    """(q - min - epsilon) / (max - min + epsilon) of q = ReLU(maps), 0 where below min + epsilon.

    No ReLU afterwards: cells without evidence end slightly below 0, and a map without any is -1
    everywhere. Source: published code of PPC (Du et al., "Weakly Supervised Semantic
    Segmentation by Pixel-to-Prototype Contrast", CVPR 2022) and of RTC.

    Args:
        maps: (B, C, h, w).

    Returns:
        (B, C, h, w), at most 1.
    """
    positive = maps.relu()
    low, high = positive.amin((2, 3), keepdim=True), positive.amax((2, 3), keepdim=True)
    floored = torch.where(positive < low + epsilon, 0, positive)
    return (floored - low - epsilon) / (high - low + epsilon)


def with_background(foreground: Tensor) -> Tensor:
    """Put 1 - (maximum over classes) before the (B, C, h, w) maps: (B, C + 1, h, w)."""
    background = 1 - foreground.amax(1, keepdim=True)
    return torch.cat([background, foreground], 1)


def with_constant(foreground: Tensor, value: float) -> Tensor:
    """Put a constant background before the (B, C, h, w) maps: (B, C + 1, h, w)."""
    background = torch.full_like(foreground[:, :1], value)
    return torch.cat([background, foreground], 1)


def strongest_class(foreground: Tensor) -> Tensor:
    """Keep each cell's largest class and set the others to 0; equal ones stay.

    A new tensor; the gradient reaches what is kept. Source: published code of SEAM.

    Args:
        foreground: (B, C, h, w), without a background channel.
    """
    return torch.where(foreground < foreground.amax(1, keepdim=True), 0, foreground)


def rival_maps(cam: Tensor) -> Tensor:
    """What a pixel correlation module spreads: at each cell the background and one class.

    Peak-normalised foreground, a background of 1 minus its maximum, and 0 where a class is weaker
    than another. No gradient. Source: published code of SEAM.

    Args:
        cam: (B, C, h, w), raw.

    Returns:
        (B, C + 1, h, w) float32, background first.
    """
    foreground = peak_norm(cam.detach().float())
    background = with_background(foreground)[:, :1]
    return torch.cat([background, strongest_class(foreground)], 1)
