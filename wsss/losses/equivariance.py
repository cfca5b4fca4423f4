"""Consistency of activation maps under a change of scale, and adaptive minimum pooling.

Source: Wang et al., "Self-supervised Equivariant Attention Mechanism for Weakly Supervised
Semantic Segmentation" (SEAM), CVPR 2020, section 3.5; shares of pixels from its published code.
"""

from __future__ import annotations

from torch import Tensor

from wsss.losses.normalisation import strongest_class, with_background


def minimum_pooling(maps: Tensor, share: float = 0.25) -> Tensor:
    """Mean of the lowest ``share`` of each image's foreground: somewhere must be background.

    Args:
        maps: (B, C, H, W) of the foreground classes, absent ones 0; not normalised.
        share: of the pixels, at least one of them.

    Returns:
        Scalar: the mean over B and floor(share * H * W) pixels of ReLU(maximum over classes).
    """
    strongest = maps.amax(1).flatten(1)
    count = max(1, int(strongest.shape[1] * share))
    return strongest.topk(count, dim=1, largest=False).values.relu().mean()


def equivariance(one: Tensor, two: Tensor) -> Tensor:
    """L1 distance of two views' maps in one frame (equation 6): mean over everything.

    Args:
        one, two: (B, C, h, w) of the foreground classes, normalised, absent ones 0. Their zeros
            count, so that the term shrinks with the number of classes.
    """
    return (one - two).abs().mean()


def hardest(differences: Tensor, share: float) -> Tensor:
    """Mean over B of the largest ``share`` of each image's (B, ...) values; at least one."""
    flat = differences.flatten(1)
    count = max(1, int(flat.shape[1] * share))
    return flat.topk(count, dim=1).values.mean()


def cross_equivariance(maps: Tensor, refined: Tensor, share: float = 0.2) -> Tensor:
    """L1 distance of one view's refined maps to the other view's own (equation 7, one half).

    The target gets no gradient: its background is recomputed as 1 - maximum, and of its classes
    the largest remains at each cell.

    Args:
        maps: (B, C, h, w) of the other view, foreground, normalised, absent classes 0.
        refined: (B, C + 1, h, w) of this view, background first, normalised, absent classes 0.
        share: of the (C + 1) * h * w entries of an image, those that differ most.
    """
    target = with_background(maps.detach())
    target = target.clone()
    target[:, 1:] = strongest_class(target[:, 1:])
    return hardest((target - refined).abs(), share)
