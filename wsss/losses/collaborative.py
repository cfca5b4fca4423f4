"""Contrast of class tokens: global views against local ones, positive or negative.

Source: Wu et al., "Masked Collaborative Contrast for Weakly Supervised Semantic Segmentation"
(MCC), WACV 2024, section 3.3; Ru et al., "Token Contrast for Weakly-Supervised Semantic
Segmentation" (ToCo), CVPR 2023, equations 6 and 7; form and constants as in the official code of
both, which agree.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.precision import full_precision

# Added to sums of exponentials and to the number of positives, as in the official code.
EPSILON = 1e-4
# Chance of a mask that leaves more visible than is counted on.
RARE = 1e-6


def collaborative_contrast(
    teacher: Tensor,
    student: Tensor,
    positive: Tensor,
    temperature: float,
    epsilon: float = EPSILON,
) -> Tensor:
    """Pull global views to the positive ones and push them from the negative ones.

    With e_k = exp(<t, s_k> / temperature) and N the sum of e_k over the image's negatives,

        -log(e_j / (e_j + N + epsilon)) for each positive j, and -log(1 / (1 + N + epsilon)) once,

    summed over positives and teachers, divided by T times (number of positives + epsilon); mean
    over the batch. The last term, which only repels, is there with and without positives.
    Computed from logarithms of sums, so that no product of long vectors overflows.

    Args:
        teacher: (B, T, D) projected global views; the caller detaches them.
        student: (B, K, D) projected views, global and local.
        positive: (B, K) bool; the others are negatives of their own image.

    Returns:
        Scalar float32.
    """
    with full_precision(student):
        logits = teacher.float() @ student.float().transpose(1, 2) / temperature  # (B, T, K)
        keep = positive[:, None]
        negatives = logits.masked_fill(keep, -torch.inf)
        floor = logits.new_full((*logits.shape[:2], 1), math.log(epsilon))
        repulsion = torch.cat([negatives, floor], 2).logsumexp(2)  # log(N + epsilon)
        attract = torch.logaddexp(logits, repulsion[..., None]) - logits
        total = attract.masked_fill(~keep, 0.0).sum((1, 2)) + F.softplus(repulsion).sum(1)
        count = positive.sum(1) + epsilon
        return (total / (logits.shape[1] * count)).mean()


def region_values(cam: Tensor, low: float, high: float) -> Tensor:
    """Value of each cell as evidence of an object: 0 up to ``low``, 2 from ``high``, else 1.

    Args:
        cam: (B, C, h, w) in [0, 1], absent classes 0.

    Returns:
        (B, h, w) float32.
    """
    score = cam.float().amax(1)
    return 1.0 + (score >= high).float() - (score <= low).float()


def visible_positive(values: Tensor, masked: Tensor, ratio: float) -> Tensor:
    """Whether what a key mask leaves visible shows an object.

    Negative where the values of the visible cells sum to at most ``ratio`` times their number,
    and where no cell is visible.

    Args:
        values: (B, h, w) of :func:`region_values`.
        masked: (B, n, h, w) bool, true where hidden.

    Returns:
        (B, n) bool.
    """
    visible = (~masked).float()
    return (visible * values[:, None]).sum((2, 3)) > ratio * visible.sum((2, 3))


def most_visible(blocks: int, rate: float) -> int:
    """Bound of the visible blocks of a mask, at least 1.

    Of masks that hide each of ``blocks`` with probability ``rate``, less than one in a million
    leaves more visible.
    """
    above = 1.0
    for count in range(blocks):
        above -= math.comb(blocks, count) * (1 - rate) ** count * rate ** (blocks - count)
        if above < RARE:
            return max(1, count)
    return max(1, blocks)


def coarse_masks(
    uniform: Tensor, rate: float, block: int, grid: tuple[int, int], most: int | None = None
) -> Tensor:
    """Key masks whose blocks of cells are hidden together (MCC, section 3.2).

    Args:
        uniform: (B, n, ceil(h / block), ceil(w / block)) in [0, 1).
        rate: share of blocks that are hidden.
        block: cells a side.
        grid: (h, w).
        most: visible blocks of a mask; those above it with the least ``uniform`` are hidden, too.

    Returns:
        (B, n, h, w) bool, true where hidden.
    """
    hidden = uniform < rate
    if most is not None and most < uniform.shape[2] * uniform.shape[3]:
        least = uniform.flatten(2).topk(most, 2).values[:, :, -1]
        hidden = hidden | (uniform < least[:, :, None, None])
    fine = hidden.repeat_interleave(block, 2).repeat_interleave(block, 3)
    return fine[:, :, : grid[0], : grid[1]]
