"""Class maps brought to a common scale, and how far two versions of them differ.

Source: MuSCLe, sections on self-guided CAMs and pixel-level contrast, as in the official code.
"""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_norm(maps: Tensor) -> Tensor:
    """Softmax over the classes, with a background of 1 minus its maximum in front.

    All C classes take part, absent ones, too, as in the official code. With C = 1 the result is
    constant.

    Args:
        maps: (B, C, h, w).

    Returns:
        (B, C + 1, h, w) in [0, 1].
    """
    shares = maps.softmax(1)
    return torch.cat([1 - shares.amax(1, keepdim=True), shares], dim=1)


def max_norm(maps: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Stretch each map to [0, 1]: relu((x - min - e) / (max - min + e)).

    Minimum and maximum carry gradient (official code). Of a constant map nothing is left.

    Args:
        maps: (B, K, h, w); what is negative counts as 0.
    """
    x = maps.relu()
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return ((x - low - epsilon) / (high - low + epsilon)).relu()


def peak_norm(maps: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Divide each non-negative map (B, K, h, w) by its maximum.

    Source: Ahn & Kwak, CVPR 2018, section 3.1; its pipeline adds 1e-5, so that a class without any
    evidence stays at zero.
    """
    return maps / (maps.amax((2, 3), keepdim=True) + epsilon)


def with_complement(maps: Tensor, labels: Tensor) -> Tensor:
    """Keep the maps of present classes and put 1 minus their maximum in front.

    Args:
        maps: (B, C, h, w) in [0, 1].
        labels: (B, C).

    Returns:
        (B, C + 1, h, w).
    """
    kept = maps * labels[:, :, None, None]
    return torch.cat([1 - kept.amax(1, keepdim=True), kept], dim=1)


def hardest_mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of each row's largest values, then over rows.

    Args:
        values: (B, N).
        counts: (B,) how many of each row; less than 1 counts as 1, more than N as N.
    """
    ordered = values.sort(dim=1, descending=True).values
    counts = counts.long().clamp(1, values.shape[1])
    taken = torch.arange(values.shape[1], device=values.device) < counts[:, None]
    return (torch.where(taken, ordered, 0).sum(1) / counts).mean()


def refinement_loss(
    plain: Tensor, refined: Tensor, labels: Tensor, share: float = 0.2, per_batch: bool = False
) -> Tensor:
    """Largest absolute differences between a CAM, as the target, and its refinement.

    Source: MuSCLe, equivariance/refinement loss: the mean of the top K differences of each image
    over all C + 1 maps.

    Args:
        plain: (B, C, H, W) non-negative CAMs; no gradient reaches them.
        refined: (B, C, H, W).
        labels: (B, C), 0 or 1; maps of absent classes do not count.
        share: K is ``share`` x labels x H x W (official code: 0.2).
        per_batch: count the labels of the whole batch for every image (official code) instead of
            its own.
    """
    channels = torch.cat([labels.new_ones(len(labels), 1), labels], 1)[:, :, None, None]
    target = softmax_norm(plain.detach())
    differences = ((target - softmax_norm(refined)) * channels).abs().flatten(1)
    area = plain.shape[2] * plain.shape[3]
    positives = labels.sum(1)
    if per_batch:
        positives = positives.sum().expand(len(labels))
    return hardest_mean(differences, (share * area * positives).floor())
